"""The learning-rate range test (Smith 2017): the rate grows with every step until the loss explodes."""

import itertools
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bottleneck.backbones import Backbone
from bottleneck.finetune.batches import Batch, LabelledRows, shuffled_batches
from bottleneck.finetune.groups import recipe_for
from bottleneck.finetune.job import open_job
from bottleneck.finetune.loop import open_groups, start_training
from bottleneck.finetune.probe import codes_of
from bottleneck.finetune.probe_network import build_network
from bottleneck.finetune.schedules import Pace
from bottleneck.finetune.settings import FineTuneSettings
from bottleneck.finetune.step import Training, train_step
from bottleneck.heads import LogisticHead
from bottleneck.images import ImageSource
from bottleneck.optional import require
from bottleneck.progress import Progress, ProgressCallback, silent

LOWEST, HIGHEST, STEPS = 1e-6, 10.0, 100
SMOOTHING = 0.9
EXPLODED = 4.0
"""Times the best loss: from there on nothing is to be learned."""
BELOW_MINIMUM = 10.0
"""At the lowest loss training is about to become unstable; a tenth of that rate is safe (Howard and Gugger 2020)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RateTest:
    """What a learning-rate range test found.

    Attributes
    ----------
    rates : tuple of float
        Learning rates of the head, one a step; layer groups follow in the proportions of the settings.
    losses : tuple of float
        Smoothed loss after each.
    suggestion : float
        A rate for `FineTuneSettings.lr`.
    """

    rates: tuple[float, ...]
    losses: tuple[float, ...]
    suggestion: float


def lr_find(
    source: ImageSource,
    labels: NDArray[np.generic],
    *,
    backbone: Backbone,
    head: LogisticHead,
    settings: FineTuneSettings = FineTuneSettings(),  # noqa: B008  frozen, so one for all is safe
    steps: int = STEPS,
    seed: int = 0,
    device: torch.device = torch.device("cpu"),  # noqa: B008  immutable
    workers: int = 0,
    memory_limit: int | None = None,
    progress: ProgressCallback = silent,
) -> RateTest:
    """Fine-tune a copy for a few steps while the rate grows from 1e-6 to 10, and suggest one.

    Parameters
    ----------
    source, labels, backbone, head, settings, seed, device, workers, memory_limit, progress
        As for `finetune`.
    steps : int
        The most steps to take; it stops when the loss explodes.

    Raises
    ------
    InvalidInputError
        A setting is not allowed.
    """
    recipe = recipe_for(backbone, settings, n_images=len(source))
    job = open_job(
        source,
        backbone=backbone,
        recipe=replace(recipe, freeze_epochs=0, unfreeze_every=0, ema=0.0),
        weights=np.ones(len(source), dtype=np.float32),
        device=device,
        seed=seed,
        workers=workers,
        memory_limit=memory_limit,
        deadline=None,
        clock=time.monotonic,
        progress=progress,
        history=[],
    )
    learned = LabelledRows(
        rows=np.arange(len(source)), codes=codes_of(labels, head), weights=job.weights, n_classes=len(head.classes_)
    )
    network = build_network(backbone, head, recipe=recipe, device=device)
    pace = Pace(steps, deadline=None, clock=job.clock)
    training = start_training(job, network, learned, stage="testing learning rates", pace=pace)
    open_groups(training, epoch=1)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        return walk_up(training)


def walk_up(training: Training) -> RateTest:
    """Take steps with growing rates until the loss explodes or the steps are over."""
    top = training.job.recipe.learning_rates[-1]
    rates: list[float] = []
    losses: list[float] = []
    average = 0.0
    for position, (epoch, batch) in zip(training.pace.positions(), endless_batches(training), strict=False):
        rate = LOWEST * (HIGHEST / LOWEST) ** position
        try:
            loss, _ = train_step(training, batch, epoch=epoch, factor=rate / top)
        except FloatingPointError:
            break
        average = SMOOTHING * average + (1 - SMOOTHING) * loss
        rates.append(rate)
        losses.append(average / (1 - SMOOTHING ** (len(losses) + 1)))
        done, total = training.pace.step, training.pace.expected_steps
        training.job.progress(Progress(stage=training.stage, done=done, total=total, unit="steps"))
        if losses[-1] > EXPLODED * min(losses):
            break
    return RateTest(rates=tuple(rates), losses=tuple(losses), suggestion=suggest(rates, losses))


def suggest(rates: list[float], losses: list[float]) -> float:
    """Return a tenth of the rate at the lowest loss; the lowest rate where not one step went well."""
    if not losses:
        return LOWEST
    return rates[int(np.argmin(losses))] / BELOW_MINIMUM


def endless_batches(training: Training) -> Iterator[tuple[int, Batch]]:
    """Yield epoch and batch, epoch after epoch."""
    for epoch in itertools.count(1):
        for batch in shuffled_batches(training.job, training.learned, epoch=epoch):
            yield epoch, batch


def plot_rates(found: RateTest) -> Any:
    """Draw loss against learning rate with matplotlib, and return the axes.

    Raises
    ------
    MissingDependencyError
        matplotlib is not installed.
    """
    axes = require("matplotlib.pyplot", extra="plot").subplots()[1]
    axes.semilogx(found.rates, found.losses)
    axes.axvline(found.suggestion, linestyle="--")
    axes.set(xlabel="learning rate of the head", ylabel="smoothed loss", title=f"suggested: {found.suggestion:.2g}")
    return axes
