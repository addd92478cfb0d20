"""From every mode that Pillow has to RGB, each one on purpose.

======================  =============================================================================
RGB                     as it is
L, 1                    grey in all three channels
P                       through the palette
alpha (RGBA, LA, PA,    composited on white: a picture cut out for a white page is the usual case, and
palette or colour key)  the hidden colour under a transparent pixel is arbitrary
I;16, I                 16-bit grey, scaled from 0..65535; values beyond are an error
F                       grey, scaled from 0..1; values beyond are an error
CMYK, YCbCr, LAB, HSV   Pillow's conversion; Adobe's inverted CMYK is set right by Pillow's JPEG reader
======================  =============================================================================

Embedded colour profiles are ignored, as the preprocessing that the pretrained networks were trained with does.
"""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bottleneck.images.content import ImageReadError

LARGEST_16_BIT = 65535


def to_rgb(image: Image.Image) -> Image.Image:
    """Return the current frame of an image in mode RGB."""
    if image.mode.startswith("I"):
        return _from_integers(image)
    if image.mode == "F":
        return _from_floats(image)
    if image.has_transparency_data:
        return _on_white(image)
    return image if image.mode == "RGB" else image.convert("RGB")


def _from_integers(image: Image.Image) -> Image.Image:
    values = np.asarray(image).astype(np.int64)
    low, high = values.min(), values.max()
    if low < 0 or high > LARGEST_16_BIT:
        raise ImageReadError(f"integer pixels from {low} to {high}; only 16 bits (0 to {LARGEST_16_BIT}) can be scaled")
    grey = (values * 255 + LARGEST_16_BIT // 2) // LARGEST_16_BIT
    if "transparency" in image.info:
        grey[values == image.info["transparency"]] = 255
    return _from_grey(grey.astype(np.uint8))


def _from_floats(image: Image.Image) -> Image.Image:
    values = np.asarray(image)
    low, high = values.min(), values.max()
    if not (low >= 0 and high <= 1):  # NaN fails both
        raise ImageReadError(f"float pixels from {low:g} to {high:g}; they must be within 0 to 1")
    return _from_grey(np.rint(values * 255).astype(np.uint8))


def _from_grey(grey: NDArray[np.uint8]) -> Image.Image:
    return Image.fromarray(grey).convert("RGB")


def _on_white(image: Image.Image) -> Image.Image:
    if image.mode == "La":  # Pillow has no direct way from premultiplied grey
        image = image.convert("LA")
    image = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
