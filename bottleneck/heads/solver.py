"""Fits several L2-penalised linear heads at once, one per fold, by preconditioned L-BFGS.

The heads share their features, so that one matrix product serves all folds, and what is held out by a fold simply has
no weight in it. In the axes of :mod:`rotation` the Hessian is close to ``curvature * spectrum + 1 / C`` on its
diagonal (the bound of Böhning 1992 with the actual mean of p (1 - p) in place of 1/2). Dividing by its root makes
problems with condition numbers of a million round enough for a few dozen steps, and makes the gradient comparable
between problems: half its square is about the distance to the minimum.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bottleneck.heads.arrays import cast, namespace, rows_at_once, turned
from bottleneck.heads.lbfgs import minimize_together
from bottleneck.heads.losses import Loss

Floats = NDArray[np.floating[Any]]

BLOCK_ELEMENTS = 2**19
"""Logits held at once, which bounds memory; larger blocks are no faster."""

CURVATURE_FLOOR = 1e-4
"""Share of a row's weight: separable classes have curvatures of zero."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Problem:
    """Minimise ``sum_i weights_i loss_i + coef penalty coef / (2 C)`` for every head; intercepts are not penalised."""

    scores: Floats
    """(n, r) features in their principal axes; their type is the precision of the arithmetic"""
    spectrum: Floats
    """(r,) sums of squares of the columns"""
    labels: NDArray[np.intp]
    """(n,)"""
    weights: Floats
    """(n_heads, n)"""
    penalty: Floats
    """(n_heads,) multiples of the identity, or (n_heads, r, r) quadratic forms"""
    loss: Loss
    n_outputs: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Solution:
    """Coefficients (n_heads, n_outputs, r), intercepts (n_heads, n_outputs), and how the search for them ended."""

    coef: Floats
    intercept: Floats
    n_iter: int = 0
    residual: float = 0.0
    """largest entry of the preconditioned gradient over the root of the total weight"""


def solve(
    problem: Problem, *, C: float, start: Solution, tol: float, max_iter: int, before: Solution | None = None
) -> Solution:
    """Minimise from ``start`` until the residual of every head is below ``tol``.

    If ``start`` came next after ``before`` on a path of C, the search sets out from where the path leads.
    """
    xp = namespace(problem.scores)
    dtype = problem.scores.dtype
    n_rank = problem.scores.shape[1]
    scale = _preconditioner(problem, start, C)
    root_weight = xp.sqrt(problem.weights.sum(axis=1, dtype=xp.float64))

    def objective(points: Floats) -> tuple[NDArray[np.float64], Floats]:
        scaled = points.reshape(scale.shape) * scale
        values, gradients = _values_and_gradients(problem, scaled[..., :n_rank], scaled[..., n_rank], C)
        gradients *= scale
        return values, gradients.reshape(points.shape)

    stacked = _stacked(start) if before is None else 2 * _stacked(start) - _stacked(before)
    found = minimize_together(
        objective,
        cast(stacked / scale, dtype).reshape(len(scale), -1),
        tol=tol * root_weight,
        max_iter=max_iter,
    )
    stacked = found.points.reshape(scale.shape) * scale
    return Solution(
        coef=stacked[..., :n_rank],
        intercept=stacked[..., n_rank],
        n_iter=found.n_iter,
        residual=float((found.residuals / root_weight).max()),
    )


def zero_heads(problem: Problem) -> Solution:
    """Return heads that decide nothing."""
    shape = (len(problem.weights), problem.n_outputs)
    xp, dtype = namespace(problem.scores), problem.scores.dtype
    return Solution(
        coef=xp.zeros((*shape, problem.scores.shape[1]), dtype=dtype), intercept=xp.zeros(shape, dtype=dtype)
    )


def _stacked(heads: Solution) -> Floats:
    stacked: Floats = namespace(heads.coef).concatenate([heads.coef, heads.intercept[..., None]], axis=2)
    return stacked


