"""Compares fine-tuning with fastai's and with the probes: accuracy on test images in no more than fastai's time.

    python -m tests.benchmarks.finetune --records records.jsonl [--tasks NAME ...] [--seeds 0 1 2] [--shared FOLDER]
    python -m tests.benchmarks.finetune --records records.jsonl --summarise

Every cell is a task, a number of training images and a seed. In each, on the same images and the same backbone:
fastai's ``vision_learner(...).fine_tune(5)`` at its defaults (224 pixels, ``aug_transforms``; it learns from all of
them); then ours with the time that fastai took as its ``time_budget``; and the probes, `LogisticHead` on the
penultimate layer and on all stages. Tasks of 64 pixels and less have no rival and get ``SMALL_BUDGET`` seconds. Records
are appended one by one, so that a run that was cut short goes on where it ended. fastai is no dependency: ``pip install
fastai`` brings the rival; ``--budget`` runs ours without it.
"""

import argparse
import json
import statistics
import tempfile
import time
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bottleneck import LogisticHead, TransferClassifier, load_backbone
from bottleneck.errors import FallbackWarning
from bottleneck.images import as_labelled_source
from tests.benchmarks.fastai_rival import fastai_accuracy
from tests.benchmarks.planner_tasks import draw, take, task_images
from tests.finetune.resnet20 import ResNet20

WEIGHTS = "mobilenet_v2_imagenet_tf_hmirror.safetensors"
SMALL_WEIGHTS = "resnet20_cifar10.safetensors"
SMALL_BUDGET = 300.0
NEAR = "tiny_kinds"
"""Of `planner_tasks`: kinds of things made of classes that the embedded backbone was trained to tell apart."""
COLLAPSED_BELOW = 0.05
"""A run has collapsed if it is this much less accurate than the probe."""


