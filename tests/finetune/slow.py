"""A clock that only work moves, and a network and a head that are slow on it: what takes hours is over at once."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from bottleneck.backbones import load_backbone
from bottleneck.heads import LogisticHead
from tests.finetune.tasks import PREPROCESS, ColourBlind, Task, coloured_noise, make_task


class WorkClock:
    """Seconds that pass when something is done; how many is uncertain, on a machine that others use as well.

    ``noise`` is the standard deviation of the logarithm of each duration, ``stalls`` the share of durations that are
    five times as long, and from ``slow_from`` on everything takes ``slowdown`` times as long.
    """

    def __init__(
        self,
        *,
        noise: float = 0.0,
        stalls: float = 0.0,
        slow_from: float = math.inf,
        slowdown: float = 1.0,
        seed: int = 0,
    ) -> None:
        self.now = 0.0
        self.noise, self.stalls = noise, stalls
        self.slow_from, self.slowdown = slow_from, slowdown
        self._rng = np.random.default_rng(seed)

    def __call__(self) -> float:
        return self.now

    def __deepcopy__(self, memo: object) -> "WorkClock":
        return self

    def take(self, seconds: float) -> None:
        """Let about so many seconds pass."""
        stalled = 5.0 if self._rng.random() < self.stalls else 1.0
        slowed = self.slowdown if self.now >= self.slow_from else 1.0
        self.now += seconds * stalled * slowed * math.exp(self.noise * self._rng.standard_normal())


class SlowNetwork(ColourBlind):
    """A network that takes its time, more for learning from an image than for predicting it."""

    def __init__(self, clock: WorkClock, *, learning: float, predicting: float) -> None:
        super().__init__()
        self.clock, self.learning, self.predicting = clock, learning, predicting

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.clock.take(len(images) * (self.learning if self.training else self.predicting))
        return super().forward(images)


@dataclass(frozen=True, kw_only=True, slots=True)
class SlowTask:
    """A task, and the clock that its network and head move."""

    task: Task
    clock: WorkClock


def slow_task(clock: WorkClock, *, learning: float, predicting: float | None = None, head: float = 0.0) -> SlowTask:
    """Return a task with the seconds that an image takes, and fitting a head; predicting is a third of learning."""

    class SlowHead(LogisticHead):
        def fit(self, *args: Any, **kwargs: Any) -> LogisticHead:
            clock.take(head)
            return super().fit(*args, **kwargs)

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = SlowNetwork(clock, learning=learning, predicting=learning / 3 if predicting is None else predicting)
    pixels, labels = coloured_noise(60, seed=0)
    backbone = load_backbone(network, preprocess=PREPROCESS)
    easy = make_task(pixels, labels, backbone, Cs=[1.0])
    fitted = SlowHead(Cs=[1.0]).fit(easy.features, labels)
    clock.now = 0.0
    return SlowTask(
        task=Task(
            source=easy.source, pixels=pixels, labels=labels, backbone=backbone, features=easy.features, head=fitted
        ),
        clock=clock,
    )
