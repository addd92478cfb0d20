"""Times the linear heads on many rows, with scikit-learn beside them in the same process.

    OMP_NUM_THREADS=2 python tests/benchmarks/heads_large.py [--rows 50000] [--features 2048] [--classes 10]
                                                             [--threads 2] [--write results/heads_large.json]

Features are generated: classes that differ in a few directions among many of decaying variance, put through a
rectifier as a backbone's last activations are. scikit-learn's ``LogisticRegression`` gets the head's normalised
features and its C, and no search; what ``LogisticRegressionCV`` would take is an estimate from that one fit. How far
each ends above the least value is bounded by its gradient, which needs no third solver. Each part is recorded when it
ends, so that a run that was cut short goes on where it ended. ``--threads`` limits linear algebra, ``OMP_NUM_THREADS``
everything else.
"""

import argparse
import json
import os
import resource
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import sklearn
from numpy.typing import NDArray
from scipy.special import log_softmax
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from threadpoolctl import threadpool_limits

from bottleneck.heads import LogisticHead, SVMHead
from bottleneck.heads.normalize import Normalizer, fit_normalizer

TEST_ROWS = 10_000
SEARCHED_CS, SEARCHED_FOLDS = 45, 5
"""Kornblith et al. (2019): 45 values of C from 1e-6 to 1e5, and five folds."""

DIRECTIONS, STRENGTH = 64, 5.0
"""In which classes differ, and by how much beside noise of variance 5: enough for nine rows in ten."""

MAX_ITER = 1000
BLOCK_ROWS = 4096

Floats = NDArray[np.floating[Any]]
Split = tuple[Floats, NDArray[np.intp], Floats, NDArray[np.intp]]


def draw(n_rows: int, n_features: int, n_classes: int) -> tuple[Floats, NDArray[np.intp]]:
    """Return features (n_rows, n_features) in float32 as deep ones are, and labels."""
    rng = np.random.default_rng(0)
    mixing = rng.standard_normal((n_features, n_features), dtype=np.float32) / np.float32(np.sqrt(n_features))
    directions = rng.standard_normal((min(DIRECTIONS, n_features), n_features), dtype=np.float32)
    means = rng.standard_normal((n_classes, len(directions)), dtype=np.float32) @ directions
    means *= np.float32(STRENGTH / np.sqrt(len(directions) * n_features))
    scale = (np.sqrt(n_features) / np.arange(1, n_features + 1) ** 0.6).astype(np.float32)
    labels = rng.integers(n_classes, size=n_rows)
    features = np.empty((n_rows, n_features), np.float32)
    for start in range(0, n_rows, BLOCK_ROWS):
        block = slice(start, start + BLOCK_ROWS)
        drawn = rng.standard_normal(features[block].shape, dtype=np.float32)
        features[block] = np.maximum((drawn * scale) @ mixing + means[labels[block]] - 0.3, 0)
    return features, labels


def split_rows(options: argparse.Namespace) -> Split:
    """Return training and test rows of one draw."""
    n_test = min(TEST_ROWS, options.rows)
    X, y = draw(options.rows + n_test, options.features, options.classes)
    return X[n_test:], y[n_test:], X[:n_test], y[:n_test]


def time_head(head: LogisticHead | SVMHead, split: Split) -> tuple[dict[str, Any], LogisticHead | SVMHead]:
    """Fit a head, choice of normalisation and C included."""
    train_X, train_y, test_X, test_y = split
    began, cpu = time.perf_counter(), time.process_time()
    head.fit(train_X, train_y)
    seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - cpu
    proba = head.predict_proba(test_X)
    found = {
        "seconds": round(seconds, 1),
        "cpu_seconds": round(cpu_seconds, 1),
        "accuracy": float(np.mean(head.classes_[proba.argmax(axis=1)] == test_y)),
        "log_loss": float(log_loss(test_y, proba)),
        "C": head.C_,
        "normalize": head.normalize_,
        "Cs_tried": len(head.Cs_),
        "n_iter": head.n_iter_,
        "peak_rss_gib": peak_rss(),
    }
    return found, head


def peak_rss() -> float:
    """Return the most memory that this process has held so far, in GiB."""
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2)


def value_and_gap(coef: Floats, intercept: Floats, X: Floats, y: NDArray[np.intp], C: float) -> tuple[float, float]:
    """Return what logistic regression minimises, and how far at most that is above the least, relative to it.

    In float64. The penalty makes the value curve by 1 at least along the coefficients, so that the least is no further
    below than half the squared gradient; intercepts, which have no penalty, are where their gradient is next to zero.
    """
    value, gradient = 0.5 * float(np.square(coef).sum()), coef.astype(float)
    for start in range(0, len(X), BLOCK_ROWS):
        rows, labels = X[start : start + BLOCK_ROWS].astype(float), y[start : start + BLOCK_ROWS]
        log_proba = log_softmax(rows @ coef.T + intercept, axis=1)
        residuals = np.exp(log_proba)
        residuals[np.arange(len(rows)), labels] -= 1
        value -= C * float(log_proba[np.arange(len(rows)), labels].sum())
        gradient += C * residuals.T @ rows
    return value, 0.5 * float(np.square(gradient).sum()) / value


