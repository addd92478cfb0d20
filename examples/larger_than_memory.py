"""Heads on features that do not fit in memory: read from disk in blocks, to the same result."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

from bottleneck import LogisticHead, TransferClassifier


class Blocks:
    """Rows of a file, 1,000 at a time."""

    def __init__(self, rows: np.ndarray) -> None:
        self.rows = rows
        self.n_samples, self.n_features = rows.shape

    def __iter__(self) -> Iterator[np.ndarray]:
        for start in range(0, self.n_samples, 1000):
            yield self.rows[start : start + 1000]


digits = load_digits()
X, y = (digits.images[:300] / 16).astype("float32"), digits.target[:300]

with tempfile.TemporaryDirectory() as folder:
    # A classifier does it by itself where it has to. A limit of 1 MB stands in for data that is too large.
    proba = {}
    for limit in ("auto", 1_000_000):
        head = LogisticHead([1.0, 10.0], normalize="center", memory_limit=limit)
        classifier = TransferClassifier(strategy="probe", head=head, cache_dir=Path(folder) / "cache", random_state=0)
        proba[limit] = classifier.fit(X, y).predict_proba(X)
        passes = getattr(classifier.head_, "n_passes_", 0)
        print(f"memory_limit={limit!s:<8} out of fold {classifier.accuracy_cv_:.3f}, features read {passes} times")
    print(f"largest difference of a probability: {np.abs(proba['auto'] - proba[1_000_000]).max():.0e}")

    # Features of your own, as a memory map of half precision: rows stay on disk.
    rng = np.random.default_rng(0)
    features = np.memmap(Path(folder) / "features.f16", dtype=np.float16, mode="w+", shape=(4000, 64))
    labels = rng.integers(0, 3, 4000)
    features[:] = rng.standard_normal(features.shape) + labels[:, None] * 0.2
    head = LogisticHead(memory_limit=1_000_000, cv=3, random_state=0).fit(features, labels)
    print(f"memory map: {head.accuracy_cv_:.3f} out of fold, C {head.C_:.3g}, {head.n_passes_} passes")

    # Anything that has its size and yields blocks of rows, as often as it is asked to, will do.
    same = LogisticHead(memory_limit=1_000_000, cv=3, random_state=0).fit(Blocks(features), labels)
    print("blocks give the same head:", np.allclose(head.coef_, same.coef_))
