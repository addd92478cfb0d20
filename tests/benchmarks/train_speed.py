"""Images a second that fine-tuning learns from: our loop against the plain one, and whether both learn the same.

    python -m tests.benchmarks.train_speed [--networks NAME ...] [--steps 3] [--repeats 3] [--parts] [--json FILE]

- ours: ``run_training`` as ``fit`` uses it: images decoded once and kept, precision "auto", channels_last, frozen
  BatchNorm folded.
- plain: Pillow and ``torchvision.transforms.v2`` on each image of a DataLoader, decoded again each epoch, and an
  eager float32 step in torch's usual memory order.

Both learn at batch 32 with the same crops (half of the area and more) and flips in number and kind, from the same
probe, frozen statistics of BatchNorm, rates, optimizer and clipping. Runs alternate in one process, and medians of the
processor's time count: other programs on the same cores change it less than the time on the wall. "ratio_with_decoding"
adds the one decoding of the images, spread over the epochs that the recipe takes. Then both learn from the same batches
in the same order, with crops of their own: the loss curves of two plain runs with different crops say what noise is.
``--parts`` times the parts of our step. Weights are random where the shared folder has none. Prints one JSON object.
"""

import argparse
import copy
import importlib
import json
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.data import DataLoader, Dataset

from bottleneck import FineTuneSettings, LogisticHead, load_backbone
from bottleneck.backbones import Backbone
from bottleneck.finetune.batches import LabelledRows, prepare_lesson, shuffled_batches
from bottleneck.finetune.groups import members_of, recipe_for
from bottleneck.finetune.job import Job, open_job
from bottleneck.finetune.loop import open_groups, run_training, start_training
from bottleneck.finetune.probe_network import ProbeNetwork, as_linear, build_network
from bottleneck.finetune.recipe import auto_steps
from bottleneck.finetune.schedules import Pace, rate_factor
from bottleneck.finetune.step import Training, compute_gradients
from bottleneck.images import as_labelled_source, subset
from bottleneck.progress import silent
from bottleneck.torchvision_door import torchvision
from tests.finetune.resnet20 import ResNet20

SHARED = Path(__file__).resolve().parents[3] / "shared"
NETWORKS = ("mobilenet_v2", "resnet18", "embedded", "resnet20")
BATCH = 32
MIN_AREA = 0.5


@dataclass(frozen=True, kw_only=True, slots=True)
class Given:
    """A backbone, the images to learn from with the codes of their classes, a probe, and our decoded images."""

    backbone: Backbone
    files: list[str]
    codes: NDArray[np.int64]
    head: LogisticHead
    job: Job
    decode_seconds: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--data", type=Path, default=SHARED / "data" / "clothing" / "train")
    parser.add_argument("--images", type=int, default=128)
    parser.add_argument("--steps", type=int, default=3, help="of each run")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--curve", type=int, default=8, help="steps of the loss curves; 0 for none")
    parser.add_argument("--precision", choices=("auto", "float32", "bfloat16"), default="auto", help="of ours")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--parts", action="store_true", help="time the parts of our step")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    capabilities = torch.cpu.get_capabilities()
    outcome: dict[str, Any] = {
        "torch": torch.__version__,
        "threads": given.threads,
        "cpu": {name: bool(capabilities.get(name)) for name in ("avx512_f", "avx512_bf16", "amx_bf16")},
        "networks": {name: measure(name, given) for name in given.networks},
    }
    text = json.dumps(outcome, indent=2)
    print(text)
    if given.json:
        given.json.write_text(text + "\n")


def measure(name: str, given: argparse.Namespace) -> dict[str, Any]:
    """Run both loops in turn on one network."""
    task = open_task(name, given)
    ours, plain = ours_steps(task), plain_steps(task)
    seconds: dict[str, list[float]] = {"ours": [], "plain": []}
    runs: dict[str, Callable[[int], list[float]]] = {"ours": ours, "plain": plain}
    for run in runs.values():
        run(1)
    for repeat in range(given.repeats):
        for loop in sorted(runs, reverse=repeat % 2 == 1):
            began = time.process_time()
            runs[loop](given.steps)
            seconds[loop].append(time.process_time() - began)
    rates = {loop: given.steps * BATCH / statistics.median(found) for loop, found in seconds.items()}
    epochs = auto_steps(len(task.files), BATCH, pretrained=True) * BATCH / len(task.files)
    whole = 1 / (1 / rates["ours"] + task.decode_seconds / len(task.files) / epochs)
    answer: dict[str, Any] = {
        "precision": start(task, steps=1).precision,
        "images_a_second": {loop: round(rate, 1) for loop, rate in rates.items()},
        "ratio": round(rates["ours"] / rates["plain"], 2),
        "ratio_with_decoding": round(whole / rates["plain"], 2),
        "ratios": [round(b / a, 2) for a, b in zip(seconds["ours"], seconds["plain"], strict=True)],
    }
    if given.curve:
        curves = [ours(given.curve), plain(given.curve), plain_steps(task, crops=1)(given.curve)]
        found, expected, other = map(np.array, curves)
        answer["loss"] = {
            "first_and_last": [round(float(loss), 3) for loss in (expected[0], expected[-1])],
            "ours_from_plain": round(float(np.abs(found - expected).mean()), 4),
            "plain_from_plain_with_other_crops": round(float(np.abs(other - expected).mean()), 4),
        }
    if given.parts:
        answer["parts"] = parts_of_step(task)
    return answer


