"""One head for each label of rows that may have several, with normalisation and principal axes in common."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse
from numpy.typing import NDArray
from scipy.special import log_expit
from sklearn.base import BaseEstimator
from sklearn.utils.multiclass import type_of_target
from sklearn.utils.validation import _check_sample_weight, validate_data

from bottleneck.errors import InvalidInputError, wrong_parameter
from bottleneck.heads.arrays import as_array, as_features
from bottleneck.heads.blocks import BYTES_PER_NUMBER, FeatureBlocks
from bottleneck.heads.choice import COMPARED_TOL, trusted_order
from bottleneck.heads.duplicates import cut, group_copies, mark_rows
from bottleneck.heads.evidence import mean_and_se
from bottleneck.heads.folds import CrossValidation, Folds, LeaveOneOut, deal_evenly, follow_splits, join_groups
from bottleneck.heads.linear import (
    PATH_TOL,
    choose_on_path,
    fold_penalty,
    fold_spread,
    in_float32,
    mean_heads,
    untested_c,
)
from bottleneck.heads.losses import SIGMOID
from bottleneck.heads.normalize import Normalization, Normalizer, fit_normalizer
from bottleneck.heads.ridge import PENALTIES
from bottleneck.heads.rotation import Rotation, rotate
from bottleneck.heads.screen import MAX_WIDE_ROWS
from bottleneck.heads.solver import Problem, solve, zero_heads
from bottleneck.heads.training import parse_groups

Floats = NDArray[np.floating[Any]]


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelledRows:
    """Rows with any number of labels, every one with a positive sample weight."""

    features: Floats
    """(n, d)"""
    labels: NDArray[np.bool_]
    """(n, n_labels)"""
    sample_weights: NDArray[np.float64]
    """(n,)"""
    weights: NDArray[np.float64]
    """(n_labels, n) sample weights times those of having and lacking a label"""
    rows: NDArray[np.intp]
    """(n,) positions of these rows in what the user passed"""
    targets: NDArray[Any]
    """(n_given, n_labels) what the user passed"""
    groups: NDArray[np.intp] | None
    """(n_given,)"""

    def groups_of(self, chosen: NDArray[np.bool_]) -> NDArray[np.intp] | None:
        """Return the groups of some of these rows, if there are groups."""
        return None if self.groups is None else self.groups[self.rows[chosen]]


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelFit:
    """The head of one label, and what was tried for it: one NaN if nothing could be held out."""

    coef: NDArray[np.float64]
    """(n_features,)"""
    intercept: float
    C: float
    Cs: NDArray[np.float64]
    log_losses: NDArray[np.float64]
    held_out: NDArray[np.float64]
    """(n,) logits, NaN where no fold holds the row out"""
    n_iter: int
    residual: float


def is_multilabel(y: Any) -> bool:
    """Say whether ``y`` is a matrix (n_samples, n_labels) of zeros and ones."""
    given = as_array(y)
    nested = isinstance(given, list | tuple) and len(given) > 0 and isinstance(given[0], list | tuple | np.ndarray)
    two_dimensional = nested or getattr(given, "ndim", 1) == 2
    return two_dimensional and type_of_target(given) == "multilabel-indicator"


def parse_labelled_rows(
    head: BaseEstimator, X: Any, y: Any, *, sample_weight: Any, class_weight: Any, groups: Any
) -> LabelledRows:
    """Check what was passed to ``fit`` and take rows of no weight out.

    Raises
    ------
    InvalidInputError
        Weights of classes that are not the same for every label.
    ValueError
        From scikit-learn's checks.
    """
    given_y = as_array(y)
    dense = given_y.toarray() if scipy.sparse.issparse(given_y) else given_y
    X, targets = validate_data(head, as_features(X), dense, dtype=[np.float64, np.float32], multi_output=True)
    given = _check_sample_weight(as_array(sample_weight), X, dtype=np.float64, ensure_non_negative=True)
    rows = np.flatnonzero(given > 0)
    labels = np.asarray(targets)[rows] != 0
    if class_weight not in (None, "balanced"):
        allowed = "'balanced' or None for rows with several labels"
        raise wrong_parameter(type(head).__name__, "class_weight", allowed, class_weight)
    weights = np.tile(given[rows], (labels.shape[1], 1))
    if class_weight == "balanced":
        for label, has in enumerate(labels.T):
            of_side = np.array([weights[label, ~has].sum(), weights[label, has].sum()])
            weights[label] *= (weights[label].sum() / (2 * np.maximum(of_side, np.finfo(float).tiny)))[has.astype(int)]
    return LabelledRows(
        features=X[rows],
        labels=labels,
        sample_weights=given[rows],
        weights=weights,
        rows=rows,
        targets=targets,
        groups=parse_groups(groups, len(X)),
    )


def fold_labelled_rows(cv: CrossValidation | LeaveOneOut, given: LabelledRows, rng: np.random.Generator) -> Folds:
    """Deal rows so that each fold has its share of every label; copies and groups stay together."""
    if isinstance(cv, str):
        raise InvalidInputError("Rows are left out ('loo') where each has one class. Pass a number of folds as 'cv'.")
    if not isinstance(cv, int | np.integer):
        folds = follow_splits(cv, given.targets, groups=given.groups)
        return Folds(train=folds.train[:, given.rows], held_out=folds.held_out[:, given.rows])
    units = _copies(given)
    units = units if given.groups is None else join_groups(units, given.groups[given.rows])
    sides = np.concatenate([given.labels, ~given.labels], axis=1).astype(np.intp)
    members = np.zeros((int(units.max()) + 1, sides.shape[1]), dtype=np.intp)
    np.add.at(members, units, sides)
    # What has only one unit for it, or against it, must not be without that in training.
    precious = (members[:, (members > 0).sum(axis=0) == 1] > 0).any(axis=1)
    n_folds = min(int(cv), int((~precious).sum()))
    n_folds = 0 if n_folds < 2 else n_folds
    parts = np.full(len(members), -1)
    if n_folds:
        parts[~precious] = deal_evenly(members[~precious], n_folds, rng)
    held_out = parts[units] == np.arange(n_folds)[:, None]
    return Folds(train=~held_out, held_out=held_out)


def choose_shared_kind(given: LabelledRows, folds: Folds, rng: np.random.Generator) -> Normalization:
    """Return the first candidate, unless another has the smaller error by a standard error.

    The errors are those of closed-form leave-one-out, and held-out log-losses where there are groups, because each row
    would be vouched for by others of its group.
    """
    candidates = trusted_order(given.features.shape[1])
    if given.groups is not None:
        return _choose_by_groups(given, folds, candidates)
    _, first = np.unique(_copies(given), return_index=True)
    rows = rng.permutation(first)[:MAX_WIDE_ROWS]
    if len(rows) < 3:
        return candidates[0]
    errors = [_leave_one_out_errors(given, rows, kind) for kind in candidates]
    return _most_trusted(candidates, errors, given.sample_weights[rows], None)


def _choose_by_groups(given: LabelledRows, folds: Folds, candidates: Sequence[Normalization]) -> Normalization:
    """Choose by the log-loss of held-out rows, on average over the labels that they are held out for."""
    errors = []
    scored = np.zeros(len(given.rows), dtype=bool)
    for kind in candidates:
        heads = fit_labels(given, folds, kind=kind, Cs=None, tol=COMPARED_TOL, max_iter=1)
        logits = np.stack([head.held_out for head in heads], axis=1)
        scored = np.asarray(~np.isnan(logits).all(axis=1))
        if not scored.any():
            return candidates[0]
        errors.append(held_out_losses(logits[scored], given.labels[scored]))
    return _most_trusted(candidates, errors, given.sample_weights[scored], given.groups_of(scored))


def held_out_losses(logits: NDArray[np.float64], labels: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return each row's log-loss (n,), on average over the labels (n, n_labels) that it has a logit for."""
    losses: NDArray[np.float64] = np.nanmean(-log_expit(np.where(labels, logits, -logits)), axis=1)
    return losses


