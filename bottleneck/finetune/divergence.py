"""Has a training diverged? Its loss says so, unless the batches are harder than those it began with."""

import math
from collections.abc import Iterator
from itertools import islice

import numpy as np
import torch

from bottleneck.finetune.average import weights_of
from bottleneck.finetune.batches import Batch, prepare_lesson, shuffled_batches
from bottleneck.finetune.resume import FEW_IMAGES, Course
from bottleneck.finetune.step import Training, loss_of

KNOWS, FORGOTTEN = 0.8, 0.93
"""A network whose loss began below the first share of what guessing costs, and lies above the second, has forgotten
what it knew: its rates are too high for it. Seen at the rates for far images: MobileNetV2 (clothing, 200 images) came
to 0.95 of the logarithm of the number of classes within sixty steps, and stayed there; where these rates were good,
the mean over an epoch was 0.86 of it at most (embedded backbone, turned digits), and fell again."""
RISE = 0.2
"""Of the logarithm of the number of classes: where one of them is rare, guessing costs little and losses are noisy."""
ASTRAY = 2.5
"""One that knows little, with random weights nothing, may do so many times worse than guessing for a while."""
LOOKED_BACK_ON = 3 * FEW_IMAGES
"""Images that tell what the loss would be now without training: the recent loss hardly remembers earlier ones."""


def check_not_diverged(training: Training, course: Course) -> None:
    """Raise if the network has forgotten what it knew, as it does where rates are too high for it.

    The first images may have been easy by chance, and those after them hard: with strong augmentation a few that are
    surely wrong make most of the loss. So the loss must also have risen above that of the network it began with, on the
    same images.

    Raises
    ------
    FloatingPointError
        It has.
    """
    if course.n_seen_in_all <= FEW_IMAGES or course.recent_loss <= allowed_loss(training, course):
        return
    if training.origin is not None:
        course.first_loss = max(course.first_loss, loss_without_training(training, course))
    if course.recent_loss > allowed_loss(training, course):
        raise FloatingPointError(
            f"the loss rose from {course.first_loss:.2f} to {course.recent_loss:.2f} by step {course.step}"
        )


def allowed_loss(training: Training, course: Course) -> float:
    """Return how large the recent loss may be."""
    guessing, began = training.learned.guessing_loss, course.first_loss
    if began < KNOWS * guessing:
        return max(FORGOTTEN * guessing, began + RISE * math.log(training.learned.n_classes))
    return ASTRAY * max(guessing, began)


def loss_without_training(training: Training, course: Course) -> float:
    """Return the recent loss as it would be with the weights that the training began with."""
    job, network, untrained = training.job, training.network, Course()
    assert training.origin is not None
    began, reached = job.clock(), weights_of(network)
    # Dropout draws from the global generators, and the next step is to draw what it would have drawn.
    with torch.random.fork_rng(devices=[job.device] if job.device.type == "cuda" else []):
        network.load_state_dict(training.origin)
        try:
            for epoch, batch in recent_batches(training, course):
                lesson = prepare_lesson(job, batch, n_classes=training.learned.n_classes, epoch=epoch)
                loss = float(job.ranks.sum(np.array([loss_of(training, lesson)]))[0])
                untrained.note(loss, 0, n_seen=len(batch.rows), step=0)
        finally:  # a checkpoint of what stops this must hold what was reached
            network.load_state_dict(reached)
    training.pace.leave_out(job.clock() - began)
    return untrained.recent_loss


def recent_batches(training: Training, course: Course) -> Iterator[tuple[int, Batch]]:
    """Yield the batches of the last steps once more, each with its epoch."""
    n_rows = len(training.learned.rows)
    size = min(training.job.recipe.batch_size, n_rows)
    n_batches, wanted = n_rows // size, math.ceil(LOOKED_BACK_ON / size)
    for epoch, n_done, n_wanted in (
        (course.epoch - 1, n_batches, wanted - course.n_steps),
        (course.epoch, course.n_steps, wanted),
    ):
        if epoch > 0 and n_wanted > 0:
            first = max(n_done - n_wanted, 0)
            batches = shuffled_batches(training.job, training.learned, epoch=epoch, first=first)
            yield from ((epoch, batch) for batch in islice(batches, n_done - first))
