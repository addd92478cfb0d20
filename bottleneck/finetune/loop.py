"""The training loop: a ladder of fit_loop, run_epoch and train_step."""

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from bottleneck.finetune.job import EpochRecord, Job
from bottleneck.finetune.probe_network import ProbeNetwork
from bottleneck.finetune.schedules import Pace, rate_factor
from bottleneck.images import augment
from bottleneck.progress import Progress


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Training:
    """One training: ``network`` learns the class ``codes`` of ``rows``, with ``weights`` whose mean is 1."""

    job: Job
    stage: str
    network: ProbeNetwork
    optimizer: torch.optim.Optimizer
    pace: Pace
    rows: NDArray[np.int64]
    codes: NDArray[np.int64]
    weights: NDArray[np.float32]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Batch:
    """Images (n, 3, h, w) in uint8 with their rows, class codes and weights (n,)."""

    images: Tensor
    rows: NDArray[np.int64]
    codes: Tensor
    weights: Tensor


def fit_loop(training: Training) -> None:
    """Run epochs until the schedule is over.

    Raises
    ------
    FloatingPointError
        The loss is no longer a number.
    """
    training.network.train()
    positions = training.pace.positions()
    for epoch in itertools.count(1):
        record = run_epoch(training, positions, epoch=epoch)
        if record is None:
            return
        training.job.history.append(record)


def run_epoch(training: Training, positions: Iterator[float], *, epoch: int) -> EpochRecord | None:
    """Take one step a batch; None if the schedule was already over."""
    losses, n_correct, n_seen, factor = [], 0, 0, 0.0
    for batch, position in zip(shuffled_batches(training, epoch=epoch), positions, strict=False):
        factor = rate_factor(position, warmup_fraction=training.job.recipe.warmup_fraction)
        loss, correct = train_step(training, batch, epoch=epoch, factor=factor)
        losses.append(loss)
        n_correct += correct
        n_seen += len(batch.rows)
        report_progress(training, loss)
    if not losses:
        return None
    return EpochRecord(
        stage=training.stage,
        epoch=epoch,
        step=training.pace.step,
        loss=float(np.mean(losses)),
        accuracy=n_correct / n_seen,
        learning_rates=tuple(rate * factor for rate in training.job.recipe.learning_rates),
    )


def train_step(training: Training, batch: Batch, *, epoch: int, factor: float) -> tuple[float, int]:
    """Move every learning parameter once; return the loss and how many images were classified correctly."""
    network, optimizer, recipe = training.network, training.optimizer, training.job.recipe
    for group in optimizer.param_groups:
        group["lr"] = group["base_lr"] * factor
    images, codes = augmented(training.job, batch, epoch=epoch), batch.codes.to(training.job.device)
    optimizer.zero_grad()
    logits = network(images)
    losses = functional.cross_entropy(logits, codes, reduction="none", label_smoothing=recipe.label_smoothing)
    loss = (losses * batch.weights.to(losses.device)).mean()
    loss.backward()  # type: ignore[no-untyped-call]  # torch gives it no types
    nn.utils.clip_grad_norm_(network.parameters(), recipe.clip_norm)
    optimizer.step()
    value, n_correct = torch.stack([loss.detach(), (logits.argmax(dim=1) == codes).sum()]).tolist()
    if not math.isfinite(value):
        raise FloatingPointError(f"the loss became {value} at step {training.pace.step}")
    return value, round(n_correct)


def shuffled_batches(training: Training, *, epoch: int) -> Iterator[Batch]:
    """Yield one epoch of full batches, or a single smaller one when there is no full one."""
    job, n_rows, size = training.job, len(training.rows), training.job.recipe.batch_size
    used = n_rows // size * size or n_rows
    order = np.random.default_rng((job.seed, epoch)).permutation(n_rows)[:used]
    loaded = job.roomy.batches(training.rows[order], batch_size=size)
    for start, images in zip(range(0, used, size), loaded, strict=True):
        picked = order[start : start + size]
        yield Batch(
            images=images,
            rows=training.rows[picked],
            codes=torch.from_numpy(training.codes[picked]),
            weights=torch.from_numpy(training.weights[picked]),
        )


def augmented(job: Job, batch: Batch, *, epoch: int) -> Tensor:
    """Return the batch cropped, mirrored and normalised, float32 (n, 3, h, w) on the device."""
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
    inputs = job.as_input(images)
    return inputs if inputs.shape[2:] == size else functional.interpolate(inputs, size, mode="bilinear", antialias=True)


def report_progress(training: Training, loss: float) -> None:
    """Say how far the training is."""
    pace = training.pace
    training.job.progress(
        Progress(stage=training.stage, done=pace.step, total=pace.expected_steps, unit="steps", note=f"loss {loss:.3f}")
    )
