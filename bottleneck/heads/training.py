"""Parses what users pass to ``fit``: features, labels and weights, with rows of no weight gone."""

from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.utils.class_weight import compute_class_weight
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import _check_sample_weight, check_random_state, validate_data

from bottleneck.errors import InvalidInputError, did_you_mean, wrong_parameter
from bottleneck.heads.folds import CrossValidation, Folds, check_cross_validation, deal_folds, follow_splits
from bottleneck.heads.normalize import NORMALIZATIONS

Floats = NDArray[np.floating[Any]]
ClassWeight = dict[Any, float] | Literal["balanced"] | None


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingSet:
    """The rows to train on, every one with a positive sample weight."""

    features: Floats
    """(n, d)"""
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

    @property
    def flops(self) -> float:
        """Size of the matrix product in one step on the path of C, with five folds."""
        n_samples, n_features = self.features.shape
        return float(10 * n_samples * min(n_samples, n_features) * len(self.classes))


def parse_training_set(head: BaseEstimator, X: Any, y: Any, *, sample_weight: Any, class_weight: Any) -> TrainingSet:
    """Check what was passed to ``fit`` and take rows of no weight out.

    Raises
    ------
    InvalidInputError
        Fewer than two classes are left.
    ValueError
        From scikit-learn's checks: lengths that differ, missing values, targets that are no classes, ...
    """
    X, y = validate_data(head, X, y, dtype=[np.float64, np.float32])
    check_classification_targets(y)
    given = _check_sample_weight(sample_weight, X, dtype=np.float64, ensure_non_negative=True)
    rows = np.flatnonzero(given > 0)
    classes, labels = np.unique(y[rows], return_inverse=True)
    if len(classes) < 2:
        raise InvalidInputError(
            f"{type(head).__name__} needs at least two classes to tell apart. The labels have one class: {classes[0]}."
        )
    of_class = compute_class_weight(class_weight, classes=classes, y=y[rows], sample_weight=given[rows])
    return TrainingSet(
        features=X[rows] if len(rows) < len(X) else X,
        labels=labels,
        classes=classes,
        sample_weights=given[rows],
        weights=given[rows] * of_class[labels],
        rows=rows,
        targets=y,
    )


def make_folds(cv: CrossValidation, training: TrainingSet, rng: np.random.Generator) -> Folds:
    """Deal the rows to ``cv`` folds, or follow the splits given for all rows that the user passed."""
    if isinstance(cv, int | np.integer):
        return deal_folds(int(cv), training.features, training.labels, rng)
    folds = follow_splits(cv, training.targets)
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


def check_settings(head: Settings) -> None:
    """Refuse settings that no head can have."""
    owner = type(head).__name__
    if not (isinstance(head.Cs, str) and head.Cs == "auto") and not _are_positive(head.Cs):
        raise wrong_parameter(owner, "Cs", "'auto' or a list of positive numbers", head.Cs)
    allowed = ("auto", *NORMALIZATIONS)
    if head.normalize not in allowed:
        hint = did_you_mean(str(head.normalize), allowed)
        raise wrong_parameter(owner, "normalize", "one of " + ", ".join(map(repr, allowed)), head.normalize, hint)
    check_cross_validation(head.cv, owner=owner)
    if not isinstance(head.max_iter, int | np.integer) or head.max_iter < 1:
        raise wrong_parameter(owner, "max_iter", "an integer of at least 1", head.max_iter)
    if not isinstance(head.tol, float | int | np.floating) or not head.tol > 0:
        raise wrong_parameter(owner, "tol", "a positive number", head.tol)


def _are_positive(values: object) -> bool:
    array = np.asarray(values)
    return array.ndim == 1 and array.size > 0 and array.dtype.kind in "iuf" and bool(np.all(array > 0))


def make_generator(random_state: int | np.random.RandomState | None) -> np.random.Generator:
    """Return a generator that scikit-learn's kinds of ``random_state`` seed."""
    return np.random.default_rng(check_random_state(random_state).randint(2**31))
