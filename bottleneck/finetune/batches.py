"""What a training step sees: shuffled rows, augmented images, and what to answer."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from bottleneck.errors import wrong_parameter
from bottleneck.finetune.job import Job
from bottleneck.finetune.mixing import Mixture, draw_mixture, mix_images, mix_targets
from bottleneck.finetune.trivial import change_trivially
from bottleneck.images import augment

STRIDE = 32
"""Pixels of the image to a cell of the last map, in nearly all networks for images of 224 pixels."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class LabelledRows:
    """What is learned: the class ``codes`` of ``rows``, with ``weights`` whose mean is 1."""

    rows: NDArray[np.int64]
    codes: NDArray[np.int64]
    weights: NDArray[np.float32]
    n_classes: int

    @property
    def guessing_loss(self) -> float:
        """The log-loss of who knows how frequent the classes are, and nothing else."""
        shares = np.bincount(self.codes, weights=self.weights) / self.weights.sum()
        shares = shares[shares > 0]
        return float(-(shares * np.log(shares)).sum())


def rows_to_learn(job: Job, rows: NDArray[np.int64], codes: NDArray[np.int64], *, n_classes: int) -> LabelledRows:
    """Return ``rows``, which have the class ``codes``, with the weights that the job gives them."""
    weights = job.weights[rows] / job.weights[rows].mean()
    return LabelledRows(rows=rows, codes=codes, weights=weights, n_classes=n_classes)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Batch:
    """The rows, class codes and weights (n,) of all images of a step, and the images that this rank computes.

    ``images`` (k, 3, h, w) in uint8 are those at ``places`` (k,): the rank's ``share``, then, where other ranks have
    them, the partners that these are mixed with. Alone they are all images in order.
    """

    images: Tensor
    places: NDArray[np.int64]
    share: slice
    rows: NDArray[np.int64]
    codes: Tensor
    weights: Tensor
    mixture: Mixture | None


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Lesson:
    """A rank's share of a batch as the network gets it: float32 images (m, 3, h, w) and targets (m, n_classes).

    A row of the targets adds up to the weight of the image; ``codes`` (m,) are the classes that count as correct.
    ``n_images``: of the whole batch, over which the loss is the mean.
    """

    images: Tensor
    targets: Tensor
    codes: Tensor
    n_images: int


def shuffled_batches(job: Job, learned: LabelledRows, *, epoch: int, first: int = 0) -> Iterator[Batch]:
    """Yield one epoch of full batches, or a single smaller one when there is no full one; without the ``first`` ones.

    Raises
    ------
    InvalidInputError
        There are more ranks than images in a batch.
    """
    n_rows, size = len(learned.rows), min(job.recipe.batch_size, len(learned.rows))
    if size < job.ranks.count:
        allowed = f"at least {job.ranks.count}, one image for each process"
        raise wrong_parameter("FineTuneSettings", "batch_size", f"{allowed}, and there must be as many images", size)
    used = n_rows // size * size
    order = np.random.default_rng((job.seed, epoch)).permutation(n_rows)[:used].reshape(-1, size)[first:]
    if len(order) == 0:
        return
    mixtures = [mixture_of(job, size, epoch=epoch, step=first + number) for number in range(1, len(order) + 1)]
    places = [needed_places(job, size, mixture) for mixture in mixtures]
    rows = learned.rows[np.take_along_axis(order, np.stack(places), axis=1)]
    loaded = job.roomy.batches(rows.ravel(), batch_size=rows.shape[1])
    for picked, mixture, needed, images in zip(order, mixtures, places, loaded, strict=True):
        yield Batch(
            images=images,
            places=needed,
            share=job.ranks.share(size),
            rows=learned.rows[picked],
            codes=torch.from_numpy(learned.codes[picked]),
            weights=torch.from_numpy(learned.weights[picked]),
            mixture=mixture,
        )


def mixture_of(job: Job, n_images: int, *, epoch: int, step: int) -> Mixture | None:
    """Return how the batch of a step of an epoch is mixed."""
    recipe, size = job.recipe, training_size(job)
    return draw_mixture(n_images, size, mixup=recipe.mixup, cutmix=recipe.cutmix, seed=job.seed, epoch=epoch, step=step)


def needed_places(job: Job, n_images: int, mixture: Mixture | None) -> NDArray[np.int64]:
    """Return which images of a batch this rank must have: its share, and what is mixed into it."""
    own = np.arange(n_images)[job.ranks.share(n_images)]
    return own if mixture is None or job.ranks.count == 1 else np.concatenate([own, mixture.partner[own]])


def prepare_lesson(job: Job, batch: Batch, *, n_classes: int, epoch: int) -> Lesson:
    """Augment, normalise and mix this rank's share of a batch."""
    codes = batch.codes.to(job.device)
    targets = weighted_targets(
        codes, batch.weights.to(job.device), n_classes=n_classes, label_smoothing=job.recipe.label_smoothing
    )
    codes = codes[batch.share]
    loaded = augmented(job, batch, epoch=epoch)
    images = loaded[: len(codes)]
    if batch.mixture is not None:
        where = np.empty(len(batch.rows), np.int64)
        where[batch.places] = np.arange(len(batch.places))
        partners = loaded[torch.from_numpy(where[batch.mixture.partner[batch.share]]).to(job.device)]
        images, targets = mix_images(images, partners, batch.mixture), mix_targets(targets, batch.mixture)
    return Lesson(images=images, targets=targets[batch.share], codes=codes, n_images=len(batch.rows))


def augmented(job: Job, batch: Batch, *, epoch: int) -> Tensor:
    """Return the images cropped, mirrored, changed and normalised, float32 (k, 3, h, w) on the device."""
    size, rows = training_size(job), batch.rows[batch.places]
    images = augment(
        batch.images.to(job.device),
        rows,
        size=max(size),
        seed=job.seed,
        epoch=epoch,
        min_area=job.recipe.min_crop_scale,
        flip=job.recipe.flip,
    )
    if job.recipe.trivial_augment:
        images = change_trivially(images, rows, seed=job.seed, epoch=epoch)
    inputs = job.as_input(images)
    return inputs if inputs.shape[2:] == size else functional.interpolate(inputs, size, mode="bilinear", antialias=True)


def training_size(job: Job) -> tuple[int, int]:
    """Return height and width of training images in pixels."""
    height, width = (scaled_side(side, job.recipe.image_scale) for side in job.backbone.preprocess.crop)
    return height, width


def scaled_side(side: int, scale: float) -> int:
    """Return a side that is smaller by ``scale``, in whole steps of the stride that most networks end with."""
    return side if scale == 1 else min(side, max(1, round(scale * side / STRIDE)) * STRIDE)


def weighted_targets(codes: Tensor, weights: Tensor, *, n_classes: int, label_smoothing: float) -> Tensor:
    """Return one row of targets (n, n_classes) for each class code: smoothed, and times its weight."""
    smoothed = functional.one_hot(codes, n_classes) * (1 - label_smoothing) + label_smoothing / n_classes
    return smoothed * weights[:, None]