def _most_trusted(
    candidates: Sequence[Normalization],
    errors: Sequence[NDArray[np.float64]],
    weights: NDArray[np.float64],
    groups: NDArray[np.intp] | None,
) -> Normalization:
    best = int(np.argmin([weights @ error for error in errors]))
    gain, se = mean_and_se(errors[0] - errors[best], weights, groups)
    return candidates[best] if gain > se else candidates[0]


def fit_labels(
    given: LabelledRows,
    folds: Folds,
    *,
    kind: Normalization,
    Cs: Sequence[float] | None,
    tol: float,
    max_iter: int,
) -> tuple[LabelFit, ...]:
    """Normalise and rotate once, then choose C and fit logistic regression for each label."""
    normalizer = fit_normalizer(given.features, given.sample_weights, kind)
    normalized = normalizer(given.features)
    spread = fold_spread(normalized, folds.train * given.sample_weights, kind)
    rotation = rotate(normalized)
    penalty = fold_penalty(spread, rotation)
    return tuple(
        _fit_label(
            given,
            label,
            folds,
            normalizer=normalizer,
            rotation=rotation,
            penalty=penalty,
            Cs=Cs,
            tol=tol,
            max_iter=max_iter,
        )
        for label in range(given.labels.shape[1])
    )


def _fit_label(
    given: LabelledRows,
    label: int,
    folds: Folds,
    *,
    normalizer: Normalizer,
    rotation: Rotation,
    penalty: Floats,
    Cs: Sequence[float] | None,
    tol: float,
    max_iter: int,
) -> LabelFit:
    has, weights = given.labels[:, label].astype(np.intp), given.weights[label]
    if np.ptp(has) == 0:
        return _constant(has, given.features.shape[1])
    final = Problem(
        scores=rotation.scores,
        spectrum=rotation.spectrum,
        labels=has,
        weights=weights[None],
        penalty=np.ones(1),
        loss=SIGMOID,
        n_outputs=1,
    )
    path = choose_on_path(in_float32(final), folds, penalty, tol=PATH_TOL, Cs=Cs, calibrate=False)
    C, start = (
        (untested_c(final, Cs), zero_heads(final)) if path is None else (path.best.C, mean_heads(path.best.heads))
    )
    head = solve(final, C=C, start=start, tol=tol, max_iter=max_iter)
    coef, intercept = normalizer.fold(rotation.to_features(head.coef[0]), head.intercept[0])
    return LabelFit(
        coef=coef[0],
        intercept=float(intercept[0]),
        C=C,
        Cs=np.array([C]) if path is None else path.Cs,
        log_losses=np.array([np.nan]) if path is None else path.log_losses,
        held_out=np.full(len(has), np.nan) if path is None else path.best.decisions[:, 0].astype(float),
        n_iter=head.n_iter,
        residual=head.residual,
    )


