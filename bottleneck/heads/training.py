"""Parses what users pass to ``fit``: features, labels and weights, with rows of no weight gone."""

from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.utils.class_weight import compute_class_weight
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import _check_sample_weight, check_random_state, column_or_1d, validate_data

from bottleneck.errors import InvalidInputError, did_you_mean, wrong_parameter
from bottleneck.heads.arrays import as_array, as_features, beside, is_tensor, on_host
from bottleneck.heads.blocks import is_blocks
from bottleneck.heads.devices import computing_on, load_features
from bottleneck.heads.folds import (
    CrossValidation,
    Folds,
    LeaveOneOut,
    LeftOut,
    check_cross_validation,
    deal_folds,
    follow_splits,
    leave_out_units,
)
from bottleneck.heads.normalize import NORMALIZATIONS
from bottleneck.workers import parse_n_jobs

Floats = NDArray[np.floating[Any]]
ClassWeight = dict[Any, float] | Literal["balanced"] | None


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingSet:
    """The rows to train on, every one with a positive sample weight."""

    features: Floats
    """(n, d); a tensor where torch solves the head"""
    labels: NDArray[np.intp]
    """(n,) positions in ``classes``"""
    classes: NDArray[Any]
    sample_weights: NDArray[np.float64]
    """(n,)"""
    weights: NDArray[np.float64]
    """(n,) sample weights times class weights"""
    rows: NDArray[np.intp]
    """(n,) positions of these rows in what the user passed"""
    targets: NDArray[Any]
    """what the user passed as y, rows without weight included"""
    groups: NDArray[np.intp] | None = None
    """(len(targets),) numbers of what the user passed as groups"""

    @property
    def row_groups(self) -> NDArray[np.intp] | None:
        """The groups of these rows (n,)."""
        return None if self.groups is None else self.groups[self.rows]

    @property
    def flops(self) -> float:
        """Size of the matrix product in one step on the path of C, with five folds."""
        n_samples, n_features = self.features.shape
        return float(10 * n_samples * min(n_samples, n_features) * len(self.classes))


@dataclass(frozen=True, kw_only=True, slots=True)
class StreamedLabels:
    """The rows of a streamed fit, without their features."""

    labels: NDArray[np.intp]
    """(n,) positions in ``classes``; 0 for rows of no weight"""
    classes: NDArray[Any]
    sample_weights: NDArray[np.float64]
    """(n,)"""
    weights: NDArray[np.float64]
    """(n,) sample weights times class weights"""
    groups: NDArray[np.intp] | None

    @property
    def rows(self) -> NDArray[np.intp]:
        """Positions of the rows that have a weight."""
        return np.flatnonzero(self.sample_weights > 0)


def parse_training_set(
    head: BaseEstimator,
    X: Any,
    y: Any,
    *,
    sample_weight: Any,
    class_weight: Any,
    groups: Any = None,
    device: Any = None,
) -> TrainingSet:
    """Check what was passed to ``fit`` and take rows of no weight out; the features go to a torch device, if any.

    Raises
    ------
    InvalidInputError
        Fewer than two classes are left.
    ValueError
        From scikit-learn's checks: lengths that differ, missing values, targets that are no classes, ...
    """
    if device is None:
        X, y = validate_data(head, as_features(X), as_array(y), dtype=[np.float64, np.float32])
    else:
        X, y = _load_on_device(head, X, as_array(y), device)
    check_classification_targets(y)
    given = _check_sample_weight(as_array(sample_weight), y, dtype=np.float64, ensure_non_negative=True)
    rows = np.flatnonzero(given > 0)
    classes, labels = np.unique(y[rows], return_inverse=True)
    check_class_count(head, classes)
    of_class = compute_class_weight(class_weight, classes=classes, y=y[rows], sample_weight=given[rows])
    return TrainingSet(
        features=X[beside(X, rows)] if len(rows) < len(X) else X,
        labels=labels,
        classes=classes,
        sample_weights=given[rows],
        weights=given[rows] * of_class[labels],
        rows=rows,
        targets=y,
        groups=parse_groups(groups, len(y)),
    )


def _load_on_device(head: BaseEstimator, X: Any, y: Any, device: Any) -> tuple[Any, NDArray[Any]]:
    half = isinstance(X, np.ndarray) and X.dtype == np.float16 and X.ndim == 2
    if half or is_tensor(X) or is_blocks(X):  # checked on the way: as arrays they may be too large
        y = validate_data(head, y=y)
    else:
        X, y = validate_data(head, X, y, dtype=[np.float64, np.float32])
    owner = type(head).__name__
    with computing_on(device, owner=owner):
        features = load_features(X, device, memory_limit=head.memory_limit, owner=owner)
    if len(features) != len(y):
        raise InvalidInputError(f"Every row needs a label. There are {len(features)} rows, but {len(y)} labels.")
    head.n_features_in_ = features.shape[1]
    return features, y