def open_task(name: str, given: argparse.Namespace) -> Given:
    """Load the backbone, decode the images as our loop does, and fit the probe."""
    backbone = open_backbone(name)
    source, labels = as_labelled_source(given.data, None)
    rows = np.random.default_rng(0).permutation(len(source))[: given.images]
    classes, codes = np.unique(labels[rows], return_inverse=True)
    settings = FineTuneSettings(
        precision=given.precision, batch_size=BATCH, min_crop_scale=MIN_AREA, flip=True, augment="crop", ema=0.0
    )
    began = time.process_time()
    job = open_job(
        subset(source, rows),
        backbone=backbone,
        recipe=recipe_for(backbone, settings, n_images=len(rows)),
        weights=np.ones(len(rows), dtype=np.float32),
        device=torch.device("cpu"),
        seed=0,
        workers=0,
        memory_limit=None,
        deadline=None,
        clock=time.monotonic,
        progress=silent,
        history=[],
    )
    decode_seconds = time.process_time() - began
    pixels = job.exact.batches(np.arange(len(rows)), batch_size=BATCH)
    features = np.concatenate([backbone.forward_layers(part)["penultimate"].numpy() for part in pixels])
    return Given(
        backbone=backbone,
        files=[str(source.ids[row]) for row in rows],
        codes=codes,
        head=LogisticHead(cv=3, random_state=0).fit(features, classes[codes]),
        job=job,
        decode_seconds=decode_seconds,
    )


def open_backbone(name: str) -> Backbone:
    """Return the backbone, with the shared weights where there are some."""
    match name:
        case "embedded":
            return load_backbone("embedded")
        case "resnet20":
            weights = SHARED / "weights" / "resnet20_cifar10.safetensors"
            return load_backbone(ResNet20(), weights if weights.exists() else None)
        case "mobilenet_v2":
            weights = SHARED / "weights" / "mobilenet_v2_imagenet_tf_hmirror.safetensors"
            return load_backbone(name, weights if weights.exists() else None)
        case _:
            return load_backbone(name, None)


def start(task: Given, *, steps: int) -> Training:
    """Return our training from the probe."""
    learned = LabelledRows(
        rows=np.arange(len(task.files)), codes=task.codes, weights=task.job.weights, n_classes=len(task.head.classes_)
    )
    network = build_network(task.backbone, task.head, recipe=task.job.recipe, device=task.job.device)
    pace = Pace(steps, deadline=None, clock=task.job.clock)
    job = replace(task.job, history=[])
    return start_training(job, network, learned, stage="ours", pace=pace)


def ours_steps(task: Given) -> Callable[[int], list[float]]:
    """Return a function that takes steps in our loop, and says the loss of each."""

    def run(steps: int) -> list[float]:
        losses: list[float] = []
        notes: list[float] = []
        training = start(task, steps=steps)
        watched = replace(
            training, job=replace(training.job, progress=lambda event: notes.append(mean_loss(event.note)))
        )
        run_training(watched)
        n_epoch = len(task.files) // BATCH
        for number, mean in enumerate(notes):
            place = number % n_epoch  # notes tell the mean since the epoch began
            losses.append(mean * (place + 1) - (notes[number - 1] * place if place else 0.0))
        return losses

    return run


def mean_loss(note: str) -> float:
    """Return the loss that a note of the progress tells."""
    return float(note.partition("loss ")[2].partition(",")[0])


