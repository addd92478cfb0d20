"""One optimizer step: forward and backward in parts that fit into memory, average over the ranks, clip, move."""

import math
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from bottleneck.extraction import Precision, in_precision, is_out_of_memory
from bottleneck.finetune.average import WeightAverage, Weights
from bottleneck.finetune.batches import Batch, LabelledRows, Lesson, prepare_lesson
from bottleneck.finetune.job import Job
from bottleneck.finetune.probe_network import ProbeNetwork
from bottleneck.finetune.ranks import GradientAverage, average_statistics, has_synchronised_batch_norm
from bottleneck.finetune.schedules import Pace


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Training:
    """One training of ``network``, which began with the weights ``origin``, if these are known.

    Without an ``average`` the last weights are the result.
    """

    job: Job
    stage: str
    network: ProbeNetwork
    optimizer: torch.optim.Optimizer
    average: WeightAverage | None
    precision: Precision
    pace: Pace
    learned: LabelledRows
    origin: Weights | None = None
    gradients: GradientAverage = field(default_factory=GradientAverage)


def train_step(training: Training, batch: Batch, *, epoch: int, factor: float) -> tuple[float, int]:
    """Move every learning parameter once; return the loss and how many images were classified correctly.

    All ranks together do what one would do alone: each computes its share of the batch.

    Raises
    ------
    FloatingPointError
        The loss is no longer a number.
    RankError
        Another rank has failed.
    """
    network, optimizer, job, recipe = training.network, training.optimizer, training.job, training.job.recipe
    lesson = prepare_lesson(job, batch, n_classes=training.learned.n_classes, epoch=epoch)
    loss, correct = job.ranks.sum(np.array(compute_gradients(training, lesson))).tolist()
    if not math.isfinite(loss):
        raise FloatingPointError(f"the loss became {loss} at step {training.pace.step}")
    if job.ranks.count > 1:
        training.gradients.take(network)
        average_statistics(job.ranks, network)
    for group in optimizer.param_groups:
        group["lr"] = group["base_lr"] * factor
    if recipe.adaptive_rates:
        adapt_rates(optimizer)
    nn.utils.clip_grad_norm_(network.parameters(), recipe.clip_norm)
    optimizer.step()
    if training.average is not None:
        training.average.update()
    return loss, round(correct)


def compute_gradients(training: Training, lesson: Lesson) -> tuple[float, int]:
    """Leave the gradients of the mean loss in the parameters, computed in smaller parts where memory is short.

    Of several ranks each leaves those of its share, times the number of ranks: their mean is the gradient.

    Raises
    ------
    torch.OutOfMemoryError
        Not even a single image fits.
    """
    micro_batch, n_images = training.job.micro_batch, len(lesson.images)
    may_split = not has_synchronised_batch_norm(training.network)
    if not may_split:
        training.job.ranks.meet()
    while True:
        training.optimizer.zero_grad()
        try:
            return add_up_gradients(training, lesson)
        except RuntimeError as exc:
            if not is_out_of_memory(exc):
                raise
            if not (may_split and micro_batch.halve(n_images)):
                raise torch.OutOfMemoryError(str(exc)) from exc
        if training.job.device.type == "cuda":
            torch.cuda.empty_cache()


def add_up_gradients(training: Training, lesson: Lesson) -> tuple[float, int]:
    """Run forward and backward, part by part."""
    job = training.job
    total = torch.zeros(2, device=lesson.images.device)
    for part in job.micro_batch.parts(len(lesson.images)):
        with in_precision(training.precision, job.device):
            logits: Tensor = training.network(lesson.images[part]).float()
        loss = functional.cross_entropy(logits, lesson.targets[part], reduction="sum") / lesson.n_images
        (loss * job.ranks.count).backward()  # type: ignore[no-untyped-call]  # torch gives it no types
        n_correct = (logits.argmax(dim=1) == lesson.codes[part]).sum()
        total += torch.stack([loss.detach(), n_correct])
    value, n_correct_in_all = total.tolist()
    return value, round(n_correct_in_all)


@torch.no_grad()
def loss_of(training: Training, lesson: Lesson) -> float:
    """Return what a lesson adds to the mean loss of its batch, infinite where that is no number; nothing moves."""
    job, total = training.job, 0.0
    for part in job.micro_batch.parts(len(lesson.images)):
        with in_precision(training.precision, job.device):
            logits: Tensor = training.network(lesson.images[part]).float()
        total += float(functional.cross_entropy(logits, lesson.targets[part], reduction="sum")) / lesson.n_images
    return total if math.isfinite(total) else math.inf


def adapt_rates(optimizer: torch.optim.Optimizer) -> None:
    """Raise the rate of each layer whose gradient is small: t (1 + log(1 + 1 / norm)) (Singh et al. 2015)."""
    of_layer: dict[str, list[Tensor]] = {}
    for group in optimizer.param_groups:
        grads = [parameter.grad for parameter in group["params"] if parameter.grad is not None]
        of_layer.setdefault(group["layer"], []).extend(grads)
    for group in optimizer.param_groups:
        norm = float(nn.utils.get_total_norm(of_layer[group["layer"]]))
        if norm > 0:
            group["lr"] *= 1 + math.log1p(1 / norm)