def _constant(has: NDArray[np.intp], n_features: int) -> LabelFit:
    """Return the head of a label that every row has, or none: as likely as with one row more of either kind."""
    odds = float(np.log((has.sum() + 1) / (len(has) - has.sum() + 1)))
    nothing = np.array([np.nan])
    return LabelFit(
        coef=np.zeros(n_features),
        intercept=odds,
        C=np.nan,
        Cs=nothing,
        log_losses=nothing,
        held_out=np.full(len(has), np.nan),
        n_iter=0,
        residual=0.0,
    )


def _copies(given: LabelledRows) -> NDArray[np.intp]:
    label_sets = np.unique(given.labels, axis=0, return_inverse=True)[1].reshape(-1)
    features = given.features
    marks = mark_rows(cut(features), n_samples=len(features), n_features=features.shape[1])
    return group_copies(marks, label_sets)


def _leave_one_out_errors(given: LabelledRows, rows: NDArray[np.intp], kind: Normalization) -> NDArray[np.float64]:
    """Return the squared errors (n_rows,) over all labels of ridge regression without the row, at its best penalty."""
    weights = given.sample_weights[rows]
    features = fit_normalizer(given.features[rows], weights, kind)(given.features[rows])
    root, share = np.sqrt(weights)[:, None], weights / weights.sum()
    targets = given.labels[rows].astype(float)
    rotation = rotate(root * (features - share @ features))
    centred = root * (targets - share @ targets)
    projected, squares = rotation.scores.T @ centred, np.square(rotation.scores)
    unit = rotation.spectrum.mean() or 1.0
    found = []
    for penalty in PENALTIES * unit:
        shrink = 1 / (rotation.spectrum + penalty)
        left = np.maximum(1 - share - squares @ shrink, np.finfo(np.float32).eps)
        residuals = (centred - rotation.scores @ (shrink[:, None] * projected)) / (root * left[:, None])
        found.append(np.square(residuals).sum(axis=1))
    best: NDArray[np.float64] = min(found, key=lambda errors: float(share @ errors))
    return best


def too_large_for_labels(blocks: FeatureBlocks, *, owner: str) -> InvalidInputError:
    """Return the error that features in blocks are too many for memory, which only one label at a time can do with."""
    needed = BYTES_PER_NUMBER * blocks.n_samples * blocks.n_features / 2**30
    return InvalidInputError(
        f"{owner} fits several labels a row in memory only: {blocks.n_samples} rows of {blocks.n_features} features "
        f"need about {needed:.1f} GiB, more than its memory_limit. Fit a head to each column of y, which can be done "
        "from disk, or raise memory_limit."
    )


def check_single_label(multilabel: bool, what: str) -> None:
    """Refuse what makes sense for one class a row only."""
    if multilabel:
        raise InvalidInputError(f"{what} needs rows of one class each. This head was fitted to several labels a row.")
