"""The training loop: a ladder of fit_loop, run_epoch and train_step."""

import itertools
from collections.abc import Iterator

import numpy as np
import torch

from bottleneck.extraction import Precision
from bottleneck.finetune.average import WeightAverage, Weights, weights_of
from bottleneck.finetune.batches import LabelledRows, shuffled_batches
from bottleneck.finetune.groups import build_optimizer, let_learn
from bottleneck.finetune.job import EpochRecord, Job
from bottleneck.finetune.precision import choose_precision
from bottleneck.finetune.probe_network import ProbeNetwork
from bottleneck.finetune.schedules import Pace, n_open_groups, rate_factor
from bottleneck.finetune.step import Training, train_step
from bottleneck.progress import Progress

CHECKED_IMAGES = 16
"""Images whose logits must be the same in the faster arithmetic."""


def start_training(job: Job, network: ProbeNetwork, learned: LabelledRows, *, stage: str, pace: Pace) -> Training:
    """Return a training that has done no step yet."""
    return Training(
        job=job,
        stage=stage,
        network=network,
        optimizer=build_optimizer(network, backbone=job.backbone, recipe=job.recipe),
        average=WeightAverage(network, decay=job.recipe.ema) if job.recipe.ema else None,
        precision=precision_of(job, network, learned),
        pace=pace,
        learned=learned,
    )


def precision_of(job: Job, network: ProbeNetwork, learned: LabelledRows) -> Precision:
    """Return the arithmetic asked for, else the fastest that keeps what the network says of a few images."""
    if job.recipe.precision != "auto":
        return job.recipe.precision
    few = next(job.exact.batches(learned.rows[:CHECKED_IMAGES], batch_size=CHECKED_IMAGES))
    return choose_precision(network, job.as_input(few))


def run_training(training: Training) -> Weights:
    """Train to the end of the schedule and return the weights: averaged, or the last ones.

    Raises
    ------
    FloatingPointError
        The loss is no longer a number.
    """
    job = training.job
    # Dropout and stochastic depth draw from the global generators, which are the caller's.
    with torch.random.fork_rng(devices=[job.device] if job.device.type == "cuda" else []):
        torch.manual_seed(job.seed)
        fit_loop(training)
    return weights_of(training.network) if training.average is None else training.average.weights


def fit_loop(training: Training) -> None:
    """Run epochs until the schedule is over."""
    positions = training.pace.positions()
    for epoch in itertools.count(1):
        record = run_epoch(training, positions, epoch=epoch)
        if record is None:
            return
        training.job.history.append(record)


def run_epoch(training: Training, positions: Iterator[float], *, epoch: int) -> EpochRecord | None:
    """Take one step a batch; None if the schedule was already over."""
    job, losses, n_correct, n_seen, factor = training.job, [], 0, 0, 0.0
    rates = open_groups(training, epoch=epoch)
    batches = shuffled_batches(job, training.learned, epoch=epoch)
    for batch, position in zip(batches, positions, strict=False):
        factor = rate_factor(position, warmup_fraction=job.recipe.warmup_fraction)
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
        learning_rates=tuple(rate * factor for rate in rates),
    )


def open_groups(training: Training, *, epoch: int) -> tuple[float, ...]:
    """Let the layer groups learn whose time has come; return the highest rate of each group and the head."""
    recipe = training.job.recipe
    n_groups = len(recipe.learning_rates) - 1

    def n_open_in(epoch: int) -> int:
        return n_open_groups(
            epoch, n_groups=n_groups, freeze_epochs=recipe.freeze_epochs, unfreeze_every=recipe.unfreeze_every
        )

    n_closed = n_groups - n_open_in(epoch)
    rates = tuple(0.0 if group < n_closed else rate for group, rate in enumerate(recipe.learning_rates))
    if epoch == 1 or n_open_in(epoch) > n_open_in(epoch - 1):
        let_learn(training.network, backbone=training.job.backbone, rates=rates)
        training.network.train()
        training.pace.forget()
    return rates


def report_progress(training: Training, loss: float) -> None:
    """Say how far the training is."""
    pace = training.pace
    training.job.progress(
        Progress(stage=training.stage, done=pace.step, total=pace.expected_steps, unit="steps", note=f"loss {loss:.3f}")
    )
