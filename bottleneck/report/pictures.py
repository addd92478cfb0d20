"""Pictures of test images, small enough that all of them fit into one file."""

from base64 import b64encode
from io import BytesIO

from PIL import Image

from bottleneck.images import ImageReadError, ImageSource, decode

TOTAL_BYTES = 10_000_000
"""What all pictures together may take in the file: with everything else it stays under 15 MB."""

MOST_BYTES = 16_000
"""What one picture may take, however few there are."""

SIZES = ((256, 70), (192, 65), (160, 60), (128, 50), (96, 45), (64, 40))
"""Pixels of the longer side at most, and quality, from the best on."""

PIXELS_PER_BYTE = 6
"""Of a square photograph, in base64: larger sizes are not tried, because they would hardly fit."""

METHOD = 2
"""Effort of the encoder, 0 to 6: files of 2 are 3 to 5 % larger than of Pillow's 4, in half of its time."""


def fair_share(n_pictures: int) -> int:
    """Return the bytes that each of so many pictures may take."""
    return min(MOST_BYTES, TOTAL_BYTES // max(1, n_pictures))


def picture(source: ImageSource, row: int, *, most_bytes: int) -> str:
    """Return a small WebP of one image in base64; nothing, rather than another picture, if it is gone by now.

    Of the sizes the largest is taken that needs no more than ``most_bytes``, or the smallest of all.
    """
    sizes = [found for found in SIZES if found[0] ** 2 <= PIXELS_PER_BYTE * most_bytes] or [SIZES[-1]]
    try:
        image = decode(source.read(row), min_side=sizes[0][0])
    except ImageReadError:
        return ""
    for side, quality in sizes:
        text = _encoded(image, side=side, quality=quality)
        if len(text) <= most_bytes:
            break
    return text


def _encoded(image: Image.Image, *, side: int, quality: int) -> str:
    """Return an image of that longer side, at most, as a WebP file in base64."""
    small = image.copy()
    small.thumbnail((side, side))
    encoded = BytesIO()
    small.save(encoded, "WEBP", quality=quality, method=METHOD)
    return b64encode(encoded.getvalue()).decode("ascii")
