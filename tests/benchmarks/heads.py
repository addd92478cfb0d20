"""Compares the heads with what scikit-learn offers on features of real images, resample by resample.

    python tests/benchmarks/heads.py --data ../shared --cache-dir DIR [--only NAME ...] [--resamples 20]
                                     [--records records.jsonl] [--write results/heads.json]

Features are MobileNetV2's 1,280, and 2,048 when SqueezeNet's last two widths join them; the first run extracts them
into the cache. Every resample deals all images of a set anew, by class, to ``n`` training rows and at most 2,000 test
rows; all contenders see the same rows, one after the other. Records are appended one by one, so that a run that was
cut short goes on where it ended. For ratios of times keep other work off the cores and give ``OMP_NUM_THREADS``.
"""

import argparse
import json
import os
import statistics
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, LogisticRegressionCV
from sklearn.metrics import log_loss
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, LinearSVC

from bottleneck import FeatureExtractor, load_backbone
from bottleneck.heads import LogisticHead, SVMHead, concatenate_blocks

# The rivals stop at their defaults of 100 and 1,000 iterations on much of their grids, which is part of what they are.
warnings.filterwarnings("ignore", category=ConvergenceWarning)
warnings.filterwarnings("ignore", message="The least populated class")

KORNBLITH_CS = np.logspace(-6, 5, 45)
HINDSIGHT = "best in hindsight"
HINDSIGHT_CS = np.logspace(-4, 3, 15)
"""The most that any choice of normalisation and C could give: chosen on the test rows, which nobody may do."""
MAX_TEST_ROWS = 2000
FASHION_ROWS = {"train": 4000, "test": 1000}
"""Small grey images take as long to extract as photographs, and these are enough."""

