"""Random crops and flips for training, which depend on the seed, the epoch and the row, and on nothing else."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from bottleneck.torchvision_door import transforms_functional

ASPECT_RATIOS = (3 / 4, 4 / 3)
"""How much a crop may be stretched (Szegedy et al. 2015, "Going deeper with convolutions", section 6)."""


def augment(
    pixels: torch.Tensor,
    rows: Sequence[int] | NDArray[np.integer],
    *,
    size: int,
    seed: int,
    epoch: int,
    min_area: float = 0.5,
    flip: bool = True,
) -> torch.Tensor:
    """Return a random crop of each image, resized, and mirrored half of the time.

    Parameters
    ----------
    pixels : uint8 tensor (n, 3, h, w)
    rows : (n,)
        The rows of the images in their source. The same row, epoch and seed give the same crop in whatever batch.
    size : int
        Height and width of the result in pixels.
    min_area : float
        The least share of the area that a crop keeps; shares are uniform from there to 1.
    flip : bool
        False where left and right carry the label (digits, text, road signs).

    Returns
    -------
    uint8 tensor (n, 3, size, size)
    """
    functional = transforms_functional()

    height, width = pixels.shape[-2:]
    out = pixels.new_empty((len(pixels), 3, size, size))
    for i, row in enumerate(rows):
        rng = np.random.default_rng((seed, epoch, int(row)))
        top, left, crop_height, crop_width = _random_crop(rng, height, width, min_area=min_area)
        crop = functional.resized_crop(pixels[i], top, left, crop_height, crop_width, [size, size], antialias=True)
        out[i] = functional.horizontal_flip(crop) if flip and rng.random() < 0.5 else crop
    return out


def _random_crop(rng: np.random.Generator, height: int, width: int, *, min_area: float) -> tuple[int, int, int, int]:
    """Return top, left, height and width of a crop.

    Its aspect ratio relative to the image is log-uniform among those at which a crop of the drawn area fits.
    """
    area = rng.uniform(min_area, 1.0)
    low, high = max(ASPECT_RATIOS[0], area), min(ASPECT_RATIOS[1], 1 / area)
    ratio = math.exp(rng.uniform(math.log(low), math.log(high)))
    crop_height = max(1, round(height * math.sqrt(area / ratio)))
    crop_width = max(1, round(width * math.sqrt(area * ratio)))
    top, left = rng.integers(height - crop_height, endpoint=True), rng.integers(width - crop_width, endpoint=True)
    return int(top), int(left), crop_height, crop_width
