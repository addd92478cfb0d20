"""Random crops and flips for training, which depend on the seed, the epoch and the row, and on nothing else."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from bottleneck.torchvision_door import transforms_functional

ASPECT_RATIOS = (3 / 4, 4 / 3)
"""How much a crop may be stretched (Szegedy et al. 2015, "Going deeper with convolutions", section 6)."""

SMALL_AREA = 96 * 96
"""Pixels up to which a whole batch is resampled by matrix products: three times faster than one by one at 32 x 32.
From about 112 x 112 on the arithmetic outweighs what a call costs."""

N_DRAWS = 5
"""Random numbers an image: area, aspect ratio, top, left, and whether it is mirrored."""


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
        Resampled by antialiased bilinear interpolation.
    """
    draws = random_numbers(rows, seed=seed, epoch=epoch)
    height, width = pixels.shape[-2:]
    crops = crop_boxes(draws, height, width, min_area=min_area)
    mirrored = draws[:, 4] < 0.5 if flip else np.zeros(len(rows), dtype=bool)
    resample = _resample_together if max(height * width, size * size) <= SMALL_AREA else _resample_one_by_one
    return resample(pixels, crops, mirrored, size=size)


def random_numbers(
    rows: Sequence[int] | NDArray[np.integer], *, seed: int, epoch: int, n: int = N_DRAWS
) -> NDArray[np.float64]:
    """Return ``n`` uniform numbers from 0 to 1 for each row, shape (n_rows, n)."""
    draws = [np.random.default_rng((seed, epoch, int(row))).random(n) for row in rows]
    return np.array(draws).reshape(len(draws), n)


def crop_boxes(draws: NDArray[np.float64], height: int, width: int, *, min_area: float) -> NDArray[np.int64]:
    """Return top, left, height and width of a crop for each row of random numbers.

    Its aspect ratio relative to the image is log-uniform among those at which a crop of the drawn area fits.
    """
    area = min_area + (1 - min_area) * draws[:, 0]
    low, high = np.maximum(ASPECT_RATIOS[0], area), np.minimum(ASPECT_RATIOS[1], 1 / area)
    ratio = low * (high / low) ** draws[:, 1]
    crop_height = np.clip(np.rint(height * np.sqrt(area / ratio)), 1, height)
    crop_width = np.clip(np.rint(width * np.sqrt(area * ratio)), 1, width)
    top = np.floor(draws[:, 2] * (height - crop_height + 1))
    left = np.floor(draws[:, 3] * (width - crop_width + 1))
    return np.stack([top, left, crop_height, crop_width], axis=1).astype(np.int64)


def _resample_one_by_one(
    pixels: torch.Tensor, crops: NDArray[np.int64], mirrored: NDArray[np.bool_], *, size: int
) -> torch.Tensor:
    functional = transforms_functional()
    layout = torch.channels_last if pixels.is_contiguous(memory_format=torch.channels_last) else torch.contiguous_format
    out = torch.empty((len(pixels), 3, size, size), dtype=pixels.dtype, device=pixels.device, memory_format=layout)
    for i, (top, left, height, width) in enumerate(crops.tolist()):
        crop = pixels[i : i + 1, :, top : top + height, left : left + width]
        resized = functional.resize_image(crop, [size, size], antialias=True)
        out[i : i + 1] = resized.flip(-1) if mirrored[i] else resized
    return out


def _resample_together(
    pixels: torch.Tensor, crops: NDArray[np.int64], mirrored: NDArray[np.bool_], *, size: int
) -> torch.Tensor:
    """Resample rows, then columns, of all images as one product of matrices each."""
    top, left, height, width = torch.from_numpy(crops).to(pixels.device).T
    vertical = _bilinear(top, height, have=pixels.shape[2], want=size)
    horizontal = _bilinear(left, width, have=pixels.shape[3], want=size)
    flipped = torch.from_numpy(mirrored).to(pixels.device)
    horizontal = torch.where(flipped[:, None, None], horizontal.flip(1), horizontal)
    out = vertical[:, None] @ pixels.float().contiguous() @ horizontal.mT[:, None]
    return out.round_().clamp_(0, 255).to(pixels.dtype)


def _bilinear(start: torch.Tensor, length: torch.Tensor, *, have: int, want: int) -> torch.Tensor:
    """Return matrices (n, want, have) that resample ``length`` pixels from ``start`` on to ``want`` pixels."""
    scale = (length / want)[:, None, None]
    centre = scale * (torch.arange(want, device=start.device) + 0.5)[:, None]
    inside = torch.arange(have, device=start.device) - start[:, None, None]
    # Where pixels are merged the triangle grows with them, so that none is skipped (antialiasing).
    weight = (1 - (inside + 0.5 - centre).abs() / scale.clamp(min=1)).clamp_(min=0)
    weight = weight * ((inside >= 0) & (inside < length[:, None, None]))
    return weight / weight.sum(dim=2, keepdim=True)
