"""L-BFGS for several independent smooth convex problems in lockstep (Liu and Nocedal 1989).

Each problem has its own history, step length and stopping point; only the evaluation is shared, so that one matrix
product serves all of them. The caller scales the variables so that the Hessian is near the identity.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bottleneck.heads.arrays import cast, namespace

Floats = NDArray[np.floating[Any]]
Objective = Callable[[Floats], tuple[NDArray[np.float64], Floats]]
"""Points (n_problems, n_variables) to values (n_problems,) and gradients (n_problems, n_variables)."""

MEMORY = 10
SUFFICIENT_DECREASE = 1e-4
MAX_HALVINGS = 20

MAX_IDLE = 30
"""Iterations without a decrease that rounding lets show. Gradients still shrink for some of them, then wander."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Minimum:
    """Points (n_problems, n_variables), their largest gradient entries (n_problems,), iterations of the slowest."""

    points: Floats
    residuals: NDArray[np.float64]
    n_iter: int


def minimize_together(objective: Objective, start: Floats, *, tol: Floats, max_iter: int) -> Minimum:
    """Minimise every problem until its largest gradient entry is at most its ``tol`` (n_problems,).

    A problem whose value cannot be lowered further in the precision of ``start`` stops early; ``residuals`` tells.
    """
    xp = namespace(start)
    points = start
    values, gradients = objective(points)
    history: deque[tuple[Floats, Floats, Floats]] = deque(maxlen=MEMORY)
    idle = xp.zeros(len(points), dtype=xp.int64)
    n_iter = 0
    while n_iter < max_iter:
        active = (xp.amax(abs(gradients), axis=1) > tol) & (idle < MAX_IDLE)
        if not active.any():
            break
        directions = -_inverse_hessian_times(gradients, history) * active[:, None]
        moved, new_values, new_gradients = _search(objective, points, values, gradients, directions)
        idle = xp.where(new_values < values - _noise(values, points), 0, idle + 1)
        steps, changes = moved - points, new_gradients - gradients
        history.append((steps, changes, _inverse_positive(_dot(steps, changes))))
        points, values, gradients = moved, new_values, new_gradients
        n_iter += 1
    return Minimum(points=points, residuals=cast(xp.amax(abs(gradients), axis=1), xp.float64), n_iter=n_iter)


def _search(
    objective: Objective, points: Floats, values: NDArray[np.float64], gradients: Floats, directions: Floats
) -> tuple[Floats, NDArray[np.float64], Floats]:
    """Halve the unit step of each problem until its value decreases enough; a problem that finds none stays."""
    slopes = _dot(gradients, directions)
    noise = _noise(values, points)
    lengths = namespace(points).ones(len(points), dtype=points.dtype)
    for halving in range(MAX_HALVINGS):
        moved = points + lengths[:, None] * directions
        new_values, new_gradients = objective(moved)
        failed = ~(new_values <= values + SUFFICIENT_DECREASE * lengths * slopes + noise)
        if not failed.any():
            break
        lengths[failed] = 0 if halving >= MAX_HALVINGS - 2 else lengths[failed] / 2
    return moved, new_values, new_gradients


def _noise(values: NDArray[np.float64], points: Floats) -> NDArray[np.float64]:
    """Return what rounding adds to a sum of many losses, which must not look like a change."""
    noise: NDArray[np.float64] = 10 * namespace(points).finfo(points.dtype).eps * abs(values)
    return noise


def _inverse_hessian_times(gradients: Floats, history: deque[tuple[Floats, Floats, Floats]]) -> Floats:
    xp = namespace(gradients)
    product: Floats = xp.asarray(gradients, copy=True)
    shares = []
    for steps, changes, inverse in reversed(history):
        shares.append(inverse * _dot(steps, product))
        product -= shares[-1][:, None] * changes
    if history:
        steps, changes, _ = history[-1]
        curvature = _dot(steps, changes) * _inverse_positive(_dot(changes, changes))
        product *= xp.where(curvature > 0, curvature, 1)[:, None]
    for (steps, changes, inverse), share in zip(history, reversed(shares), strict=True):
        product += (share - inverse * _dot(changes, product))[:, None] * steps
    return product


def _dot(left: Floats, right: Floats) -> Floats:
    products: Floats = namespace(left).einsum("pv,pv->p", left, right)
    return products


def _inverse_positive(values: Floats) -> Floats:
    """Return 1 / values, and 0 where a step has no usable curvature and must leave the history without effect."""
    xp = namespace(values)
    usable = values > xp.finfo(values.dtype).tiny
    inverse: Floats = xp.where(usable, 1 / xp.where(usable, values, 1), 0)
    return inverse
