"""MixUp and CutMix: training on mixtures of two images and of their labels."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

SWITCHED = 0.5
"""How often CutMix is chosen where both are on."""

MIXING_STREAM = 1
"""Sets these random numbers apart from those of other purposes with the same seed, epoch and number."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Mixture:
    """How a batch is mixed: each image keeps 1 - ``share`` of itself and takes the rest from its ``partner``.

    ``box`` is what is pasted (top, left, bottom, right), or None where whole images are blended.
    """

    partner: NDArray[np.int64]
    share: float
    box: tuple[int, int, int, int] | None


def draw_mixture(
    n_images: int, size: tuple[int, int], *, mixup: float, cutmix: float, seed: int, epoch: int, step: int
) -> Mixture | None:
    """Return how to mix a batch of images of ``size`` (height, width), or None where mixing is off.

    The share of the partner comes from Beta(mixup, mixup) or Beta(cutmix, cutmix); 0 is off. The same seed, epoch
    and step (of the epoch) give the same mixture.
    """
    if n_images < 2 or mixup == cutmix == 0:
        return None
    rng = np.random.default_rng((seed, epoch, step, MIXING_STREAM))
    # Shifted by one place or more, no image is its own partner.
    partner = (np.arange(n_images) + rng.integers(1, n_images)) % n_images
    cuts = cutmix > 0 and (mixup == 0 or rng.random() < SWITCHED)
    strength = cutmix if cuts else mixup
    share = float(rng.beta(strength, strength))
    if not cuts:
        # Which of a pair is the partner does not matter; this way an image keeps the larger share of itself.
        return Mixture(partner=partner, share=min(share, 1 - share), box=None)
    height, width = size
    box_height, box_width = round(height * share**0.5), round(width * share**0.5)
    top, left = rng.integers(height - box_height, endpoint=True), rng.integers(width - box_width, endpoint=True)
    return Mixture(
        partner=partner,
        share=box_height * box_width / (height * width),
        box=(int(top), int(left), int(top) + box_height, int(left) + box_width),
    )


def mix_images(images: Tensor, partners: Tensor, mixture: Mixture) -> Tensor:
    """Return images (n, 3, h, w) mixed with the partner of each (n, 3, h, w)."""
    if mixture.box is None:
        return images.lerp(partners, mixture.share)
    top, left, bottom, right = mixture.box
    mixed = images.clone()
    mixed[:, :, top:bottom, left:right] = partners[:, :, top:bottom, left:right]
    return mixed


def mix_targets(targets: Tensor, mixture: Mixture) -> Tensor:
    """Return targets (n, n_classes) mixed as the images are."""
    partner = torch.from_numpy(mixture.partner).to(targets.device)
    return targets.lerp(targets[partner], mixture.share)