def compute_logits(problem: Problem, solution: Solution, rows: slice = slice(None)) -> Floats:
    """Return the logits (n_heads, n_outputs, n) of these rows."""
    dtype = problem.scores.dtype
    return _logits(problem.scores[rows], cast(solution.coef, dtype), cast(solution.intercept, dtype))


def _logits(scores: Floats, coef: Floats, intercept: Floats) -> Floats:
    n_heads, n_outputs, n_rank = coef.shape
    # Rows first and then turned over: a third faster than the few rows of coef times many columns.
    logits: Floats = turned(scores @ coef.reshape(n_heads * n_outputs, n_rank).T)
    logits += intercept.reshape(-1, 1)
    return logits.reshape(n_heads, n_outputs, len(scores))


def _blocks(problem: Problem) -> list[slice]:
    width = len(problem.weights) * problem.n_outputs
    n_rows = rows_at_once(problem.scores, width=width, on_processor=max(256, BLOCK_ELEMENTS // width))
    return [slice(start, start + n_rows) for start in range(0, len(problem.labels), n_rows)]


def _values_and_gradients(
    problem: Problem, coef: Floats, intercept: Floats, C: float
) -> tuple[NDArray[np.float64], Floats]:
    xp = namespace(coef)
    n_heads, n_outputs, n_rank = coef.shape
    penalized = _penalized(problem, coef) / C
    values = 0.5 * (coef * penalized).sum(axis=(1, 2), dtype=xp.float64)
    gradients = xp.zeros((n_heads, n_outputs, n_rank + 1), dtype=coef.dtype)
    gradients[..., :n_rank] = penalized
    for block in _blocks(problem):
        weights = problem.weights[:, block]
        residuals = _logits(problem.scores[block], coef, intercept)
        losses = problem.loss.residuals(residuals, problem.labels[block])
        values += (weights * losses).sum(axis=1, dtype=xp.float64)
        residuals *= weights[:, None]
        pulled = residuals.reshape(n_heads * n_outputs, -1) @ problem.scores[block]
        gradients[..., :n_rank] += pulled.reshape(coef.shape)
        gradients[..., n_rank] += residuals.sum(axis=2)
    return values, gradients


def _penalized(problem: Problem, coef: Floats) -> Floats:
    if problem.penalty.ndim == 1:
        return problem.penalty[:, None, None] * coef
    return coef @ problem.penalty


def curvature(problem: Problem, heads: Solution) -> NDArray[np.float64]:
    """Return the second derivative of the loss by the intercepts (n_heads, n_outputs)."""
    xp, dtype = namespace(problem.scores), problem.scores.dtype
    coef, intercept = cast(heads.coef, dtype), cast(heads.intercept, dtype)
    total: NDArray[np.float64] = xp.zeros(intercept.shape, dtype=xp.float64)
    for block in _blocks(problem):
        residuals = _logits(problem.scores[block], coef, intercept)
        problem.loss.residuals(residuals, problem.labels[block])
        total += (problem.loss.curvature(residuals) * problem.weights[:, None, block]).sum(axis=2)
    return total


def _preconditioner(problem: Problem, start: Solution, C: float) -> Floats:
    return preconditioner(problem, curvature(problem, start), C)


def preconditioner(problem: Problem, bend: NDArray[np.float64], C: float) -> Floats:
    """Return the inverse root of the Hessian's approximate diagonal (n_heads, n_outputs, r + 1).

    ``bend`` is the second derivative of the loss by the intercepts (n_heads, n_outputs).
    """
    xp = namespace(problem.scores)
    floor = CURVATURE_FLOOR * problem.weights.sum(axis=1, dtype=xp.float64)[:, None]
    bend = xp.maximum(bend, floor)[..., None]
    diagonal = xp.concatenate([bend * (problem.spectrum / len(problem.labels)) + 1 / C, bend], axis=2)
    scale: Floats = cast(1 / xp.sqrt(diagonal), problem.scores.dtype)
    return scale
