"""TrivialAugment (Mueller and Hutter 2021): one random change of random strength for each image.

The changes are those of the paper but for solarize, which turns light into dark, with the strengths of its narrow
space (rotations up to 30 degrees), so that they hardly ever change what an image shows.
"""

from collections.abc import Callable, Sequence
from types import ModuleType

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bottleneck.torchvision_door import transforms_functional

MAX_DEGREES = 30.0
MAX_SHEAR_DEGREES = 17.0
MAX_SHIFT = 0.1
"""Of the side."""
MAX_FACTOR = 0.9
"""Brightness, contrast, colour and sharpness are multiplied by factors from 1 - this to 1 + this."""
LEAST_BITS = 4

TRIVIAL_STREAM = 2
"""Sets these random numbers apart from those of other purposes with the same seed, epoch and number."""

Change = Callable[[ModuleType, Tensor, float], Tensor]
"""From torchvision's functions, an image (3, h, w) and a strength from -1 to 1 to the changed image."""


def _moved(*, degrees: float = 0.0, across: float = 0.0, down: float = 0.0, shear: Sequence[float] = (0, 0)) -> Change:
    def change(functional: ModuleType, image: Tensor, strength: float) -> Tensor:
        height, width = image.shape[-2:]
        moved: Tensor = functional.affine(
            image,
            angle=degrees * strength,
            translate=[round(across * strength * width), round(down * strength * height)],
            scale=1.0,
            shear=[angle * strength for angle in shear],
            interpolation=functional.InterpolationMode.BILINEAR,
            # The mean colour of the image looks less like an object than black corners.
            fill=image.float().mean(dim=(1, 2)).round().tolist(),
        )
        return moved

    return change


def _scaled(name: str) -> Change:
    return lambda functional, image, strength: getattr(functional, name)(image, 1 + MAX_FACTOR * strength)


CHANGES: dict[str, Change] = {
    "nothing": lambda functional, image, strength: image,
    "shear_x": _moved(shear=(MAX_SHEAR_DEGREES, 0)),
    "shear_y": _moved(shear=(0, MAX_SHEAR_DEGREES)),
    "shift_x": _moved(across=MAX_SHIFT),
    "shift_y": _moved(down=MAX_SHIFT),
    "rotate": _moved(degrees=MAX_DEGREES),
    "brightness": _scaled("adjust_brightness"),
    "colour": _scaled("adjust_saturation"),
    "contrast": _scaled("adjust_contrast"),
    "sharpness": _scaled("adjust_sharpness"),
    "posterize": lambda functional, image, strength: functional.posterize(
        image, bits=8 - round((8 - LEAST_BITS) * abs(strength))
    ),
    "autocontrast": lambda functional, image, strength: functional.autocontrast(image),
    "equalize": lambda functional, image, strength: functional.equalize(image),
}


def change_trivially(pixels: Tensor, rows: Sequence[int] | NDArray[np.integer], *, seed: int, epoch: int) -> Tensor:
    """Return each image with one random change, which depends on the seed, the epoch and the row only.

    Parameters
    ----------
    pixels : uint8 tensor (n, 3, h, w)
    rows : (n,)
        The rows of the images in their source.

    Returns
    -------
    uint8 tensor (n, 3, h, w)
    """
    functional, changes = transforms_functional(), list(CHANGES.values())
    out = torch.empty_like(pixels)
    for i, row in enumerate(rows):
        which, strength = np.random.default_rng((seed, epoch, int(row), TRIVIAL_STREAM)).random(2)
        out[i] = changes[int(which * len(changes))](functional, pixels[i], float(2 * strength - 1))
    return out
