"""Polishes one head to float64 by Newton's method, whose steps are found in float32.

Only the gradient has to be exact, since a step that is a little wrong is put right by the next one. So the gradient is
taken in float64, on exact rows that need not be in memory at once, and the steps by conjugate gradients (Steihaug
1983) on the float32 scores of :mod:`rotation`, where a product takes half the time and the Hessian is nearly diagonal.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bottleneck.heads.arrays import cast, namespace, rows_at_once, turned
from bottleneck.heads.solver import CURVATURE_FLOOR, Problem, Solution, preconditioner

Floats = NDArray[np.floating[Any]]
Doubles = NDArray[np.float64]

BLOCK_ROWS = 512
MAX_STEPS = 50

SHARES = (1e-3, 0.05)
"""Least and most, relative to the gradient, of what the search for a step leaves of it. In between the share follows
how well the step before went (Eisenstat and Walker 1996), because a parabola is no better far from the minimum, and
it need not be less than ``ENOUGH`` of the tolerance."""

ENOUGH = 0.3

FLAT = 1e-6
"""Curvature along a direction, relative to what the preconditioner expects, below which float32 cannot tell it from
none. A softmax has none along what all classes share, nor where every row is certain."""

SUFFICIENT_DECREASE = 1e-4
MAX_HALVINGS = 20


@dataclass(frozen=True, kw_only=True, slots=True)
class ExactRows:
    """Rows (n, width) in float64, block by block, and how their coordinates follow from those of the scores."""

    block: Callable[[slice], Floats]
    n_rows: int
    width: int
    axes: Floats | None
    """(width, r), or None: the coordinates are the same"""
    n_rows_at_once: int = BLOCK_ROWS

    def slices(self) -> list[slice]:
        """Return the blocks of rows."""
        return [slice(start, start + self.n_rows_at_once) for start in range(0, self.n_rows, self.n_rows_at_once)]

    def to_scores(self, coef: Doubles) -> Floats:
        """Return coefficients or gradients (n_outputs, width) on scores (n_outputs, r)."""
        return coef if self.axes is None else cast(coef, self.axes.dtype) @ self.axes

    def from_scores(self, coef: Floats) -> Doubles:
        """Return coefficients on scores (n_outputs, r) on rows (n_outputs, width)."""
        on_rows = coef if self.axes is None else cast(coef, self.axes.dtype) @ self.axes.T
        doubles: Doubles = cast(on_rows, namespace(coef).float64)
        return doubles


@dataclass(frozen=True, kw_only=True, slots=True)
class Polished:
    """Coefficients (n_outputs, width) on exact rows, intercepts (n_outputs,), and how the search ended."""

    coef: Doubles
    intercept: Doubles
    n_iter: int
    residual: float
    """as in :class:`solver.Solution`"""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Point:
    coef: Doubles
    intercept: Doubles
    value: float
    gradient: Doubles
    """(n_outputs, width + 1)"""
    residuals: NDArray[np.float32]
    """(n_outputs, n)"""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Parabola:
    problem: Problem
    C: float
    residuals: NDArray[np.float32]
    damping: float
    """added to the curvature along the intercepts, which far from the minimum may have none (Levenberg 1944)"""
    scale: Floats
    """inverse root of the approximate diagonal"""


def polish(rows: ExactRows, problem: Problem, *, C: float, start: Solution, tol: float, max_iter: int) -> Polished:
    """Minimise the problem of one head on its exact rows, from ``start`` (1, n_outputs, r) to a residual of ``tol``.

    ``problem`` has the float32 scores of these rows. ``max_iter`` limits the products with the Hessian.
    """
    xp = namespace(problem.scores)
    root_weight = float(np.sqrt(float(problem.weights.sum(dtype=xp.float64))))
    point = _evaluate(rows, problem, C, rows.from_scores(start.coef[0]), cast(start.intercept[0], xp.float64))
    before, n_iter = np.inf, 0
    for _ in range(MAX_STEPS):
        gradient = _rotated(rows, point.gradient)
        scale = _scale(problem, point, C)
        residual = float(abs(gradient * scale).max()) / root_weight
        if residual <= tol or n_iter >= max_iter:
            break
        progress = 1.0 if before == np.inf else residual / before
        share = float(np.clip(progress**2, *SHARES))
        share, before = max(share, ENOUGH * tol / residual), residual
        damping = CURVATURE_FLOOR * root_weight**2 * min(1.0, residual)
        parabola = _Parabola(problem=problem, C=C, residuals=point.residuals, damping=damping, scale=scale)
        step, n_products = _find_step(parabola, gradient, share=share, max_products=max_iter - n_iter)
        n_iter += n_products
        moved = _search(rows, problem, C, point, step, slope=_dot(gradient, step))
        if moved is None:
            break
        point = moved
    return Polished(coef=point.coef, intercept=point.intercept, n_iter=n_iter, residual=residual)


def _scale(problem: Problem, point: _Point, C: float) -> Floats:
    bend = cast(problem.loss.curvature(point.residuals) @ problem.weights[0], namespace(problem.scores).float64)
    scale: Floats = preconditioner(problem, bend[None], C)[0]
    return scale


def _rotated(rows: ExactRows, gradient: Doubles) -> Doubles:
    xp = namespace(gradient)
    on_scores = cast(rows.to_scores(gradient[:, :-1]), xp.float64)
    rotated: Doubles = xp.concatenate([on_scores, gradient[:, -1:]], axis=1)
    return rotated


def _evaluate(rows: ExactRows, problem: Problem, C: float, coef: Doubles, intercept: Doubles) -> _Point:
    xp = namespace(coef)
    value = 0.5 * _dot(coef, coef) / C
    gradient = xp.concatenate([coef / C, xp.zeros((len(coef), 1), dtype=xp.float64)], axis=1)
    residuals = xp.empty((len(coef), rows.n_rows), dtype=xp.float32)
    for block in rows.slices():
        exact, weights = rows.block(block), cast(problem.weights[0, block], xp.float64)
        logits = (coef @ exact.T + intercept[:, None])[None]
        losses = problem.loss.residuals(logits, problem.labels[block])
        residuals[:, block] = logits[0]
        value += float(weights @ losses[0])
        logits[0] *= weights
        gradient[:, :-1] += logits[0] @ exact
        gradient[:, -1] += logits[0].sum(axis=1)
    return _Point(coef=coef, intercept=intercept, value=value, gradient=gradient, residuals=residuals)


def _search(rows: ExactRows, problem: Problem, C: float, point: _Point, step: Floats, *, slope: float) -> _Point | None:
    """Halve the step until the value decreases enough; None if rounding hides every decrease."""
    on_rows, shift = rows.from_scores(step[:, :-1]), cast(step[:, -1], point.intercept.dtype)
    noise = 10 * np.finfo(float).eps * abs(point.value)
    length = 1.0
    for _ in range(MAX_HALVINGS):
        moved = _evaluate(rows, problem, C, point.coef + length * on_rows, point.intercept + length * shift)
        if moved.value <= point.value + SUFFICIENT_DECREASE * length * slope + noise:
            return moved
        length /= 2
    return None


def _dot(left: Floats, right: Floats) -> float:
    """Return the sum of the products of all entries, in the precision of ``left``."""
    return float(left.reshape(-1) @ cast(right, left.dtype).reshape(-1))


def _find_step(parabola: _Parabola, gradient: Doubles, *, share: float, max_products: int) -> tuple[Floats, int]:
    """Return the step (n_outputs, r + 1) to the minimum of the parabola here, and the products that it took."""
    scale = parabola.scale
    xp = namespace(scale)
    # Near the minimum the gradient would underflow in float32.
    size = float(abs(gradient * scale).max())
    left = cast(-(gradient / size), scale.dtype)
    step, direction = xp.zeros_like(left), xp.zeros_like(left)
    power, first = 1.0, None
    for n_products in range(max_products):
        preconditioned = left * xp.square(scale)
        new_power = _dot(left, preconditioned)
        first = first or new_power
        if new_power <= share**2 * first:
            return step * size, n_products
        direction = preconditioned + (new_power / power if n_products else 0.0) * direction
        bent = _hessian_times(parabola, direction)
        along = _dot(direction, bent)
        if along <= FLAT * float(xp.square(direction / scale).sum()):
            return (step if n_products else direction) * size, n_products + 1
        step += (new_power / along) * direction
        left -= (new_power / along) * bent
        power = new_power
    return step * size, max_products


def _hessian_times(parabola: _Parabola, direction: Floats) -> Floats:
    problem = parabola.problem
    bent = direction / parabola.C
    bent[:, -1] = parabola.damping * direction[:, -1]
    n_rows = rows_at_once(direction, width=len(direction), on_processor=BLOCK_ROWS)
    for start in range(0, len(problem.labels), n_rows):
        block = slice(start, start + n_rows)
        changes: Floats = turned(problem.scores[block] @ direction[:, :-1].T) + direction[:, -1:]
        changes = problem.loss.bend(parabola.residuals[:, block], problem.labels[block], changes)
        changes *= problem.weights[0, block]
        bent[:, :-1] += changes @ problem.scores[block]
        bent[:, -1] += changes.sum(axis=1)
    return bent