Record = dict[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class Task:
    """A data set, how many of its training images are used, and the backbone."""

    images: str
    n: int
    backbone: str
    rotated: bool = False

    @property
    def name(self) -> str:
        """How records and the command line call it."""
        return f"{'rotated_' if self.rotated else ''}{self.images}_{self.n}"


TASKS = {
    task.name: task
    for task in (
        Task(images="clothing", n=500, backbone="mobilenet_v2"),
        Task(images="clothing", n=2000, backbone="mobilenet_v2"),
        Task(images="dtd10", n=800, backbone="mobilenet_v2"),
        Task(images="hymenoptera", n=244, backbone="mobilenet_v2"),
        Task(images="clothing", n=200, backbone="mobilenet_v2"),
        Task(images=NEAR, n=200, backbone="embedded"),
        Task(images="fashion_mnist", n=1000, backbone="resnet20"),
        Task(images="clothing", n=1000, backbone="resnet20", rotated=True),
    )
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, default=Path(__file__).resolve().parents[3] / "shared")
    parser.add_argument("--records", type=Path, required=True)
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--budget", type=float, help="seconds for ours where there is no rival")
    parser.add_argument("--summarise", action="store_true", help="only print what the records say")
    arguments = parser.parse_args()
    records = read_records(arguments.records)
    if arguments.summarise:
        for line in summarise(records):
            print(json.dumps(line))
        return
    done = {(record["task"], record["seed"]) for record in records}
    for seed in arguments.seeds:
        for name in arguments.tasks:
            if (name, seed) not in done:
                record = json.dumps(measure(TASKS[name], arguments.shared, seed=seed, budget=arguments.budget))
                print(record, flush=True)
                with arguments.records.open("a") as file:
                    file.write(f"{record}\n")


def read_records(path: Path) -> list[Record]:
    """Return the records of earlier runs."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def measure(task: Task, shared: Path, *, seed: int, budget: float | None) -> Record:
    """Run all contenders on one draw of training images."""
    with tempfile.TemporaryDirectory() as folder:
        train, test = read(task, shared, seed=seed, folder=Path(folder))
        record: Record = {"task": task.name, "seed": seed, "n": len(train[0]), "n_test": len(test[0])}
        if task.backbone == "mobilenet_v2" and budget is None:
            accuracy, budget = fastai_accuracy(train, test, weights=shared / "weights" / WEIGHTS, seed=seed)
            record |= {"fastai": accuracy, "fastai_seconds": budget}
        return record | measure_ours(task, shared, train, test, seed=seed, budget=budget or SMALL_BUDGET)


Labelled = tuple[Sequence[str] | Sequence[bytes], NDArray[np.generic]]


def read(task: Task, shared: Path, *, seed: int, folder: Path) -> tuple[Labelled, Labelled]:
    """Return the images and labels to learn from, drawn by ``seed``, and those to be measured on."""
    if task.images == NEAR:
        images = task_images(NEAR, shared)
        drawn = draw(images.labels, task.n, seed=seed)
        return (take(images.pool, drawn), images.labels[drawn]), (images.test, images.test_labels)
    rng = np.random.default_rng(seed)
    parts = []
    for part, n in (("train", task.n), ("test", None)):
        source, labels = as_labelled_source(shared / "data" / task.images / part, None)
        rows = rng.permutation(len(labels))[:n]
        files, chosen = [str(source.ids[row]) for row in rows], labels[rows]
        parts.append(rotate(files, rng, folder / part) if task.rotated else (files, chosen))
    return parts[0], parts[1]


def rotate(files: list[str], rng: np.random.Generator, folder: Path) -> Labelled:
    """Turn each photograph by a random quarter, which is its label: exact, and no matter of what it shows."""
    folder.mkdir()
    quarters = rng.integers(4, size=len(files))
    turned = []
    for i, (file, quarter) in enumerate(zip(files, quarters, strict=True)):
        with Image.open(file) as image:
            image.convert("RGB").rotate(90 * int(quarter), expand=True).save(folder / f"{i}.png")
        turned.append(str(folder / f"{i}.png"))
    return turned, np.array([f"{90 * int(quarter)} degrees" for quarter in quarters])


def measure_ours(task: Task, shared: Path, train: Labelled, test: Labelled, *, seed: int, budget: float) -> Record:
    """Fine-tune in ``budget`` seconds from files to classifier, and fit the probes on what is then in the cache."""
    match task.backbone:
        case "mobilenet_v2":
            backbone = load_backbone("mobilenet_v2", shared / "weights" / WEIGHTS)
        case "resnet20":
            backbone = load_backbone(ResNet20(), shared / "weights" / SMALL_WEIGHTS)
        case name:
            backbone = load_backbone(name)
    with tempfile.TemporaryDirectory() as cache_dir, warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always", FallbackWarning)
        given = {"cache_dir": cache_dir, "random_state": seed}
        classifier = TransferClassifier(backbone, strategy="finetune", time_budget=budget, **given)
        began = time.perf_counter()
        classifier.fit(*train)
        seconds = time.perf_counter() - began
        accuracy = classifier.score(*test)
        probes = {
            layers: TransferClassifier(backbone, strategy=layers, head=LogisticHead(), **given).fit(*train).score(*test)
            for layers in ("probe", "all_stages_probe")
        }
    return {
        "ours": accuracy,
        "ours_seconds": seconds,
        "budget": budget,
        "outcome": classifier.outcome_,
        "planned": asdict(classifier.plan_.strategy),
        "train_seconds_per_image": classifier.plan_.request.profile.train_seconds_per_image,
        "steps": {record.stage: record.step for record in classifier.history_},
        "fallbacks": [str(one.message) for one in warned if issubclass(one.category, FallbackWarning)],
        **probes,
    }


def summarise(records: list[Record]) -> Iterator[Record]:
    """Yield a line a task: means over seeds in percent, gains in points, and what went wrong."""
    for name in TASKS:
        cells = [record for record in records if record["task"] == name]
        if not cells:
            continue
        best_probe = [max(cell["probe"], cell["all_stages_probe"]) for cell in cells]
        line: Record = {"task": name, "seeds": len(cells)}
        for contender in ("ours", "probe", "all_stages_probe", "fastai"):
            if all(contender in cell for cell in cells):
                line[contender] = percent(cell[contender] for cell in cells)
        gains = [cell["ours"] - probe for cell, probe in zip(cells, best_probe, strict=True)]
        line |= {
            "over_best_probe": percent(gains),
            "worst_over_best_probe": percent([min(gains)]),
            "collapses": sum(cell["ours"] < cell["probe"] - COLLAPSED_BELOW for cell in cells),
            "fallbacks": sum(bool(cell["fallbacks"]) for cell in cells),
            "seconds_over_budget": round(statistics.median(c["ours_seconds"] / c["budget"] for c in cells), 3),
            "most_seconds_over_budget": round(max(c["ours_seconds"] / c["budget"] for c in cells), 3),
        }
        yield line


def percent(shares: Iterable[float]) -> float:
    """Return the mean in percent, one decimal."""
    return round(100 * statistics.mean(shares), 1)


if __name__ == "__main__":
    main()
