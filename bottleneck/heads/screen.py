"""Screens normalisations and feature blocks by ridge regression with exact leave-one-out, in seconds.

Ridge on one-hot targets ranks features much as logistic regression does, and one eigendecomposition gives it for every
penalty and every row left out. Candidates are compared by squared error, which is far less noisy than accuracy where
images are few, and the first one, which needs no trust, stays unless another is better by a standard error.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bottleneck.errors import InvalidInputError, did_you_mean
from bottleneck.heads.evidence import mean_and_se
from bottleneck.heads.folds import deal, duplicate_groups
from bottleneck.heads.normalize import (
    BALANCES,
    BlockBalance,
    Normalization,
    concatenate_blocks,
    fit_normalizer,
)
from bottleneck.heads.ridge import LeaveOneOut, leave_one_out, leave_one_out_by_gram
from bottleneck.heads.threads import limited_threads
from bottleneck.heads.training import make_generator

Floats = NDArray[np.floating[Any]]

CANDIDATES: tuple[Normalization, ...] = ("l2", "center", "standardize")
FEW_FEATURES_CANDIDATES: tuple[Normalization, ...] = ("center", "l2", "standardize")
"""In order of trust. On deep features L2 lost least where there were too few images to tell (2 to 10 of a class).
With few features the norm of a row is too large a part of what they say."""

FEW_FEATURES = 32

MAX_ROWS = 4096
MAX_WIDE_ROWS = 2048
"""Rows screened: all up to here (the lower number when features are more than that), else a stratified sample. An
eigendecomposition costs the cube of the smaller of rows and features."""

CHOICE_ROWS, CHOICE_ROWS_PER_CLASS = 512, 20
"""Rows, and rows of each class, that are enough where nothing but the normalisation is to be chosen: on 16 draws of
1,000 and 2,500 rows of two sets of images they chose the same as all rows, in two thirds of the time of a fit."""

CURVE_PARTS = (4, 2)

MIN_SCORED = 0.9
"""Share of the rows of a part that need a companion of their class there, for a point of the learning curve."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class ScreenRecord:
    """One way to use a block of features, and what leave-one-out says of it at its best penalty.

    Arrays are over the rows that were scored: one of each set of copies, with another row of their class.
    """

    block: str
    balance: BlockBalance
    normalization: Normalization
    penalty: float
    squared_errors: Floats
    """(n_scored,) squared distances to the one-hot target"""
    correct: NDArray[np.bool_]
    """(n_scored,)"""
    weights: Floats
    """(n_scored,)"""

    @property
    def loo_accuracy(self) -> float:
        """Share of rows whose class is predicted by the regression on all others."""
        return mean_and_se(self.correct, self.weights)[0]

    @property
    def loo_accuracy_se(self) -> float:
        """Standard error of ``loo_accuracy``."""
        return mean_and_se(self.correct, self.weights)[1]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Candidate:
    """A record, and what its learning curve is cut from."""

    record: ScreenRecord
    gram: Floats | None
    """(n, n) products of the normalised rows, if they are wide"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Gain:
    """A difference of leave-one-out accuracies on the same rows, and its standard error over the pairs."""

    accuracy: float
    se: float


@dataclass(frozen=True, kw_only=True, slots=True)
class LearningPoint:
    """Leave-one-out accuracy with ``n_samples`` rows: mean over disjoint parts that make up all rows."""

    n_samples: int
    accuracy: float
    se: float


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class ScreenResult:
    """Every record of a screen, and the learning curve of the best at a quarter, half and all of the rows."""

    records: tuple[ScreenRecord, ...]
    learning_curve: tuple[LearningPoint, ...]

    def best(self, block: str | None = None) -> ScreenRecord:
        """Return the record to trust, of one block or of all."""
        names = list(dict.fromkeys(record.block for record in self.records))
        if block is not None and block not in names:
            raise InvalidInputError(f"No block {block!r} was screened. {did_you_mean(block, names)}".rstrip())
        wanted = names if block is None else [block]
        return _most_trusted([_most_trusted([r for r in self.records if r.block == name]) for name in wanted])

    def gain(self, block: str, *, over: str) -> Gain:
        """Return how much more accurate the best record of ``block`` is than that of ``over``."""
        left, right = self.best(block), self.best(over)
        accuracy, se = mean_and_se(left.correct.astype(float) - right.correct, left.weights)
        return Gain(accuracy=accuracy, se=se)


def screen_features(
    blocks: Mapping[str, Floats | Sequence[Floats]],
    labels: ArrayLike,
    *,
    sample_weight: ArrayLike | None = None,
    normalizations: Sequence[Normalization] | None = None,
    random_state: int | np.random.RandomState | None = None,
) -> ScreenResult:
    """Compare blocks of features by ridge regression with exact leave-one-out.

    Parameters
    ----------
    blocks
        Name to features (n_samples, n_features), or to several such arrays that :func:`concatenate_blocks` joins.
        The first block is the one to prefer unless another is better by a standard error.
    labels
        Class of each row (n_samples,), at least one of them with two distinct rows.
    sample_weight
        Weight of each row (n_samples,); rows of weight 0 are left out.
    normalizations
        The normalisations to try, in order of trust; each costs an eigendecomposition. By default all that suit.
    random_state
        Seeds which rows are screened when there are more than a few thousand, and the learning curve.

    Returns
    -------
    ScreenResult
        A record for every block, way of joining it and normalisation, and the learning curve of the best.

    Raises
    ------
    InvalidInputError
        Arrays of different lengths, or no class with two distinct rows.
    """
    parts = {name: _as_arrays(block) for name, block in blocks.items()}
    arrays = [array for block in parts.values() for array in block]
    _, numbers = np.unique(np.asarray(labels), return_inverse=True)
    weights = np.ones(len(numbers)) if sample_weight is None else np.asarray(sample_weight, dtype=float)
    if any(len(array) != len(numbers) for array in (*arrays, weights)):
        lengths = [len(array) for array in (*arrays, weights)]
        raise InvalidInputError(f"There are {len(numbers)} labels, but the arrays and weights have {lengths} rows.")
    rng = make_generator(random_state)
    rows, weights = distinct_rows(arrays, numbers, weights, rng)
    numbers = numbers[rows]
    if np.bincount(numbers, minlength=1).max() < 2:
        raise InvalidInputError("Leave-one-out needs a class with two distinct rows. Every class has one at most.")
    parts = {name: [array[rows] for array in block] for name, block in parts.items()}
    with limited_threads(len(rows) * float(max(array.shape[1] for array in arrays)) ** 2):
        candidates = [
            candidate
            for name in parts
            for candidate in _screen_block(name, parts[name], numbers, weights, normalizations=normalizations)
        ]
        records = tuple(candidate.record for candidate in candidates)
        best = ScreenResult(records=records, learning_curve=()).best()
        winner = candidates[records.index(best)]
        features = concatenate_blocks(parts[best.block], balance=best.balance)
        curve = _learning_curve(winner, features, numbers, weights, rng)
    return ScreenResult(records=records, learning_curve=curve)


def _as_arrays(block: Floats | Sequence[Floats]) -> list[Floats]:
    return [block] if isinstance(block, np.ndarray) else [np.asarray(array) for array in block]


def choose_normalization(
    features: Floats, labels: NDArray[np.intp], *, weights: Floats, rng: np.random.Generator
) -> Normalization:
    """Return the normalisation to trust for features (n, d); with one row of each class there is nothing to go by."""
    enough = max(CHOICE_ROWS, CHOICE_ROWS_PER_CLASS * (int(labels.max()) + 1))
    rows, weights = distinct_rows([features], labels, weights, rng, limit=enough)
    if np.bincount(labels[rows]).max() < 2:
        return _candidates(features.shape[1])[0]
    candidates = _screen_block("", [features[rows]], labels[rows], weights)
    return _most_trusted(candidate.record for candidate in candidates).normalization


def distinct_rows(
    arrays: Sequence[Floats],
    labels: NDArray[np.intp],
    weights: Floats,
    rng: np.random.Generator,
    *,
    limit: int = MAX_ROWS,
) -> tuple[NDArray[np.intp], Floats]:
    """Return the rows to screen, at most ``limit``, and their weights.

    One row stands for all its copies, with the sum of their weights: a picture must not vouch for its own copy.
    """
    rows = np.flatnonzero(weights > 0)
    if max(array.shape[1] for array in arrays) > MAX_WIDE_ROWS:
        limit = min(limit, MAX_WIDE_ROWS)
    if len(rows) > limit:
        rows = rows[deal(labels[rows], -(-len(rows) // limit), rng) == 0]
    groups = duplicate_groups(np.concatenate([array[rows] for array in arrays], axis=1), labels[rows])
    _, first = np.unique(groups, return_index=True)
    return rows[first], np.bincount(groups, weights=weights[rows]).astype(float)


def _screen_block(
    name: str,
    arrays: Sequence[Floats],
    labels: NDArray[np.intp],
    weights: Floats,
    *,
    normalizations: Sequence[Normalization] | None = None,
) -> Iterator[_Candidate]:
    """Yield a candidate for each way to join and normalise the arrays of a block."""
    for balance in BALANCES if len(arrays) > 1 else BALANCES[:1]:
        features = concatenate_blocks(arrays, balance=balance)
        for kind in normalizations or _candidates(features.shape[1], joined=len(arrays) > 1):
            normalized = fit_normalizer(features, weights, kind).to_float32(features)
            gram = normalized @ normalized.T if len(normalized) < normalized.shape[1] else None
            if gram is None:
                left_out = leave_one_out(normalized, labels, weights=weights)
            else:
                left_out = leave_one_out_by_gram(gram, labels, weights=weights)
            record = _record(left_out, labels, weights, block=name, balance=balance, kind=kind)
            yield _Candidate(record=record, gram=gram)


def _candidates(n_features: int, *, joined: bool = False) -> tuple[Normalization, ...]:
    kinds = CANDIDATES if n_features > FEW_FEATURES else FEW_FEATURES_CANDIDATES
    # Joined rows all have the same norm already.
    return tuple(kind for kind in kinds if kind != "l2") if joined else kinds


def _record(
    left_out: Iterable[LeaveOneOut],
    labels: NDArray[np.intp],
    weights: Floats,
    *,
    block: str,
    balance: BlockBalance,
    kind: Normalization,
) -> ScreenRecord:
    """Return the record of the penalty with the least error."""
    scored = np.bincount(labels)[labels] > 1
    targets = np.eye(labels.max() + 1, dtype=np.float32)[labels]
    errors = ((loo, np.square(loo.predictions - targets).sum(axis=1)[scored]) for loo in left_out)
    loo, squared_errors = min(errors, key=lambda candidate: float(weights[scored] @ candidate[1]))
    return ScreenRecord(
        block=block,
        balance=balance,
        normalization=kind,
        penalty=loo.penalty,
        squared_errors=squared_errors,
        correct=(loo.predictions.argmax(axis=1) == labels)[scored],
        weights=weights[scored],
    )


def _most_trusted(records: Iterable[ScreenRecord]) -> ScreenRecord:
    """Return the first record, unless the best of them beats it by a standard error of the paired difference."""
    first, *others = records
    best = min([first, *others], key=lambda record: mean_and_se(record.squared_errors, record.weights)[0])
    gain, se = mean_and_se(first.squared_errors - best.squared_errors, first.weights)
    return best if gain > se else first


def _learning_curve(
    winner: _Candidate, features: Floats, labels: NDArray[np.intp], weights: Floats, rng: np.random.Generator
) -> tuple[LearningPoint, ...]:
    points = []
    for n_parts in CURVE_PARTS:
        dealt = deal(labels, n_parts, rng)
        parts = [np.flatnonzero(dealt == part) for part in range(n_parts)]
        if any(np.mean(np.bincount(labels[rows])[labels[rows]] > 1) < MIN_SCORED for rows in parts if len(rows)):
            continue
        records = [_record_part(winner, features, labels, weights, rows) for rows in parts]
        correct = np.concatenate([record.correct for record in records])
        accuracy, se = mean_and_se(correct, np.concatenate([record.weights for record in records]))
        points.append(LearningPoint(n_samples=round(len(labels) / n_parts), accuracy=accuracy, se=se))
    best = winner.record
    points.append(LearningPoint(n_samples=len(labels), accuracy=best.loo_accuracy, se=best.loo_accuracy_se))
    return tuple(points)


def _record_part(
    winner: _Candidate, features: Floats, labels: NDArray[np.intp], weights: Floats, rows: NDArray[np.intp]
) -> ScreenRecord:
    """Return the record of some rows, normalised by themselves."""
    best, labels, weights = winner.record, labels[rows], weights[rows]
    if winner.gram is not None and best.normalization != "standardize":
        # The centre of a part drops out by the free intercept, and its one scale by the unit of the penalties.
        left_out = leave_one_out_by_gram(winner.gram[np.ix_(rows, rows)], labels, weights=weights)
    else:
        # A scale for each feature makes other products of the rows in every part.
        normalized = fit_normalizer(features[rows], weights, best.normalization).to_float32(features[rows])
        left_out = leave_one_out(normalized, labels, weights=weights)
    return _record(left_out, labels, weights, block=best.block, balance=best.balance, kind=best.normalization)
