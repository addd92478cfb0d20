"""The training loop: a ladder of fit_loop, run_epoch and train_step."""

from collections.abc import Callable, Iterator

import torch

from bottleneck.extraction import Precision
from bottleneck.finetune.average import WeightAverage, Weights, weights_of
from bottleneck.finetune.batches import LabelledRows, shuffled_batches
from bottleneck.finetune.checkpoints import Checkpoints
from bottleneck.finetune.divergence import check_not_diverged
from bottleneck.finetune.groups import build_optimizer, let_learn
from bottleneck.finetune.interrupts import kept_waiting, raise_again
from bottleneck.finetune.job import EpochRecord, Job
from bottleneck.finetune.precision import choose_precision
from bottleneck.finetune.probe_network import ProbeNetwork
from bottleneck.finetune.resume import Course, bytes_of, go_on_from, take_snapshot
from bottleneck.finetune.schedules import Pace, n_open_groups, rate_factor
from bottleneck.finetune.step import Training, train_step
from bottleneck.progress import Progress

CHECKED_IMAGES = 16
"""Images whose logits must be the same in the faster arithmetic."""


def start_training(
    job: Job, network: ProbeNetwork, learned: LabelledRows, *, stage: str, pace: Pace, origin: Weights | None = None
) -> Training:
    """Return a training that has done no step yet; ``origin`` are the weights that the network has."""
    return Training(
        job=job,
        stage=stage,
        network=network,
        optimizer=build_optimizer(network, backbone=job.backbone, recipe=job.recipe),
        average=WeightAverage(network, decay=job.recipe.ema) if job.recipe.ema else None,
        precision=precision_of(job, network, learned),
        pace=pace,
        learned=learned,
        origin=origin,
    )


def precision_of(job: Job, network: ProbeNetwork, learned: LabelledRows) -> Precision:
    """Return the arithmetic asked for, else the fastest that keeps what the network says of a few images."""
    if job.recipe.precision != "auto":
        return job.recipe.precision
    few = next(job.exact.batches(learned.rows[:CHECKED_IMAGES], batch_size=CHECKED_IMAGES))
    return job.ranks.first(choose_precision(network, job.as_input(few)))


def run_training(training: Training) -> Weights:
    """Train to the end of the schedule and return the weights: averaged, or the last ones.

    With checkpoints, one is kept from time to time; a training that was under way when the last one was written goes
    on from there. A signal to stop is kept waiting until the step under way is over, and then a checkpoint is kept.

    Raises
    ------
    FloatingPointError
        The loss has risen far, or is no longer a number.
    """
    job = training.job
    # Dropout and stochastic depth draw from the global generators, which are the caller's.
    with torch.random.fork_rng(devices=[job.device] if job.device.type == "cuda" else []):
        torch.manual_seed(job.seed)
        course = Course()
        if job.checkpoints is None:
            fit_loop(training, course)
        else:
            if (snapshot := job.checkpoints.take_up(training.stage)) is not None:
                course = go_on_from(snapshot, training)
                report_progress(training, "going on from a checkpoint")
            fit_and_keep(training, course, job.checkpoints)
    return weights_of(training.network) if training.average is None else training.average.weights


def fit_and_keep(training: Training, course: Course, checkpoints: Checkpoints) -> None:
    """Run epochs until the schedule is over or a signal came, keeping checkpoints."""
    n_bytes = bytes_of(training.job)
    with kept_waiting() as waiting:

        def after_step() -> None:
            if waiting() is not None or checkpoints.is_due(n_bytes, seconds_left=training.pace.seconds_left):
                keep_checkpoint(training, course, checkpoints)
            raise_again(waiting())

        try:
            fit_loop(training, course, after_step)
            if waiting() is not None:
                after_step()
        except KeyboardInterrupt:
            # One that was not kept waiting: raised by the progress callback, it comes between two steps as well.
            if waiting() is None and course.step == training.pace.step:
                keep_checkpoint(training, course, checkpoints)
            raise
    raise_again(waiting())  # one that came when all was over


def keep_checkpoint(training: Training, course: Course, checkpoints: Checkpoints) -> None:
    """Write a checkpoint of a training between two steps."""
    job = training.job
    began = job.clock()
    checkpoints.write(take_snapshot(training, course), history=job.told_history())
    training.pace.leave_out(job.clock() - began)


def nothing() -> None:
    """Do nothing after a step."""


def fit_loop(training: Training, course: Course, after_step: Callable[[], None] = nothing) -> None:
    """Run epochs until the schedule is over."""
    positions = training.pace.positions()
    while (record := run_epoch(training, positions, course, after_step)) is not None:
        training.job.history.append(record)
        course.begin_epoch(course.epoch + 1)
        training.job.on_epoch(record)


def run_epoch(
    training: Training, positions: Iterator[float], course: Course, after_step: Callable[[], None]
) -> EpochRecord | None:
    """Take one step a batch; None if the schedule was already over."""
    job, epoch = training.job, course.epoch
    rates = open_groups(training, epoch=epoch, n_done=course.n_steps)
    batches = shuffled_batches(job, training.learned, epoch=epoch, first=course.n_steps)
    for batch, position in zip(batches, positions, strict=False):
        course.factor = rate_factor(position, warmup_fraction=job.recipe.warmup_fraction)
        loss, n_correct = train_step(training, batch, epoch=epoch, factor=course.factor)
        course.note(loss, n_correct, n_seen=len(batch.rows), step=training.pace.step)
        check_not_diverged(training, course)
        after_step()
        rate = rates[-1] * course.factor
        shown = f"loss {course.loss:.3f}, accuracy {course.accuracy:.3f}, lr {rate:.2g}"
        report_progress(training, f"epoch {epoch}, {shown}")
    if course.n_steps == 0:
        return None
    return EpochRecord(
        stage=training.stage,
        epoch=epoch,
        step=training.pace.step,
        loss=course.loss,
        accuracy=course.accuracy,
        learning_rates=tuple(rate * course.factor for rate in rates),
    )


def open_groups(training: Training, *, epoch: int, n_done: int = 0) -> tuple[float, ...]:
    """Let the layer groups learn whose time has come; return the highest rate of each group and the head.

    ``n_done``: steps of this epoch that are done already, where a training goes on from a checkpoint.
    """
    recipe = training.job.recipe
    n_groups = len(recipe.learning_rates) - 1

    def n_open_in(epoch: int) -> int:
        return n_open_groups(
            epoch, n_groups=n_groups, freeze_epochs=recipe.freeze_epochs, unfreeze_every=recipe.unfreeze_every
        )

    n_closed = n_groups - n_open_in(epoch)
    rates = tuple(0.0 if group < n_closed else rate for group, rate in enumerate(recipe.learning_rates))
    let_learn(training.network, backbone=training.job.backbone, rates=rates)
    training.network.train()
    if n_done == 0 and (epoch == 1 or n_open_in(epoch) > n_open_in(epoch - 1)):
        training.pace.forget()
    return rates


def report_progress(training: Training, note: str) -> None:
    """Say how far the training is."""
    pace = training.pace
    training.job.progress(
        Progress(stage=training.stage, done=pace.step, total=pace.expected_steps, unit="steps", note=note)
    )