def time_rival(head: LogisticHead, split: Split) -> dict[str, Any]:
    """Fit scikit-learn's LogisticRegression to the head's normalised features at its C, and compare the values."""
    train_X, train_y, test_X, test_y = split
    normalizer = fit_normalizer(train_X, np.ones(len(train_X)), head.normalize_)
    normalized, new = normalizer.to_float32(train_X), normalizer.to_float32(test_X)
    rival = LogisticRegression(C=head.C_, max_iter=MAX_ITER)
    began, cpu = time.perf_counter(), time.process_time()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ConvergenceWarning)
        rival.fit(normalized, train_y)
    seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - cpu
    proba = rival.predict_proba(new)
    # Exact rows, since those in float32 have another optimum, by more than the head is away from its own.
    exact = normalizer(train_X)
    own, own_gap = value_and_gap(*on_normalized(head, normalizer), exact, train_y, head.C_)
    theirs, their_gap = value_and_gap(rival.coef_, rival.intercept_, exact, train_y, head.C_)
    return {
        "seconds": round(seconds, 1),
        "cpu_seconds": round(cpu_seconds, 1),
        "accuracy": float(np.mean(rival.predict(new) == test_y)),
        "log_loss": float(log_loss(test_y, proba)),
        "C": head.C_,
        "n_iter": int(rival.n_iter_.max()),
        "converged": not any(issubclass(one.category, ConvergenceWarning) for one in caught),
        "head_value_minus_this_relative": (own - theirs) / theirs,
        "gap_to_optimum_at_most": {"LogisticHead": own_gap, "LogisticRegression": their_gap},
        "predictions_equal": float(np.mean(rival.predict(new) == predict_normalized(head, normalizer, new))),
        "peak_rss_gib": peak_rss(),
        "LogisticRegressionCV_seconds_estimated": round(seconds * SEARCHED_CS * SEARCHED_FOLDS, -1),
        "estimated_from": f"this one fit times {SEARCHED_CS} Cs times {SEARCHED_FOLDS} folds; it was not run",
    }


def on_normalized(head: LogisticHead, normalizer: Normalizer) -> tuple[Floats, Floats]:
    """Return a head's coefficients and intercepts for normalised features."""
    return head.coef_ * normalizer.scale, head.intercept_ + head.coef_ @ normalizer.center


def predict_normalized(head: LogisticHead, normalizer: Normalizer, normalized: Floats) -> NDArray[Any]:
    """Return the head's predictions for normalised features."""
    coef, intercept = on_normalized(head, normalizer)
    predicted: NDArray[Any] = head.classes_[(normalized @ coef.T + intercept).argmax(axis=1)]
    return predicted


def measure(options: argparse.Namespace, record: Callable[[str, dict[str, Any]], None], done: dict[str, Any]) -> None:
    """Measure the parts that are not done."""
    split = split_rows(options)
    if "LogisticHead" not in done or "LogisticRegression" not in done:
        found, head = time_head(LogisticHead(random_state=0), split)
        record("LogisticHead", found)
    if "SVMHead" not in done:
        record("SVMHead", time_head(SVMHead(random_state=0), split)[0])
    if "LogisticRegression" not in done:
        record("LogisticRegression", time_rival(head, split))


def main() -> None:
    """Measure what is missing, then print everything."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--features", type=int, default=2048)
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--note", help="what else ran on the machine")
    parser.add_argument("--write", type=Path, help="where to record each part, and to go on from")
    options = parser.parse_args()
    size = {name: getattr(options, name) for name in ("rows", "features", "classes", "threads")}
    results: dict[str, Any] = json.loads(options.write.read_text()) if options.write and options.write.exists() else {}
    if results.get("size") != size:
        results = {"size": size, "parts": {}}
    results |= {"scikit_learn": sklearn.__version__, "omp_num_threads": os.environ.get("OMP_NUM_THREADS")}
    results |= {"note": options.note} if options.note else {}

    def record(name: str, found: dict[str, Any]) -> None:
        load = round(os.getloadavg()[0], 1)
        results["parts"][name] = found | {"load_average": load}
        if options.write:
            options.write.write_text(json.dumps(results, indent=1) + "\n")

    with threadpool_limits(options.threads):
        measure(options, record, results["parts"])
    print(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