class Decoded(Dataset[tuple[Tensor, int]]):
    """Image files, decoded and augmented when they are asked for."""

    def __init__(self, task: Given) -> None:
        torchvision()  # which cannot be imported beside a torch without CUDA unless ours has come first
        transforms, preprocess = importlib.import_module("torchvision.transforms.v2"), task.backbone.preprocess
        self.files, self.codes = task.files, task.codes
        self.augment = transforms.Compose(
            [
                transforms.RandomResizedCrop(preprocess.crop, scale=(MIN_AREA, 1.0), antialias=True),
                transforms.RandomHorizontalFlip(),
                transforms.ToImage(),
                transforms.ToDtype(torch.float32, scale=True),
                transforms.Normalize(preprocess.mean, preprocess.std),
            ]
        )

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, row: int) -> tuple[Tensor, int]:
        with Image.open(self.files[row]) as image:
            return self.augment(image.convert("RGB")), int(self.codes[row])


class FrozenStatistics(nn.Module):
    """A network and a linear layer in train mode, with the statistics of BatchNorm as they are."""

    def __init__(self, task: Given) -> None:
        super().__init__()
        self.network, self.linear = copy.deepcopy(task.backbone.network), as_linear(task.head.linear_on_normalised())
        self.requires_grad_(True).train()
        for module in self.modules():
            if isinstance(module, _BatchNorm):
                module.eval()

    def forward(self, images: Tensor) -> Tensor:
        return self.linear(self.network(images))


def plain_steps(task: Given, *, crops: int = 0) -> Callable[[int], list[float]]:
    """Return a function that takes steps in the plain loop, and says the loss of each."""
    recipe = task.job.recipe

    def run(steps: int) -> list[float]:
        network = FrozenStatistics(task)
        optimizer = plain_optimizer(network, task)
        rates = [group["lr"] for group in optimizer.param_groups]
        losses: list[float] = []
        with torch.random.fork_rng():
            torch.manual_seed(crops)
            for images, codes in plain_batches(task):
                factor = rate_factor((len(losses) + 0.5) / steps, warmup_fraction=recipe.warmup_fraction)
                for group, rate in zip(optimizer.param_groups, rates, strict=True):
                    group["lr"] = rate * factor
                optimizer.zero_grad()
                loss = functional.cross_entropy(network(images), codes)
                loss.backward()
                nn.utils.clip_grad_norm_(network.parameters(), recipe.clip_norm)
                optimizer.step()
                losses.append(loss.item())
                if len(losses) == steps:
                    return losses
        raise AssertionError("epochs do not end")

    return run


def plain_batches(task: Given) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield batches, epoch after epoch, in the order in which ours come."""
    n_rows = len(task.files)
    epoch = 0
    while True:
        epoch += 1
        used = n_rows // BATCH * BATCH
        order = np.random.default_rng((task.job.seed, epoch)).permutation(n_rows)[:used].tolist()
        yield from DataLoader(Decoded(task), batch_size=BATCH, sampler=order)


def plain_optimizer(network: FrozenStatistics, task: Given) -> torch.optim.Optimizer:
    """Return SGD or AdamW with the rates of our recipe."""
    recipe, names = task.job.recipe, members_of(as_probe_network(network), task.backbone)
    groups = [
        {"params": list(members.values()), "lr": rate}
        for members, rate in zip(names, recipe.learning_rates, strict=True)
    ]
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(groups, weight_decay=recipe.weight_decay)
    return torch.optim.SGD(groups, momentum=0.9, nesterov=True, weight_decay=recipe.weight_decay)


def as_probe_network(network: FrozenStatistics) -> ProbeNetwork:
    """Return the same layers under the names that groups of layers are found by."""
    return ProbeNetwork(network.network, network.linear, normalize_rows=False, freeze_batch_norm=True)


def parts_of_step(task: Given) -> dict[str, float]:
    """Return milliseconds an image of the parts of our step: images, forward and backward, and the rest."""
    training = start(task, steps=3)
    open_groups(training, epoch=1)
    spent = dict.fromkeys(("augment", "forward_backward", "clip", "optimizer"), 0.0)
    batches = list(shuffled_batches(training.job, training.learned, epoch=1))[:3]
    for number, batch in enumerate(batches):
        began = time.process_time()
        lesson = prepare_lesson(training.job, batch, n_classes=training.learned.n_classes, epoch=1)
        lessons = time.process_time()
        compute_gradients(training, lesson)
        gradients = time.process_time()
        nn.utils.clip_grad_norm_(training.network.parameters(), training.job.recipe.clip_norm)
        clipped = time.process_time()
        training.optimizer.step()
        ended = time.process_time()
        if number > 0:
            for part, seconds in zip(
                spent, (lessons - began, gradients - lessons, clipped - gradients, ended - clipped), strict=True
            ):
                spent[part] += seconds
    return {part: round(1000 * seconds / BATCH / (len(batches) - 1), 2) for part, seconds in spent.items()}


if __name__ == "__main__":
    main()
