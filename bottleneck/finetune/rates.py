"""How high learning rates may be for a network: found out before training, by single steps on a few batches.

The same rates are too low for one network and destroy another: those for far images trained a ResNet-20 and the
embedded backbone best of all that were tried, and MobileNetV2 not at all. One full step along the gradient of a batch
tells them apart: it raised the loss of that batch by 1 to 4 with MobileNetV2; with the other two it lowered it, or
raised it a little, but for one task. So rates are lowered until a step does no great harm.
"""

import math
from dataclasses import dataclass, replace
from itertools import islice

import torch
from torch import Tensor, nn

from bottleneck.backbones import Backbone
from bottleneck.finetune.batches import LabelledRows, Lesson, prepare_lesson, shuffled_batches
from bottleneck.finetune.divergence import RISE
from bottleneck.finetune.groups import build_optimizer, let_learn, members_of
from bottleneck.finetune.job import Job
from bottleneck.finetune.memory import MicroBatch
from bottleneck.finetune.probe_network import ProbeNetwork, build_network
from bottleneck.finetune.ranks import ALONE
from bottleneck.finetune.recipe import MOST_GENTLER, Recipe, gentler
from bottleneck.finetune.schedules import Pace
from bottleneck.finetune.step import Training, compute_gradients, loss_of
from bottleneck.heads import LogisticHead

N_BATCHES = 4
"""Batches that are looked at: they and the steps on them take about as long as eight steps of training."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Origin:
    """Where steps begin: the parameters of each layer group, which hold their gradients, and their values there."""

    groups: tuple[tuple[nn.Parameter, ...], ...]
    values: tuple[tuple[Tensor, ...], ...]

    @classmethod
    def of(cls, network: ProbeNetwork, backbone: Backbone) -> "Origin":
        """Return the point where a network is."""
        groups = tuple(tuple(group.values()) for group in members_of(network, backbone))
        values = tuple(tuple(parameter.detach().clone() for parameter in group) for group in groups)
        return cls(groups=groups, values=values)

    @torch.no_grad()
    def step(self, recipe: Recipe) -> None:
        """Go from here one step at the highest rates of a recipe, clipped, without momentum."""
        self.back()
        moved = [
            (parameter, parameter.grad, rate)
            for group, rate in zip(self.groups, recipe.learning_rates, strict=True)
            for parameter in group
            if rate > 0 and parameter.grad is not None
        ]
        norm = float(nn.utils.get_total_norm([gradient for _, gradient, _ in moved]))
        shortened = min(1.0, recipe.clip_norm / norm) if norm > 0 else 1.0
        for parameter, gradient, rate in moved:
            parameter.sub_(gradient, alpha=rate * shortened)

    @torch.no_grad()
    def back(self) -> None:
        """Go back here."""
        for group, values in zip(self.groups, self.values, strict=True):
            for parameter, value in zip(group, values, strict=True):
                parameter.copy_(value)


def times_to_lower(job: Job, head: LogisticHead, learned: LabelledRows) -> int:
    """Return how often rates must be lowered until a full step from the probe no longer goes too far.

    All ranks look at the same whole batches, and do as the first one says.
    """
    # What a whole batch in float32 needs says nothing of the share of a rank in training.
    alone = replace(job, ranks=ALONE, micro_batch=MicroBatch(job.micro_batch.most))
    network = build_network(job.backbone, head, recipe=job.recipe, device=job.device)
    let_learn(network, backbone=job.backbone, rates=job.recipe.learning_rates)
    network.eval()  # dropout would hide what a step changes
    training = Training(
        job=alone,
        stage="looking at steps",
        network=network,
        optimizer=build_optimizer(network, backbone=job.backbone, recipe=job.recipe),
        average=None,
        precision="float32",  # as would rounding
        pace=Pace(1, deadline=None, clock=job.clock),
        learned=learned,
    )
    found = []
    for batch in islice(shuffled_batches(alone, learned, epoch=1), N_BATCHES):
        lesson = prepare_lesson(alone, batch, n_classes=learned.n_classes, epoch=1)
        found.append(times_for(training, lesson))
        if job.deadline is not None and job.clock() >= job.deadline:
            break
    return job.ranks.first(sorted(found)[len(found) // 2])


def times_for(training: Training, lesson: Lesson) -> int:
    """Return how often rates must be lowered until a step on this batch leaves its loss about as low as it is.

    By how much it may rise: as for the loss of a training before that counts as diverged.
    """
    job, network = training.job, training.network
    loss, _ = compute_gradients(training, lesson)
    allowed, origin = loss + RISE * math.log(training.learned.n_classes), Origin.of(network, job.backbone)
    for times in range(MOST_GENTLER):
        origin.step(gentler(job.recipe, times))
        if loss_of(training, lesson) <= allowed:
            break
    else:
        times = MOST_GENTLER
    origin.back()
    return times
