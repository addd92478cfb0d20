"""A network that is blind to colour, and images of which only the colour says the class."""

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from bottleneck.backbones import Backbone, Preprocess, load_backbone
from bottleneck.finetune import FineTuneSettings
from bottleneck.finetune.batches import LabelledRows
from bottleneck.finetune.groups import recipe_for
from bottleneck.finetune.job import Job
from bottleneck.finetune.loop import start_training
from bottleneck.finetune.pixels import DecodedPixels
from bottleneck.finetune.probe import Probe
from bottleneck.finetune.probe_network import build_network
from bottleneck.finetune.ranks import ALONE
from bottleneck.finetune.schedules import Pace
from bottleneck.finetune.step import Training
from bottleneck.heads import LogisticHead
from bottleneck.images import ImageSource, as_image_source
from bottleneck.progress import silent

SIDE = 12
PREPROCESS = Preprocess(resize=SIDE, crop=(SIDE, SIDE), interpolation="bilinear", mean=(0.5,) * 3, std=(0.25,) * 3)


class ColourBlind(nn.Module):
    """Two stages with BatchNorm; the first convolution adds up the colours."""

    def __init__(self, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2))
        self.stage = nn.Sequential(nn.Conv2d(8, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU())
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(16, 5)
        first = self.stem[0].weight
        first.data.copy_(first.data.mean(dim=1, keepdim=True).expand_as(first))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.dropout(self.stage(self.stem(images)).mean(dim=(2, 3))))


class ThreeStages(nn.Sequential):
    """Three stages, each with half the side of the one before, hence three layer groups."""

    def __init__(self) -> None:
        stages = [
            nn.Sequential(
                nn.Conv2d(n_in, n_out, 3, padding=1), nn.BatchNorm2d(n_out), nn.ReLU(), nn.Conv2d(n_out, n_out, 2, 2)
            )
            for n_in, n_out in ((3, 6), (6, 8), (8, 10))
        ]
        super().__init__(*stages, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(10, 3))


def three_stage_backbone() -> Backbone:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return load_backbone(ThreeStages(), preprocess=PREPROCESS)


def colour_blind_backbone(**options: float) -> Backbone:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = ColourBlind(**options)
    return load_backbone(network, preprocess=PREPROCESS)


@dataclass(frozen=True, kw_only=True, slots=True)
class Task:
    """Images with labels, the frozen backbone, its features, and the probe on them."""

    source: ImageSource
    pixels: NDArray[np.uint8]
    labels: NDArray[np.str_]
    backbone: Backbone
    features: NDArray[np.float32]
    head: LogisticHead


def features_of(backbone: Backbone, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return penultimate features of images (n, h, w, 3) that need no preprocessing."""
    return backbone.forward_layers(torch.from_numpy(pixels.transpose(0, 3, 1, 2).copy()))["penultimate"].numpy()


def coloured_noise(n_images: int, *, seed: int, n_classes: int = 2) -> tuple[NDArray[np.uint8], NDArray[np.str_]]:
    """Return grey noise with a little of one colour more, and the name of that colour."""
    rng = np.random.default_rng(seed)
    codes = np.arange(n_images) % n_classes
    pixels = np.repeat(rng.integers(0, 120, (n_images, SIDE, SIDE, 1), dtype=np.uint8), 3, axis=3)
    pixels[np.arange(n_images), :, :, codes] += 60
    return pixels, np.array(["red", "green", "blue"])[codes]


def make_task(pixels: NDArray[np.uint8], labels: NDArray[np.str_], backbone: Backbone, **head: object) -> Task:
    features = features_of(backbone, pixels)
    return Task(
        source=as_image_source(pixels),
        pixels=pixels,
        labels=labels,
        backbone=backbone,
        features=features,
        head=LogisticHead(**head).fit(features, labels),
    )


def make_job(task: Task, *, seed: int = 0, **options: object) -> Job:
    """Return a job on the images of a task; ``options`` are fields of Job or settings."""
    pixels = DecodedPixels(images=task.pixels)
    given = {"roomy": pixels, "exact": pixels, "deadline": None, "clock": time.monotonic, "progress": silent}
    given |= {"ranks": ALONE}
    given |= {name: options.pop(name) for name in list(options) if name in given}
    settings = FineTuneSettings(
        **{"steps": 10, "batch_size": 16, "lr": 0.1, "lr_decay": 1.0, "precision": "float32", **options}
    )
    return Job(
        backbone=task.backbone,
        recipe=recipe_for(task.backbone, settings, n_images=len(task.labels)),
        weights=np.ones(len(task.labels), dtype=np.float32),
        device=torch.device("cpu"),
        seed=seed,
        **given,
    )


def make_training(task: Task, *, weights=None, codes=None, **options: object) -> Training:
    """Return a training from the task's probe; ``options`` are fields of Job or settings."""
    job = make_job(task, **options)
    learned = LabelledRows(
        rows=np.arange(len(task.labels)),
        codes=codes_in(task) if codes is None else codes,
        weights=job.weights if weights is None else weights,
        n_classes=len(task.head.classes_),
    )
    network = build_network(task.backbone, task.head, recipe=job.recipe, device=job.device)
    pace = Pace(job.recipe.steps, deadline=None, clock=lambda: 0.0)
    return start_training(job, network, learned, stage="test", pace=pace)


def flat(weights: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Return all weights one after the other."""
    return torch.cat([tensor.detach().flatten().float() for tensor in weights.values()])


def codes_in(task: Task) -> NDArray[np.int64]:
    return np.searchsorted(task.head.classes_, task.labels)


@dataclass(frozen=True, kw_only=True, slots=True)
class Blocks:
    """An array that shows no more than seven rows at once."""

    array: NDArray[np.float32]

    @property
    def n_samples(self) -> int:
        return len(self.array)

    @property
    def n_features(self) -> int:
        return self.array.shape[1]

    def __iter__(self) -> Iterator[NDArray[np.float32]]:
        return (self.array[start : start + 7] for start in range(0, len(self.array), 7))

    def take(self, rows: NDArray[np.int64]) -> "Blocks":
        return Blocks(array=self.array[rows])


def probe_of(task: Task) -> Probe:
    weights = np.ones(len(task.labels))
    return Probe(head=task.head, features=task.features, labels=task.labels, sample_weight=weights)


@dataclass(frozen=True, kw_only=True, slots=True)
class WatchedPixels:
    """Images of a task that note which rows were asked for, training by training."""

    task: Task
    purpose: str
    asked: list[tuple[str, set[int]]]

    def batches(self, rows: NDArray[np.int64], *, batch_size: int) -> Iterator[torch.Tensor]:
        if not self.asked or self.asked[-1][0] != self.purpose:
            self.asked.append((self.purpose, set()))
        self.asked[-1][1].update(rows.tolist())
        return DecodedPixels(images=self.task.pixels).batches(rows, batch_size=batch_size)