def parse_labels(
    head: BaseEstimator, y: Any, *, n_samples: int, sample_weight: Any, class_weight: Any, groups: Any
) -> StreamedLabels:
    """Check what was passed to ``fit`` beside features in blocks; see :func:`parse_training_set`."""
    targets = column_or_1d(as_array(y), warn=True)
    if len(targets) != n_samples:
        raise InvalidInputError(f"Every row needs a label. There are {n_samples} rows, but {len(targets)} labels.")
    check_classification_targets(targets)
    given = _check_sample_weight(as_array(sample_weight), targets, dtype=np.float64, ensure_non_negative=True)
    rows = np.flatnonzero(given > 0)
    classes, known = np.unique(targets[rows], return_inverse=True)
    check_class_count(head, classes)
    of_class = compute_class_weight(class_weight, classes=classes, y=targets[rows], sample_weight=given[rows])
    labels = np.zeros(n_samples, dtype=np.intp)
    labels[rows] = known
    return StreamedLabels(
        labels=labels,
        classes=classes,
        sample_weights=given,
        weights=given * of_class[labels],
        groups=parse_groups(groups, n_samples),
    )


def check_class_count(head: BaseEstimator, classes: NDArray[Any]) -> None:
    """Refuse to tell one class apart."""
    if len(classes) < 2:
        raise InvalidInputError(
            f"{type(head).__name__} needs at least two classes to tell apart. The labels have one class: {classes[0]}."
        )


def number_of_folds(cv: CrossValidation | LeaveOneOut, *, owner: str) -> int:
    """Return ``cv`` if it is a number, which is all that features in blocks can be split by."""
    if isinstance(cv, int | np.integer):
        return int(cv)
    raise wrong_parameter(owner, "cv", "a number of folds for features that do not fit in memory", cv)


def parse_groups(groups: Any, n_samples: int) -> NDArray[np.intp] | None:
    """Number the groups that the user passed, one for each row.

    Raises
    ------
    InvalidInputError
        They are not one value for each row.
    """
    if groups is None:
        return None
    given = column_or_1d(as_array(groups))
    if len(given) != n_samples:
        raise InvalidInputError(f"Every row needs a group. There are {n_samples} rows, but {len(given)} groups.")
    numbers: NDArray[np.intp] = np.unique(given, return_inverse=True)[1]
    return numbers


def hold_out(cv: CrossValidation | LeaveOneOut, training: TrainingSet, rng: np.random.Generator) -> Folds | LeftOut:
    """Leave one row out after the other, with all that belongs to it, for "loo"; else make folds."""
    if isinstance(cv, str):
        return leave_out_units(on_host(training.features), training.labels, groups=training.row_groups)
    return make_folds(cv, training, rng)


def make_folds(cv: CrossValidation, training: TrainingSet, rng: np.random.Generator) -> Folds:
    """Deal the rows to ``cv`` folds, or follow the splits given for all rows that the user passed."""
    if isinstance(cv, int | np.integer):
        return deal_folds(int(cv), on_host(training.features), training.labels, rng, groups=training.row_groups)
    folds = follow_splits(cv, training.targets, groups=training.groups)
    if not folds.train[:, training.rows].any(axis=1).all():
        raise InvalidInputError("A split of 'cv' has no training rows with a positive weight.")
    return Folds(train=folds.train[:, training.rows], held_out=folds.held_out[:, training.rows])


class Settings(Protocol):
    """What all heads are constructed with."""

    Cs: Any
    cv: Any
    normalize: Any
    max_iter: Any
    tol: Any
    memory_limit: Any
    n_jobs: Any


def check_settings(head: Settings, *, leaves_out: bool = False) -> None:
    """Refuse settings that no head can have; ``leaves_out`` says whether ``cv`` may be "loo"."""
    owner = type(head).__name__
    if not (isinstance(head.Cs, str) and head.Cs == "auto") and not _are_positive(head.Cs):
        raise wrong_parameter(owner, "Cs", "'auto' or a list of positive numbers", head.Cs)
    allowed = ("auto", *NORMALIZATIONS)
    if head.normalize not in allowed:
        hint = did_you_mean(str(head.normalize), allowed)
        raise wrong_parameter(owner, "normalize", "one of " + ", ".join(map(repr, allowed)), head.normalize, hint)
    check_cross_validation(head.cv, owner=owner, leaves_out=leaves_out)
    if not isinstance(head.max_iter, int | np.integer) or head.max_iter < 1:
        raise wrong_parameter(owner, "max_iter", "an integer of at least 1", head.max_iter)
    if not isinstance(head.tol, float | int | np.floating) or not head.tol > 0:
        raise wrong_parameter(owner, "tol", "a positive number", head.tol)
    limit = head.memory_limit
    if limit != "auto" and (isinstance(limit, str) or not isinstance(limit, float | int | np.number) or not limit >= 0):
        raise wrong_parameter(owner, "memory_limit", "'auto' or a number of bytes", limit)
    parse_n_jobs(head.n_jobs, owner=owner)


def _are_positive(values: object) -> bool:
    array = np.asarray(values)
    return array.ndim == 1 and array.size > 0 and array.dtype.kind in "iuf" and bool(np.all(array > 0))


def make_generator(random_state: int | np.random.RandomState | None) -> np.random.Generator:
    """Return a generator that scikit-learn's kinds of ``random_state`` seed."""
    return np.random.default_rng(check_random_state(random_state).randint(2**31))
