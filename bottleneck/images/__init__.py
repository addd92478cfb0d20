"""Images from whatever users have, in a fixed order, decoded in one way."""

from bottleneck.images.augment import augment
from bottleneck.images.content import Content, FileStat, ImageReadError, content_key
from bottleneck.images.decode import DECODE_VERSION, decode
from bottleneck.images.loader import ImageBatch, content_keys, load_batch, load_batches
from bottleneck.images.parts import part_of
from bottleneck.images.recognise import as_image_source, as_labelled_source
from bottleneck.images.source import ImageSource, subset

__all__ = [
    "DECODE_VERSION",
    "Content",
    "FileStat",
    "ImageBatch",
    "ImageReadError",
    "ImageSource",
    "as_image_source",
    "as_labelled_source",
    "augment",
    "content_key",
    "content_keys",
    "decode",
    "load_batch",
    "load_batches",
    "part_of",
    "subset",
]