BLOCKS = {
    1280: (("mobilenet_v2", "mobilenet_v2_imagenet_tf_hmirror", "penultimate"),),
    2048: (
        ("mobilenet_v2", "mobilenet_v2_imagenet_tf_hmirror", "penultimate"),
        ("squeezenet1_0", "squeezenet1_0_imagenet", "penultimate"),
        ("squeezenet1_0", "squeezenet1_0_imagenet", "stage2"),
    ),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Cell:
    """One training size of one set of images."""

    images: str
    n_features: int
    n_rows: int
    slow: bool = True
    """whether LogisticRegressionCV and other searches take part"""

    @property
    def name(self) -> str:
        return f"{self.images}-{self.n_rows}x{self.n_features}"


CELLS = [
    *(Cell(images=images, n_features=1280, n_rows=50, slow=False) for images in ("dtd10", "clothing", "fashion_mnist")),
    *(
        Cell(images=images, n_features=1280, n_rows=200, slow=False)
        for images in ("dtd10", "clothing", "fashion_mnist")
    ),
    Cell(images="hymenoptera", n_features=1280, n_rows=300),
    Cell(images="hymenoptera", n_features=2048, n_rows=300),
    *(
        Cell(images=images, n_features=n_features, n_rows=n_rows)
        for n_rows in (300, 1000, 3000)
        for n_features in (1280, 2048)
        for images in ("dtd10", "clothing", "fashion_mnist")
        if images != "dtd10" or n_rows < 3000
    ),
]


def contenders(*, slow: bool) -> dict[str, Callable[[], Any]]:
    """Return what is compared, the library's heads first."""

    def search() -> Any:
        return LogisticRegressionCV(
            Cs=KORNBLITH_CS, cv=5, scoring="neg_log_loss", l1_ratios=(0,), use_legacy_attributes=False
        )

    def scaled(classifier: Any) -> Any:
        return make_pipeline(StandardScaler(), classifier)

    found: dict[str, Callable[[], Any]] = {
        "LogisticHead": lambda: LogisticHead(random_state=0),
        "SVMHead": lambda: SVMHead(random_state=0),
        "LogisticRegression": LogisticRegression,
        "StandardScaler, LogisticRegression": lambda: make_pipeline(
            StandardScaler(), LogisticRegression(max_iter=1000)
        ),
        "SVC": SVC,
    }
    if not slow:
        found[HINDSIGHT] = LogisticHead  # as often as it takes
    if slow:
        found |= {
            "LogisticRegressionCV": search,
            "StandardScaler, LogisticRegressionCV": lambda: scaled(search()),
            "GridSearchCV of LinearSVC": lambda: GridSearchCV(LinearSVC(), {"C": np.logspace(-4, 2, 7)}, cv=5),
        }
    return found


def extract(data: Path, images: str, n_features: int, cache_dir: Path) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the features (n, n_features) and labels (n,) of all images of a set, through the cache."""
    paths = []
    for part, most in FASHION_ROWS.items():
        found = sorted((data / "data" / images / part).glob("*/*"))
        if images == "fashion_mnist":
            found = [found[i] for i in np.sort(np.random.default_rng(0).permutation(len(found))[:most])]
        paths += found
    blocks = []
    for backbone, weights, layer in BLOCKS[n_features]:
        network = load_backbone(backbone, data / "weights" / f"{weights}.safetensors")
        extractor = FeatureExtractor(network, layers=layer, cache_dir=cache_dir, precision="float32")
        blocks.append(extractor.fit_transform(paths))
    return concatenate_blocks(blocks), np.array([path.parent.name for path in paths])


def resample(
    features: NDArray[Any], labels: NDArray[Any], n_rows: int, seed: int
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Deal rows to a training and a test part: balanced when there are at most 20 of a class, else as they come."""
    rng = np.random.default_rng(seed)
    classes = np.unique(labels)
    if n_rows <= 20 * len(classes):
        each = n_rows // len(classes)
        train = np.concatenate([rng.permutation(np.flatnonzero(labels == name))[:each] for name in classes])
        test = rng.permutation(np.setdiff1d(np.arange(len(labels)), train))
    else:
        train, test = train_test_split(np.arange(len(labels)), train_size=n_rows, stratify=labels, random_state=seed)
    test = test[:MAX_TEST_ROWS]
    return features[train], labels[train], features[test], labels[test]


def measure_hindsight(split: tuple[NDArray[Any], ...]) -> dict[str, float | None]:
    """Return the best accuracy, and the best log-loss, on the test part of all normalisations and Cs."""
    train_X, train_y, test_X, test_y = split
    began = time.perf_counter()
    heads = [
        LogisticHead([C], normalize=kind, random_state=0).fit(train_X, train_y)
        for kind in ("l2", "center", "standardize")
        for C in HINDSIGHT_CS
    ]
    return {
        "seconds": round(time.perf_counter() - began, 4),
        "accuracy": max(float(np.mean(head.predict(test_X) == test_y)) for head in heads),
        "log_loss": min(float(log_loss(test_y, head.predict_proba(test_X))) for head in heads),
    }


def measure(make: Callable[[], Any], split: tuple[NDArray[Any], ...]) -> dict[str, float | None]:
    """Fit once; accuracy and log-loss on the test part."""
    train_X, train_y, test_X, test_y = split
    began = time.perf_counter()
    fitted = make().fit(train_X, train_y)
    seconds = time.perf_counter() - began
    proba = fitted.predict_proba(test_X) if hasattr(fitted, "predict_proba") else None
    return {
        "seconds": round(seconds, 4),
        "accuracy": float(np.mean(fitted.predict(test_X) == test_y)),
        "log_loss": None if proba is None else float(log_loss(test_y, proba)),
    }


def compare(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Yield a record for each cell, resample and contender that has none yet."""
    done = {(r["cell"], r["seed"], r["contender"]) for r in read_records(options.records)}
    features: dict[tuple[str, int], tuple[NDArray[Any], NDArray[Any]]] = {}
    for seed in range(options.resamples):
        for cell in CELLS:
            if options.only and not any(word in cell.name for word in options.only):
                continue
            makers = {
                k: v for k, v in contenders(slow=cell.slow).items() if not options.contenders or k in options.contenders
            }
            missing = {k: v for k, v in makers.items() if (cell.name, seed, k) not in done}
            if not missing:
                continue
            key = (cell.images, cell.n_features)
            if key not in features:
                features[key] = extract(options.data, *key, options.cache_dir)
            split = resample(*features[key], cell.n_rows, seed)
            for name, make in missing.items():
                measured = measure_hindsight(split) if name == HINDSIGHT else measure(make, split)
                yield {"cell": cell.name, "seed": seed, "contender": name, **measured}


def read_records(path: Path) -> list[dict[str, Any]]:
    """Return what earlier runs have measured."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def summarise(records: list[dict[str, Any]]) -> dict[str, Any]:
    """Return medians of times and, over resamples that both have, paired differences from LogisticHead."""
    summary: dict[str, Any] = {}
    for cell in dict.fromkeys(r["cell"] for r in records):
        by_name: dict[str, dict[int, dict[str, Any]]] = {}
        for r in records:
            if r["cell"] == cell:
                by_name.setdefault(r["contender"], {})[r["seed"]] = r
        own = by_name.get("LogisticHead", {})
        summary[cell] = {
            name: summarise_pairs([(own[seed], runs[seed]) for seed in runs if seed in own])
            for name, runs in by_name.items()
            if own.keys() & runs.keys()
        }
    return summary


def summarise_pairs(pairs: list[tuple[dict[str, Any], dict[str, Any]]]) -> dict[str, Any]:
    """Summarise a contender's runs beside those of LogisticHead on the same rows."""
    found = {
        "resamples": len(pairs),
        "seconds": round(statistics.median(other["seconds"] for _, other in pairs), 3),
        "times_logistic_head": round(statistics.median(other["seconds"] / own["seconds"] for own, other in pairs), 1),
    }
    for metric in ("accuracy", "log_loss"):
        if any(other[metric] is None for _, other in pairs):
            continue
        gains = [own[metric] - other[metric] for own, other in pairs]
        found[metric] = round(statistics.fmean(other[metric] for _, other in pairs), 4)
        found[f"logistic_head_{metric}_minus_this"] = round(statistics.fmean(gains), 4)
        if len(gains) > 1:
            found[f"{metric}_se"] = round(statistics.stdev(gains) / len(gains) ** 0.5, 4)
    return found


def main() -> None:
    """Measure what is missing, then write the summary."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, required=True, help="folder with weights/ and data/")
    parser.add_argument("--cache-dir", type=Path, required=True)
    parser.add_argument("--only", nargs="*", help="parts of the names of cells, such as 300x1280")
    parser.add_argument("--contenders", nargs="*")
    parser.add_argument("--resamples", type=int, default=20)
    parser.add_argument("--records", type=Path, default=Path("heads-records.jsonl"))
    parser.add_argument("--write", type=Path)
    options = parser.parse_args()
    for record in compare(options):
        with options.records.open("a") as lines:
            lines.write(json.dumps(record) + "\n")
    summary = {"threads": os.environ.get("OMP_NUM_THREADS"), "cells": summarise(read_records(options.records))}
    text = json.dumps(summary, indent=1)
    if options.write:
        options.write.write_text(text + "\n")
    else:
        print(text)


if __name__ == "__main__":
    main()
