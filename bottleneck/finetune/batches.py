"""What a training step sees: shuffled rows, augmented images, and what to answer."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from bottleneck.finetune.job import Job
from bottleneck.finetune.mixing import draw_mixture, mix_images, mix_targets
from bottleneck.finetune.trivial import change_trivially
from bottleneck.images import augment


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class LabelledRows:
    """What is learned: the class ``codes`` of ``rows``, with ``weights`` whose mean is 1."""

    rows: NDArray[np.int64]
    codes: NDArray[np.int64]
    weights: NDArray[np.float32]
    n_classes: int


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Batch:
    """Images (n, 3, h, w) in uint8 with their rows, class codes and weights (n,)."""

    images: Tensor
    rows: NDArray[np.int64]
    codes: Tensor
    weights: Tensor


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Lesson:
    """A batch as the network gets it: float32 images (n, 3, h, w) on the device, and targets (n, n_classes).

    A row of the targets adds up to the weight of the image; ``codes`` (n,) are the classes that count as correct.
    """

    images: Tensor
    targets: Tensor
    codes: Tensor


def shuffled_batches(job: Job, learned: LabelledRows, *, epoch: int) -> Iterator[Batch]:
    """Yield one epoch of full batches, or a single smaller one when there is no full one."""
    n_rows, size = len(learned.rows), job.recipe.batch_size
    used = n_rows // size * size or n_rows
    order = np.random.default_rng((job.seed, epoch)).permutation(n_rows)[:used]
    loaded = job.roomy.batches(learned.rows[order], batch_size=size)
    for start, images in zip(range(0, used, size), loaded, strict=True):
        picked = order[start : start + size]
        yield Batch(
            images=images,
            rows=learned.rows[picked],
            codes=torch.from_numpy(learned.codes[picked]),
            weights=torch.from_numpy(learned.weights[picked]),
        )


def prepare_lesson(job: Job, batch: Batch, *, n_classes: int, epoch: int, step: int) -> Lesson:
    """Augment, normalise and mix a batch."""
    recipe, images, codes = job.recipe, augmented(job, batch, epoch=epoch), batch.codes.to(job.device)
    targets = weighted_targets(
        codes, batch.weights.to(job.device), n_classes=n_classes, label_smoothing=recipe.label_smoothing
    )
    height, width = images.shape[2:]
    mixture = draw_mixture(
        len(images), (height, width), mixup=recipe.mixup, cutmix=recipe.cutmix, seed=job.seed, epoch=epoch, step=step
    )
    if mixture is not None:
        images, targets = mix_images(images, mixture), mix_targets(targets, mixture)
    return Lesson(images=images, targets=targets, codes=codes)


def augmented(job: Job, batch: Batch, *, epoch: int) -> Tensor:
    """Return the batch cropped, mirrored, changed and normalised, float32 (n, 3, h, w) on the device."""
    size = job.backbone.preprocess.crop
    images = augment(
        batch.images.to(job.device),
        batch.rows,
        size=max(size),
        seed=job.seed,
        epoch=epoch,
        min_area=job.recipe.min_crop_scale,
        flip=job.recipe.flip,
    )
    if job.recipe.trivial_augment:
        images = change_trivially(images, batch.rows, seed=job.seed, epoch=epoch)
    inputs = job.as_input(images)
    return inputs if inputs.shape[2:] == size else functional.interpolate(inputs, size, mode="bilinear", antialias=True)


def weighted_targets(codes: Tensor, weights: Tensor, *, n_classes: int, label_smoothing: float) -> Tensor:
    """Return one row of targets (n, n_classes) for each class code: smoothed, and times its weight."""
    smoothed = functional.one_hot(codes, n_classes) * (1 - label_smoothing) + label_smoothing / n_classes
    return smoothed * weights[:, None]
