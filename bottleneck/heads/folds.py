"""Deals rows to folds: stratified, copies and groups together, classes too small to hold out always in training."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import check_cv

from bottleneck.errors import InvalidInputError, wrong_parameter
from bottleneck.heads.duplicates import connected, cut, group_copies, mark_rows

Floats = NDArray[np.floating[Any]]
Split = tuple[NDArray[np.intp], NDArray[np.intp]]


class Splitter(Protocol):
    """A scikit-learn cross-validation splitter."""

    def split(self, X: Any, y: Any, groups: Any = None) -> Iterable[Split]:
        """Yield (train, test) indices."""


CrossValidation = int | Splitter | Iterable[Split]
LeaveOneOut = Literal["loo"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Folds:
    """For every fold, the rows it trains on and the rows it holds out, both (n_folds, n) booleans."""

    train: NDArray[np.bool_]
    held_out: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.train)


@dataclass(frozen=True, kw_only=True, slots=True)
class LeftOut:
    """Which rows are left out together, all others being trained on."""

    units: NDArray[np.intp]
    """(n,) the same number for rows of one unit; -1 for rows that are never left out"""

    def __len__(self) -> int:
        return int(np.count_nonzero(np.bincount(self.units[self.units >= 0])))

    @property
    def largest(self) -> int:
        """The most rows of a unit."""
        return int(np.bincount(self.units[self.units >= 0]).max(initial=0))


def leave_out_units(features: Floats, labels: NDArray[np.intp], *, groups: NDArray[np.intp] | None = None) -> LeftOut:
    """Leave out every row once: with its copies, with all rows of its group, and not if its class would be gone."""
    marks = mark_rows(cut(features), n_samples=len(features), n_features=features.shape[1])
    copies = group_copies(marks, labels)
    units = copies if groups is None else join_groups(copies, groups)
    members = count_members(units, labels)
    sizes = (members > 0).sum(axis=0)
    precious = np.asarray((members[:, sizes == 1] > 0).any(axis=1))
    return LeftOut(units=np.where(precious[units], -1, units))


def deal_folds(
    n_folds: int,
    features: Floats,
    labels: NDArray[np.intp],
    rng: np.random.Generator,
    *,
    groups: NDArray[np.intp] | None = None,
) -> Folds:
    """Deal rows to at most ``n_folds`` stratified folds.

    Rows with the same label and the same or nearly the same features (:mod:`duplicates`) stay together, because a
    picture must not vouch for its own copy, and so do rows of one group, with all copies of them. A class with fewer
    such units than folds is missing from some of the held-out parts; a class with a single one is in every training
    part and never held out. No fold is left when all classes are like that.
    """
    marks = mark_rows(cut(features), n_samples=len(features), n_features=features.shape[1])
    n_folds, parts = deal_parts(n_folds, group_copies(marks, labels), labels, rng, groups=groups)
    held_out = parts == np.arange(n_folds)[:, None]
    return Folds(train=~held_out, held_out=held_out)


def deal_parts(
    n_folds: int,
    copies: NDArray[np.intp],
    labels: NDArray[np.intp],
    rng: np.random.Generator,
    *,
    groups: NDArray[np.intp] | None = None,
) -> tuple[int, NDArray[np.intp]]:
    """Return the number of folds, and which of them holds each row (n,) out, or -1; see :func:`deal_folds`.

    ``copies`` (n,) is the same number for rows that are copies of each other.
    """
    if groups is None:
        _, first = np.unique(copies, return_index=True)
        units, labels_of_units = copies, labels[first]
        sizes = np.bincount(labels_of_units)
        precious = sizes[labels_of_units] == 1
    else:
        units = join_groups(copies, groups)
        members = count_members(units, labels)
        sizes = (members > 0).sum(axis=0)
        precious = (members[:, sizes == 1] > 0).any(axis=1)
    n_folds = min(n_folds, int(sizes.max()))
    if n_folds < 2:
        n_folds = 0
    n_parts = max(n_folds, 1)
    parts = deal(labels_of_units, n_parts, rng) if groups is None else deal_evenly(members, n_parts, rng)
    parts[precious] = -1
    return n_folds, parts[units]


def join_groups(copies: NDArray[np.intp], groups: NDArray[np.intp]) -> NDArray[np.intp]:
    """Return a number for every row (n,), the same for rows that a chain of copies and groups joins."""
    n_copies = int(copies.max()) + 1
    joined = connected(copies, n_copies + groups, n_copies + int(groups.max()) + 1)[copies]
    return np.unique(joined, return_inverse=True)[1]


def count_members(units: NDArray[np.intp], labels: NDArray[np.intp]) -> NDArray[np.intp]:
    """Return how many rows of each label are in each unit (n_units, n_classes)."""
    n_classes = int(labels.max()) + 1
    counts = np.bincount(units * n_classes + labels, minlength=(int(units.max()) + 1) * n_classes)
    return counts.reshape(-1, n_classes)


def deal_evenly(members: NDArray[np.intp], n_parts: int, rng: np.random.Generator) -> NDArray[np.intp]:
    """Return the part (n_units,) of each unit with so many members of each class (n_units, n_classes).

    Largest units first, each goes where its classes are rarest so far, which keeps the sum of squared shares of
    all classes and parts small.
    """
    totals = np.maximum(members.sum(axis=0), 1)
    shares = members / totals
    loads = np.zeros((n_parts, members.shape[1]))
    parts = np.empty(len(members), dtype=np.intp)
    order = rng.permutation(len(members))
    for unit in order[np.argsort(-shares[order].max(axis=1), kind="stable")]:
        crowded = loads @ shares[unit] + 1e-9 * loads.sum(axis=1)
        parts[unit] = crowded.argmin()
        loads[parts[unit]] += shares[unit]
    return parts


def follow_splits(
    cv: Splitter | Iterable[Split], targets: NDArray[Any], *, groups: NDArray[Any] | None = None
) -> Folds:
    """Take the folds of a splitter, which may ask for groups, or of explicit pairs of training and test indices.

    Raises
    ------
    InvalidInputError
        The splitter has nothing to split these rows by: too few of them, or no groups given.
    """
    try:
        splits = list(check_cv(cv, targets, classifier=True).split(np.zeros((len(targets), 1)), targets, groups))
    except ValueError as error:
        raise InvalidInputError(f"The splits of 'cv' cannot be followed. {error}") from error
    train = np.zeros((len(splits), len(targets)), dtype=bool)
    held_out = np.zeros_like(train)
    for fold, (train_rows, test_rows) in enumerate(splits):
        train[fold, train_rows] = True
        held_out[fold, test_rows] = True
    return Folds(train=train, held_out=held_out)


def check_cross_validation(cv: object, *, owner: str, leaves_out: bool = False) -> None:
    """Refuse what is neither a number of folds, nor a splitter, nor splits, nor "loo" where rows can be left out."""
    if isinstance(cv, str) and cv == "loo" and leaves_out:
        return
    if isinstance(cv, int | np.integer) and not isinstance(cv, bool):
        valid = cv >= 2
    else:
        valid = not isinstance(cv, str) and (hasattr(cv, "split") or isinstance(cv, Iterable))
    if not valid:
        allowed = "an integer of at least 2, 'loo', " if leaves_out else "an integer of at least 2, "
        raise wrong_parameter(owner, "cv", allowed + "a splitter or an iterable of splits", cv)


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
