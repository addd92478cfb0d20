"""What a source hands over for one image, the key of that content, and the error for an image that has none."""

from hashlib import blake2b
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bottleneck.errors import TransferError

Content = bytes | NDArray[np.uint8]
"""One image: the bytes of an encoded file, or RGB pixels ``(height, width, 3)``."""

KEY_SIZE = 16
"""Bytes of a key: two of a billion different images share one with a probability of about 1e-21."""


class ImageReadError(TransferError):
    """One image that cannot be read or decoded; ``reason`` says why in plain words."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class FileStat(NamedTuple):
    """What identifies a file on disk without reading it: absolute path, size in bytes, time of the last change.

    A tuple, because a warm pass over millions of images makes one for each.
    """

    path: str
    size: int
    mtime_ns: int


def content_key(content: Content) -> bytes:
    """Return the 16-byte BLAKE2b key of a content.

    The key of an encoded file is the plain hash of its bytes, so that a renamed or copied file keeps its key.
    Pixels are hashed together with their shape and under a personalisation of their own: they never share a key with
    an encoded file, nor with the same bytes in another shape.
    """
    if isinstance(content, bytes):
        return blake2b(content, digest_size=KEY_SIZE).digest()
    shape = np.array(content.shape, dtype="<i8").tobytes()
    return blake2b(shape + content.tobytes(), digest_size=KEY_SIZE, person=b"pixels").digest()
