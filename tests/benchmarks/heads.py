"""Times the heads against what scikit-learn offers, and prints one JSON line.

Usage: ``python tests/benchmarks/heads.py [FEATURES.npz ...] [--rows N] [--repeats N] [--skip-cv]``

A feature file holds ``train_X``, ``train_y``, ``test_X`` and ``test_y``. Without one, features are drawn from a
Gaussian mixture with the spectrum of a convolutional network's. Runs alternate, so that what else the machine does
hits all of them alike, and the ratios are medians over the rounds.
"""

import argparse
import json
import statistics
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, LogisticRegressionCV
from sklearn.metrics import log_loss
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from bottleneck.heads import LogisticHead, SVMHead

# LogisticRegressionCV stops at its default of 100 iterations on most of its path, which is part of what it is.
warnings.filterwarnings("ignore", category=ConvergenceWarning)


class Split(NamedTuple):
    """Features and labels to train and to test on."""

    name: str
    train_features: NDArray[Any]
    train_labels: NDArray[Any]
    test_features: NDArray[Any]
    test_labels: NDArray[Any]


def load_split(path: Path, n_rows: int | None) -> Split:
    """Read a feature file, with a random part of its training rows if asked to."""
    with np.load(path) as arrays:
        X, y, test_X, test_y = (arrays[key] for key in ("train_X", "train_y", "test_X", "test_y"))
    rows = np.random.default_rng(0).permutation(len(y))[:n_rows]
    return Split(path.stem, X[rows], y[rows], test_X, test_y)


def generate_split(n_rows: int, *, n_features: int = 1280, n_classes: int = 10) -> Split:
    """Draw classes with random means in non-negative features of decaying variance."""
    rng = np.random.default_rng(0)
    scale = np.arange(1, n_features + 1) ** -0.5
    mixing = np.linalg.qr(rng.standard_normal((n_features, n_features)))[0]
    means = 0.2 * rng.standard_normal((n_classes, n_features))

    def draw(n: int) -> tuple[NDArray[Any], NDArray[Any]]:
        y = rng.integers(n_classes, size=n)
        latent = (means[y] + rng.standard_normal((n, n_features))) * scale
        return np.maximum(latent @ mixing + 0.02, 0).astype(np.float32), y

    return Split(f"mixture-{n_rows}", *draw(n_rows), *draw(2000))


def contenders(*, with_cv: bool) -> dict[str, Callable[[], Any]]:
    """Return what is compared, the library's head first."""
    found: dict[str, Callable[[], Any]] = {
        "LogisticHead": lambda: LogisticHead(random_state=0),
        "SVMHead": lambda: SVMHead(random_state=0),
        "LogisticRegression(C=1)": lambda: make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)),
    }
    if with_cv:
        found["LogisticRegressionCV"] = lambda: make_pipeline(
            StandardScaler(),
            LogisticRegressionCV(
                Cs=np.logspace(-4, 4, 45),
                cv=5,
                scoring="neg_log_loss",
                l1_ratios=(0,),
                use_legacy_attributes=False,
            ),
        )
    return found


def compare(split: Split, *, repeats: int, with_cv: bool) -> dict[str, Any]:
    """Fit every contender ``repeats`` times in turn."""
    makers = contenders(with_cv=with_cv)
    seconds: dict[str, list[float]] = {name: [] for name in makers}
    results: dict[str, dict[str, float]] = {}
    for _ in range(repeats):
        for name, make in makers.items():
            began = time.perf_counter()
            fitted = make().fit(split.train_features, split.train_labels)
            seconds[name].append(time.perf_counter() - began)
            results[name] = {
                "accuracy": round(float(np.mean(fitted.predict(split.test_features) == split.test_labels)), 4),
                "log_loss": round(float(log_loss(split.test_labels, fitted.predict_proba(split.test_features))), 4),
            }
    for name, result in results.items():
        ratios = [other / own for other, own in zip(seconds[name], seconds["LogisticHead"], strict=True)]
        result["seconds"] = round(statistics.median(seconds[name]), 3)
        result["times_logistic_head"] = round(statistics.median(ratios), 2)
    return {"features": split.name, "shape": list(split.train_features.shape), **results}


def main() -> None:
    """Compare on each feature file, or on generated features."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("files", nargs="*", type=Path)
    parser.add_argument("--rows", type=int, default=None, help="training rows to use (generated: 1000)")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--skip-cv", action="store_true", help="leave LogisticRegressionCV out, which takes minutes")
    options = parser.parse_args()
    splits = [load_split(path, options.rows) for path in options.files] or [generate_split(options.rows or 1000)]
    print(json.dumps([compare(split, repeats=options.repeats, with_cv=not options.skip_cv) for split in splits]))


if __name__ == "__main__":
    main()
