"""From a content to upright RGB pixels."""

from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from PIL.JpegImagePlugin import JpegImageFile

from bottleneck.images.content import Content, ImageReadError
from bottleneck.images.jpeg import decode_plain_jpeg, parse_plain_jpeg, scale_for
from bottleneck.images.modes import to_rgb
from bottleneck.images.pillow import strict_pillow
from bottleneck.images.upright import orientation_in, orientation_of, upright

DECODE_VERSION = 2
"""Goes up whenever the same content is decoded or resized to other pixels: part of what identifies a feature.

2: resized by torch, which differs from Pillow's resizing (1) by one grey level in a few pixels of a thousand, and
large JPEG files reduced less by the decoder.
"""

REFUSED_FORMATS = frozenset({"EPS"})
"""PostScript is a program, which Pillow has Ghostscript run."""

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
    """Return the image of a content as `decode_pixels` does, for those who go on with Pillow."""
    return Image.fromarray(decode_pixels(content, min_side=min_side))


def decode_pixels(content: Content, *, min_side: int | None = None) -> NDArray[np.uint8]:
    """Return the pixels of a content: first frame, upright by its EXIF orientation, in RGB (see `modes`).

    Parameters
    ----------
    content : bytes or ndarray of uint8 (height, width, 3)
    min_side : int, optional
        How many pixels of the shorter side are needed. A JPEG file of many more is decoded at 1/2, 1/4 or 1/8 (a
        photograph of 24 megapixels for a crop of 224 pixels at 1/4), which leaves at least 2.5 times as many.

    Returns
    -------
    ndarray of uint8 (height, width, 3)
        Perhaps read-only.

    Raises
    ------
    ImageReadError
        The bytes are no image, are damaged or cut off, or hold more pixels than ``PIL.Image.MAX_IMAGE_PIXELS``.
    """
    if isinstance(content, np.ndarray):
        return content
    header = parse_plain_jpeg(content)
    if header is not None:
        pixels = decode_plain_jpeg(content, header, min_side=min_side)
        if pixels is not None:
            return upright(pixels, orientation_in(header.exif))
    with strict_pillow():
        image = _open(content)
        if isinstance(image, JpegImageFile):
            scale = scale_for(*image.size, min_side=min_side)
            image.draft(None, (max(1, image.width // scale), max(1, image.height // scale)))
        return _upright_rgb(image)


def pixels_of_image(image: Image.Image) -> NDArray[np.uint8]:
    """Return the pixels (height, width, 3) of a Pillow image, as if its file had been decoded."""
    with strict_pillow():
        return _upright_rgb(image)


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


def _upright_rgb(image: Image.Image) -> NDArray[np.uint8]:
    image.load()
    orientation = orientation_of(image)
    return upright(np.asarray(to_rgb(image)), orientation)


def _description(data: bytes) -> str:
    """Say what bytes are that Pillow does not know."""
    start = data[:200].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    for sign, description in KNOWN_STARTS:
        if start.startswith(sign):
            return description
    if data[4:8] == b"ftyp" and data[8:12] in HEIF_BRANDS:
        return "a HEIF photograph, which Pillow reads once the package pillow-heif is installed and registered"
    return f"Pillow does not know the format (the first bytes are {data[:12]!r})"
