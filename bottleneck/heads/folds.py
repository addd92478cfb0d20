"""Deals rows to folds: stratified, identical images together, classes too small to hold out always in training."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import check_cv

from bottleneck.errors import wrong_parameter

Floats = NDArray[np.floating[Any]]
Split = tuple[NDArray[np.intp], NDArray[np.intp]]


class Splitter(Protocol):
    """A scikit-learn cross-validation splitter."""

    def split(self, X: Any, y: Any) -> Iterable[Split]:
        """Yield (train, test) indices."""


CrossValidation = int | Splitter | Iterable[Split]


@dataclass(frozen=True, kw_only=True, slots=True)
class Folds:
    """For every fold, the rows it trains on and the rows it holds out, both (n_folds, n) booleans."""

    train: NDArray[np.bool_]
    held_out: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.train)


def deal_folds(n_folds: int, features: Floats, labels: NDArray[np.intp], rng: np.random.Generator) -> Folds:
    """Deal rows to at most ``n_folds`` stratified folds.

    Rows with the same features and label stay together, because a picture must not vouch for its own copy. A class
    with fewer distinct rows than folds is missing from some of the held-out parts; a class with a single one is in
    every training part and never held out. No fold is left when all classes are like that.
    """
    groups = duplicate_groups(features, labels)
    _, first = np.unique(groups, return_index=True)
    sizes = np.bincount(labels[first])
    n_folds = min(n_folds, int(sizes.max()))
    if n_folds < 2:
        n_folds = 0
    parts = deal(labels[first], max(n_folds, 1), rng)
    parts[sizes[labels[first]] == 1] = -1
    held_out = parts[groups] == np.arange(n_folds)[:, None]
    return Folds(train=~held_out, held_out=held_out)


def follow_splits(cv: Splitter | Iterable[Split], targets: NDArray[Any]) -> Folds:
    """Take the folds of a splitter, or of explicit pairs of training and test indices."""
    splits = list(check_cv(cv, targets, classifier=True).split(np.zeros((len(targets), 1)), targets))
    train = np.zeros((len(splits), len(targets)), dtype=bool)
    held_out = np.zeros_like(train)
    for fold, (train_rows, test_rows) in enumerate(splits):
        train[fold, train_rows] = True
        held_out[fold, test_rows] = True
    return Folds(train=train, held_out=held_out)


def check_cross_validation(cv: object, *, owner: str) -> None:
    """Refuse what is neither a number of folds, nor a splitter, nor splits."""
    if isinstance(cv, int | np.integer) and not isinstance(cv, bool):
        valid = cv >= 2
    else:
        valid = not isinstance(cv, str) and (hasattr(cv, "split") or isinstance(cv, Iterable))
    if not valid:
        raise wrong_parameter(owner, "cv", "an integer of at least 2, a splitter or an iterable of splits", cv)


def deal(labels: NDArray[np.intp], n_parts: int, rng: np.random.Generator) -> NDArray[np.intp]:
    """Return the part (n,) that each row is dealt to: like cards, in random order, class after class."""
    parts = np.empty(len(labels), dtype=np.intp)
    order = rng.permutation(len(labels))
    order = order[np.argsort(labels[order], kind="stable")]
    parts[order] = np.arange(len(labels)) % n_parts
    return parts


def duplicate_groups(features: Floats, labels: NDArray[np.intp]) -> NDArray[np.intp]:
    """Return a number for every row (n,), the same for rows with identical features and label."""
    seen: dict[tuple[int, bytes], int] = {}
    digests = (hashlib.blake2b(row.tobytes(), digest_size=16).digest() for row in features)
    groups = [seen.setdefault(key, len(seen)) for key in zip(labels.tolist(), digests, strict=True)]
    return np.array(groups, dtype=np.intp)
