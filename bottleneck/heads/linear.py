"""From labelled features to a fitted linear head: normalise, rotate, choose C on the folds, polish on all rows."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bottleneck.heads.folds import Folds
from bottleneck.heads.losses import Loss
from bottleneck.heads.normalize import Normalization, fit_normalizer
from bottleneck.heads.path import Path, scored_rows, typical_c, walk_path
from bottleneck.heads.rotation import Rotation, rotate
from bottleneck.heads.solver import Problem, Solution, solve, zero_heads
from bottleneck.heads.training import TrainingSet

Floats = NDArray[np.floating[Any]]

PATH_TOL = 1e-3
"""Residual of the folds' heads, in float32: held-out log-losses are then within 0.001, and folds differ by more."""

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
    folds: Folds,
    *,
    loss: Loss,
    kind: Normalization,
    Cs: Sequence[float] | None,
    calibrate: bool,
    tol: float,
    max_iter: int,
) -> LinearFit:
    """Choose C by the folds, then fit the head of all rows to ``tol``."""
    normalizer = fit_normalizer(training.features, training.sample_weights, kind)
    normalized = normalizer(training.features)
    spread = _fold_spread(normalized, folds.train * training.sample_weights, kind)
    rotation = rotate(normalized)
    final = Problem(
        scores=rotation.scores,
        spectrum=rotation.spectrum,
        labels=training.labels,
        weights=training.weights[None],
        penalty=np.ones(1),
        loss=loss,
        n_outputs=n_outputs(len(training.classes)),
    )
    if _is_small(final, folds):
        tol = min(tol, SMALL_TOL)
    path = _choose(final, folds, _fold_penalty(spread, rotation), Cs=Cs, calibrate=calibrate)
    if path is None:
        C, start = _untested_c(final, Cs), zero_heads(final)
    else:
        C, start = path.best.C, _mean(path.best.heads)
    head = solve(final, C=C, start=start, tol=tol, max_iter=max_iter)
    coef, intercept = normalizer.fold(rotation.to_features(head.coef[0]), head.intercept[0])
    return LinearFit(coef=coef, intercept=intercept, C=C, path=path, n_iter=head.n_iter, residual=head.residual)


def n_outputs(n_classes: int) -> int:
    """Return how many decisions a head makes: as in scikit-learn, one for two classes, else one for each."""
    return 1 if n_classes == 2 else n_classes


def _choose(
    final: Problem, folds: Folds, penalty: Floats, *, Cs: Sequence[float] | None, calibrate: bool
) -> Path | None:
    """Walk the path of C with a head for each fold."""
    dtype, tol = (np.float64, SMALL_TOL) if _is_small(final, folds) else (np.float32, PATH_TOL)
    problem = replace(
        final,
        scores=final.scores.astype(dtype),
        weights=(final.weights * folds.train).astype(dtype),
        penalty=penalty.astype(dtype),
    )
    if not scored_rows(problem, folds.held_out).any():
        return None
    return walk_path(problem, folds.held_out, weights=final.weights[0], tol=tol, Cs=Cs, calibrate=calibrate)


def _is_small(problem: Problem, folds: Folds) -> bool:
    return problem.scores.size * problem.n_outputs * max(1, len(folds)) <= SMALL


def _untested_c(problem: Problem, Cs: Sequence[float] | None) -> float:
    """Return the C nearest to the typical one when no row can be held out to compare them."""
    typical = typical_c(problem)
    return typical if Cs is None else float(min(Cs, key=lambda C: abs(np.log(C / typical))))


def _mean(heads: Solution) -> Solution:
    return Solution(
        coef=heads.coef.mean(axis=0, keepdims=True, dtype=float),
        intercept=heads.intercept.mean(axis=0, keepdims=True, dtype=float),
    )


def _fold_spread(normalized: Floats, weights: Floats, kind: Normalization) -> Floats:
    """Return the variance in each fold's training rows that the normalisation makes 1: (n_folds,) or (n_folds, d).

    Everything that is fitted to features is fitted inside the fold: a fold's own scale differs a little from that
    of all rows. Its own centre does not matter, because the intercept is free.
    """
    if kind == "none":
        return np.ones(len(weights))
    share = weights / weights.sum(axis=1, keepdims=True)
    variance = share @ np.square(normalized) - np.square(share @ normalized)
    if kind != "standardize":
        variance = variance.mean(axis=1)
    return np.where(variance > CONSTANT_VARIANCE, variance, 1)


def _fold_penalty(spread: Floats, rotation: Rotation) -> Floats:
    """Return the penalties in rotated coordinates that amount to each fold's own scale.

    Coefficients v on features divided by D, the root of the spread, have the penalty v'v. They are w = v / D
    on ours, so that it is w'DDw. Of all w with the same w'x on the rows, that is those with the same z = basis'w,
    the cheapest costs z' (basis' D^-2 basis)^-1 z, which is z' basis' D^2 basis z if the basis is complete.
    """
    if spread.ndim == 1:
        return spread
    basis = rotation.basis
    if basis.shape[0] == basis.shape[1]:
        return np.array([(basis.T * fold) @ basis for fold in spread])
    return np.array([np.linalg.inv((basis.T / fold) @ basis) for fold in spread])
