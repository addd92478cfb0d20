"""From labelled features to a fitted linear head: normalise, rotate, choose C on the folds, polish on all rows."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bottleneck.heads.approximate import choose_by_leaving_out
from bottleneck.heads.arrays import as_array, beside, cast, namespace, rows_at_once
from bottleneck.heads.folds import Folds, LeftOut
from bottleneck.heads.losses import Loss
from bottleneck.heads.normalize import Normalization, Normalizer, fit_normalizer, row_blocks
from bottleneck.heads.path import Path, scored_rows, typical_c, walk_path
from bottleneck.heads.polish import BLOCK_ROWS, ExactRows, polish
from bottleneck.heads.rotation import Rotation, rotate
from bottleneck.heads.solver import Problem, Solution, solve, zero_heads
from bottleneck.heads.training import TrainingSet

Floats = NDArray[np.floating[Any]]

PATH_TOL = 3e-3
"""Residual of the folds' heads, in float32: held-out log-losses are then within 0.002, and folds differ by more."""

SMALL, SMALL_TOL = 2**16, 1e-12
"""Products in a step up to which all heads are exact, in float64: it costs nothing."""

CONSTANT_VARIANCE = 1e-12
"""Variance in a fold, relative to that of all rows, below which a feature is constant there."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LinearFit:
    """A head that decides by ``coef @ rows(x) + intercept``, and how its C was found."""

    coef: NDArray[np.float64]
    """(n_outputs, n_features)"""
    intercept: NDArray[np.float64]
    """(n_outputs,)"""
    C: float
    path: Path | None
    """None: no row could be held out"""
    n_iter: int
    residual: float


def fit_linear(
    training: TrainingSet,
    folds: Folds | LeftOut,
    *,
    loss: Loss,
    kind: Normalization,
    Cs: Sequence[float] | None,
    calibrate: bool,
    tol: float,
    max_iter: int,
) -> LinearFit:
    """Choose C by the folds, or by leaving rows out, then fit the head of all rows to ``tol``."""
    features = training.features
    normalizer = fit_normalizer(features, beside(features, training.sample_weights), kind)
    exact = _is_small(training, folds)
    n_samples, n_features = features.shape
    # Wide features are few; their axes of small variance need float64 to be told from rounding errors.
    precise = exact or n_samples < n_features
    normalized = normalizer(features) if precise else normalizer.to_float32(features)
    spread = fold_spread(normalized, beside(features, _trained_on(folds) * training.sample_weights), kind)
    rotation = rotate(normalized)
    final = Problem(
        scores=rotation.scores,
        spectrum=rotation.spectrum,
        labels=beside(features, training.labels),
        weights=beside(features, training.weights[None]),
        penalty=beside(features, np.ones(1)),
        loss=loss,
        n_outputs=n_outputs(len(training.classes)),
    )
    rough = final if exact else in_float32(final)
    if isinstance(folds, LeftOut):
        path = choose_by_leaving_out(final, folds, Cs=Cs)
    else:
        path_tol = SMALL_TOL if exact else PATH_TOL
        penalty = fold_penalty(spread, rotation, rough.scores.dtype)
        path = choose_on_path(rough, folds, penalty, tol=path_tol, Cs=Cs, calibrate=calibrate)
    if path is None:
        C, start = untested_c(final, Cs), zero_heads(final)
    else:
        C, start = path.best.C, mean_heads(path.best.heads)
    if exact:
        head = solve(final, C=C, start=start, tol=min(tol, SMALL_TOL), max_iter=max_iter)
        coef, intercept, n_iter, residual = head.coef[0], head.intercept[0], head.n_iter, head.residual
    else:
        rows = _exact_rows(features, normalizer, rotation)
        polished = polish(rows, rough, C=C, start=start, tol=tol, max_iter=max_iter)
        coef, intercept, n_iter, residual = polished.coef, polished.intercept, polished.n_iter, polished.residual
    if exact or rotation.rows is not None:
        coef = rotation.to_features(coef)
    coef, intercept = normalizer.fold(coef, intercept)
    return LinearFit(
        coef=as_array(coef),
        intercept=as_array(intercept),
        C=C,
        path=None if path is None else path_on_host(path),
        n_iter=n_iter,
        residual=residual,
    )


def path_on_host(path: Path) -> Path:
    """Return the path with what the best heads decide as an array."""
    return replace(path, best=replace(path.best, decisions=as_array(path.best.decisions)))


def _exact_rows(features: Floats, normalizer: Normalizer, rotation: Rotation) -> ExactRows:
    """Return the scores where they are exact, and the normalised features where those were rounded."""
    if rotation.rows is not None:
        scores = rotation.scores
        return ExactRows(block=lambda rows: scores[rows], n_rows=len(scores), width=scores.shape[1], axes=None)
    return ExactRows(
        block=lambda rows: normalizer(features[rows]),
        n_rows=len(features),
        width=features.shape[1],
        axes=rotation.axes,
        n_rows_at_once=rows_at_once(features, width=features.shape[1], on_processor=BLOCK_ROWS),
    )


def n_outputs(n_classes: int) -> int:
    """Return how many decisions a head makes: as in scikit-learn, one for two classes, else one for each."""
    return 1 if n_classes == 2 else n_classes


def choose_on_path(
    final: Problem, folds: Folds, penalty: Floats, *, tol: float, Cs: Sequence[float] | None, calibrate: bool
) -> Path | None:
    """Walk the path of C with a head for each fold."""
    dtype = final.scores.dtype
    weights = final.weights * beside(final.weights, folds.train)
    problem = replace(final, weights=cast(weights, dtype), penalty=cast(penalty, dtype))
    if not scored_rows(problem, folds.held_out).any():
        return None
    return walk_path(problem, folds.held_out, weights=final.weights[0], tol=tol, Cs=Cs, calibrate=calibrate)


def _trained_on(folds: Folds | LeftOut) -> NDArray[np.bool_]:
    """Return the training rows of folds (n_folds, n): no row is enough alone to change what is fitted to features."""
    return folds.train if isinstance(folds, Folds) else np.empty((0, len(folds.units)), dtype=bool)


def _is_small(training: TrainingSet, folds: Folds | LeftOut) -> bool:
    n_samples, n_features = training.features.shape
    n_heads = n_outputs(len(training.classes)) * max(1, len(folds) if isinstance(folds, Folds) else 1)
    return bool(n_samples * min(n_samples, n_features) * n_heads <= SMALL)


def in_float32(problem: Problem) -> Problem:
    """Return the same problem in single precision, for the path."""
    single = namespace(problem.scores).float32
    return replace(
        problem,
        scores=cast(problem.scores, single),
        spectrum=cast(problem.spectrum, single),
        weights=cast(problem.weights, single),
        penalty=cast(problem.penalty, single),
    )


def untested_c(problem: Problem, Cs: Sequence[float] | None) -> float:
    """Return the C nearest to the typical one when no row can be held out to compare them."""
    typical = typical_c(problem)
    return typical if Cs is None else float(min(Cs, key=lambda C: abs(np.log(C / typical))))


def mean_heads(heads: Solution) -> Solution:
    """Return the mean of the heads of all folds, to start the final fit from."""
    double = namespace(heads.coef).float64
    return Solution(
        coef=heads.coef.mean(axis=0, keepdims=True, dtype=double),
        intercept=heads.intercept.mean(axis=0, keepdims=True, dtype=double),
    )


def fold_spread(normalized: Floats, weights: Floats, kind: Normalization) -> Floats:
    """Return the variance in each fold's training rows that the normalisation makes 1: (n_folds,) or (n_folds, d).

    Everything that is fitted to features is fitted inside the fold: a fold's own scale differs a little from that
    of all rows. Its own centre does not matter, because the intercept is free.
    """
    xp, n_folds = namespace(normalized), len(weights)
    if kind == "none":
        unscaled: Floats = beside(normalized, np.ones(n_folds))
        return unscaled
    share = weights / weights.sum(axis=1, keepdims=True)
    mean = xp.zeros((n_folds, normalized.shape[1]), dtype=xp.float64)
    square = xp.zeros((n_folds, normalized.shape[1] if kind == "standardize" else 1), dtype=xp.float64)
    for block in row_blocks(normalized):
        rows = cast(normalized[block], xp.float64)
        mean += share[:, block] @ rows
        squares = xp.square(rows) if kind == "standardize" else xp.einsum("nd,nd->n", rows, rows)[:, None]
        square += share[:, block] @ squares
    if kind == "standardize":
        variance = square - xp.square(mean)
    else:
        variance = (square[:, 0] - xp.square(mean).sum(axis=1)) / normalized.shape[1]
    spread: Floats = xp.where(variance > CONSTANT_VARIANCE, variance, 1)
    return spread


def fold_penalty(spread: Floats, rotation: Rotation, dtype: Any = None) -> Floats:
    """Return the penalties in rotated coordinates that amount to each fold's own scale.

    Coefficients v on features divided by D, the root of the spread, have the penalty v'v. They are w = v / D
    on ours, so that it is w'DDw. Of all w with the same w'x on the rows, that is those with the same z = basis'w,
    the cheapest costs z' (basis' D^-2 basis)^-1 z, which is z' basis' D^2 basis z if the basis is complete.
    """
    if spread.ndim == 1 or len(spread) == 0:
        return spread
    xp = namespace(spread)
    basis, roots = cast(rotation.basis, dtype or xp.float64), xp.sqrt(cast(spread, dtype or xp.float64))[:, :, None]
    if basis.shape[0] == basis.shape[1]:
        penalty: Floats = xp.stack([_gram(root * basis) for root in roots])
    else:
        penalty = xp.stack([xp.linalg.inv(_gram(basis / root)) for root in roots])
    return penalty


def _gram(columns: Floats) -> Floats:
    # A product with its own transpose takes half the time.
    gram: Floats = columns.T @ columns
    return gram
