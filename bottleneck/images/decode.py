"""From a content to an upright RGB image."""

import struct
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from PIL.ExifTags import Base as ExifTag
from PIL.JpegImagePlugin import JpegImageFile

from bottleneck.images.content import Content, ImageReadError
from bottleneck.images.modes import to_rgb
from bottleneck.images.pillow import strict_pillow

DECODE_VERSION = 1
"""Goes up whenever the same content decodes to other pixels: part of what identifies a feature."""

DRAFT_MARGIN = 2
"""How much larger than needed a JPEG is decoded: Pillow's own default (``reducing_gap`` of ``Image.thumbnail``)."""

REFUSED_FORMATS = frozenset({"EPS"})
"""PostScript is a program, which Pillow has Ghostscript run."""

UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What undoes each EXIF orientation (CIPA DC-008, tag 274)."""

KNOWN_STARTS = (
    (b"<!doctype html", "an HTML page, probably what a failed download left"),
    (b"<html", "an HTML page, probably what a failed download left"),
    (b"<svg", "an SVG drawing; export it as PNG"),
    (b"<?xml", "an XML or SVG file"),
    (b"%pdf", "a PDF document"),
    (b"%!ps", "a PostScript file, which would have to be run"),
    (b"pk\x03\x04", "a ZIP archive"),
    (b"version https://git-lfs", "a Git LFS pointer; fetch the file with: git lfs pull"),
)
"""First bytes, in lower case, of what is found under the names of images."""

HEIF_BRANDS = (b"heic", b"heix", b"hevc", b"mif1", b"msf1")


def decode(content: Content, *, min_side: int | None = None) -> Image.Image:
    """Return the image of a content: first frame, upright by its EXIF orientation, in RGB (see `modes`).

    Parameters
    ----------
    content : bytes or ndarray of uint8 (height, width, 3)
    min_side : int, optional
        Both sides of the result may shrink to twice this many pixels where the decoder does so at a gain: JPEG files
        are decoded at 1/2, 1/4 or 1/8 (a photograph of 24 megapixels for a crop of 224 pixels).

    Raises
    ------
    ImageReadError
        The bytes are no image, are damaged or cut off, or hold more pixels than ``PIL.Image.MAX_IMAGE_PIXELS``.
    """
    if isinstance(content, np.ndarray):
        return Image.fromarray(content)
    with strict_pillow():
        image = _open(content)
        if min_side is not None and isinstance(image, JpegImageFile):
            image.draft(None, (DRAFT_MARGIN * min_side, DRAFT_MARGIN * min_side))
        return _upright_rgb(image)


def pixels_of_image(image: Image.Image) -> NDArray[np.uint8]:
    """Return the pixels (height, width, 3) of a Pillow image, as if its file had been decoded."""
    with strict_pillow():
        return np.asarray(_upright_rgb(image))


def _open(data: bytes) -> Image.Image:
    """Read the header of an image file, and refuse what is none or too large."""
    if not data:
        raise ImageReadError("the file is empty (0 bytes)")
    try:
        image = Image.open(BytesIO(data), formats=[kind for kind in Image.ID if kind not in REFUSED_FORMATS])
    except UnidentifiedImageError as exc:
        raise ImageReadError(f"not an image: {_description(data)}") from exc
    width, height = image.size
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and width * height > limit:  # Pillow warns from here on and raises from twice the limit
        raise ImageReadError(
            f"too large to be decoded: {width} x {height} pixels, the limit is {limit} (PIL.Image.MAX_IMAGE_PIXELS)"
        )
    return image


def _upright_rgb(image: Image.Image) -> Image.Image:
    image.load()
    method = UPRIGHT.get(_orientation(image))
    rgb = to_rgb(image)
    return rgb if method is None else rgb.transpose(method)


def _orientation(image: Image.Image) -> int:
    """Return the EXIF orientation, 1 (upright) where there is none or the metadata is damaged."""
    try:
        orientation = image.getexif().get(ExifTag.Orientation, 1)
    except (SyntaxError, ValueError, TypeError, KeyError, EOFError, OSError, ZeroDivisionError, struct.error):
        return 1  # the pixels are sound; Pillow's own readers pass over damaged EXIF in the same way
    return orientation if isinstance(orientation, int) else 1


def _description(data: bytes) -> str:
    """Say what bytes are that Pillow does not know."""
    start = data[:200].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    for sign, description in KNOWN_STARTS:
        if start.startswith(sign):
            return description
    if data[4:8] == b"ftyp" and data[8:12] in HEIF_BRANDS:
        return "a HEIF photograph, which Pillow reads once the package pillow-heif is installed and registered"
    return f"Pillow does not know the format (the first bytes are {data[:12]!r})"
