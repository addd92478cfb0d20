"""Approximate leave-one-out: what every row would be told without it, by one Newton step from the head of all rows.

A row more or less changes the loss by little, so that from the optimum of all rows one step of Newton's method, with
the exact Hessian H, ends next to the optimum of the others (Giordano et al. 2019; Rad and Maleki 2020). Of its inverse
only what lies between rows that are left out together is needed, ``Q = X H^-1 X'``, for each pair of outputs: without
them their logits z become ``z + Q (1 - A Q)^-1 g``, where g and A are the derivatives of their loss by z.

A softmax has the second derivative ``diag(p) - p p'``. So its Hessian is a block for each class less one column for
each row, ``H = D - V V'``, and Woodbury's formula gives Q from decompositions no larger than the number of rows, where
H itself would be as many times as wide as there are classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import scipy.linalg
from numpy.typing import NDArray
from scipy.special import expit, softmax

from bottleneck.errors import InvalidInputError
from bottleneck.heads.folds import LeftOut
from bottleneck.heads.path import Path, choose_c
from bottleneck.heads.solver import Problem, Solution

Floats = NDArray[np.floating[Any]]
Doubles = NDArray[np.float64]

APPROXIMATE_TOL = 1e-5
"""Residual of the heads on the path, in float64: rows with much leverage magnify what is left of it a hundred times."""

MAX_NUMBERS = 2**25
"""Classes times squared rows, or rows times rotated features for two classes: arrays of a quarter of a gigabyte, and
with ten classes some twenty seconds of one core for each C."""

MAX_TOGETHER = 2000
"""Rows left out together, times outputs: the size of the equations that are solved for them."""

RIDGE = 1e-12
"""Added to the diagonal of what is decomposed, relative to its largest entry, against rounding errors."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Leverages:
    """Q of rows i, j and outputs k, l in halves: ``shared[i, k] shared[j, l]``, and ``own[k, i] own[k, j]`` if k is l.

    Both products are sums over the last axis.
    """

    own: Doubles
    """(n_outputs, n, r + 1)"""
    shared: Doubles | None
    """(n, n_outputs, n); None for one output"""

    def of_each(self) -> Doubles:
        """Return Q of each row with itself (n, n_outputs, n_outputs)."""
        own = np.einsum("kir,kir->ik", self.own, self.own)
        if self.shared is None:
            return np.asarray(own[:, :, None])
        found: Doubles = self.shared @ self.shared.transpose(0, 2, 1)
        outputs = np.arange(own.shape[1])
        found[:, outputs, outputs] += own
        return found

    def between(self, rows: NDArray[np.intp]) -> Doubles:
        """Return Q of some rows (m n_outputs, m n_outputs), row after row."""
        n_outputs, size = len(self.own), len(rows) * len(self.own)
        found = np.zeros((len(rows), n_outputs, len(rows), n_outputs))
        for output, own in enumerate(self.own[:, rows]):
            found[:, output, :, output] = own @ own.T
        if self.shared is not None:
            shared = self.shared[rows].reshape(size, -1)
            found += (shared @ shared.T).reshape(found.shape)
        return found.reshape(size, size)


def choose_by_leaving_out(problem: Problem, left_out: LeftOut, *, Cs: Sequence[float] | None) -> Path | None:
    """Walk the path of C with one head of all rows, judged by what is left out; None if nothing can be.

    Raises
    ------
    InvalidInputError
        Too many rows and classes, or too many rows to leave out together.
    """
    scored = left_out.units >= 0
    if not scored.any():
        return None
    _check_size(problem, left_out)
    precise = replace(problem, scores=problem.scores.astype(float, copy=False))

    def decide(heads: Solution, C: float) -> Floats:
        return leave_out(precise, heads, left_out, C=C)

    return choose_c(precise, decide, scored=scored, weights=problem.weights[0], tol=APPROXIMATE_TOL, Cs=Cs)


def leave_out(problem: Problem, heads: Solution, left_out: LeftOut, *, C: float) -> Doubles:
    """Return the logits (n, n_outputs) of each row by the head without its unit, NaN where it is never left out.

    ``heads`` is the optimum of logistic regression on all rows.
    """
    labels, weights = problem.labels, problem.weights[0]
    rows = np.column_stack([problem.scores, np.ones(len(labels))])
    logits = rows @ np.column_stack([heads.coef[0], heads.intercept[0]]).T
    if problem.n_outputs == 1:
        proba = expit(logits)
        own = _decompose(rows, weights * (proba * (1 - proba))[:, 0], C).T
        leverages = _Leverages(own=own[None], shared=None)
        pull = weights[:, None] * (proba - labels[:, None])
        bend = (weights[:, None] * proba * (1 - proba))[:, :, None]
    else:
        proba = softmax(logits, axis=1)
        leverages = _softmax_leverages(rows, weights, proba, C)
        pull = weights[:, None] * (proba - np.eye(problem.n_outputs)[labels])
        bend = weights[:, None, None] * (proba[:, :, None] * (np.eye(problem.n_outputs) - proba[:, None, :]))
    return _step(logits, pull, bend, leverages, left_out.units)


def _step(logits: Doubles, pull: Doubles, bend: Doubles, leverages: _Leverages, units: NDArray[np.intp]) -> Doubles:
    """Return the logits (n, n_outputs) after the step; ``pull`` and ``bend`` are weighted derivatives by them."""
    n_outputs = logits.shape[1]
    found = np.full(logits.shape, np.nan)
    order = np.argsort(units, kind="stable")
    members = np.split(order, np.flatnonzero(np.diff(units[order])) + 1)
    members = [unit for unit in members if units[unit[0]] >= 0]
    single = np.array([unit[0] for unit in members if len(unit) == 1], dtype=np.intp)
    each = leverages.of_each()[single]
    forces = np.linalg.solve(np.eye(n_outputs) - bend[single] @ each, pull[single][:, :, None])
    found[single] = logits[single] + (each @ forces)[:, :, 0]
    for unit in members:
        if len(unit) > 1:
            between = leverages.between(unit)
            left = np.eye(len(between)) - scipy.linalg.block_diag(*bend[unit]) @ between
            moved = between @ np.linalg.solve(left, pull[unit].reshape(-1))
            found[unit] = logits[unit] + moved.reshape(-1, n_outputs)
    return found


def _softmax_leverages(rows: Doubles, weights: Doubles, proba: Doubles, C: float) -> _Leverages:
    n_samples, n_outputs = proba.shape
    root = np.sqrt(weights)
    # Of what all logits have in common neither loss nor penalty says anything, so that one eigenvalue of 1 - V' D^-1 V
    # is 0, along the roots of the weights. Any other number there adds a constant to Q, which changes no difference.
    shrunk = np.eye(n_samples) + np.outer(root, root) / weights.sum()
    own = np.empty((n_outputs, *rows.shape))
    shared = np.empty((n_outputs, n_samples, n_samples))
    for output in range(n_outputs):
        half = _decompose(rows, weights * proba[:, output], C)
        share = root * proba[:, output]
        shared[output] = share[:, None] * (half.T @ half)
        shrunk -= shared[output] * share
        own[output] = half.T
    factor = _factor(shrunk)
    for output in range(n_outputs):
        shared[output] = _solve_factor(factor, shared[output])
    return _Leverages(own=own, shared=np.ascontiguousarray(shared.transpose(2, 0, 1)))


def _decompose(rows: Doubles, bend: Doubles, C: float) -> Doubles:
    """Return L^-1 rows' (r + 1, n) for the Hessian LL' of one output with second derivatives ``bend`` (n,)."""
    weighted = np.sqrt(bend)[:, None] * rows
    # A product with its own transpose takes half the time.
    hessian = weighted.T @ weighted
    axes = np.arange(len(hessian) - 1)
    hessian[axes, axes] += 1 / C
    return _solve_factor(_factor(hessian), rows.T)


def _factor(matrix: Doubles) -> Doubles:
    diagonal = np.arange(len(matrix))
    matrix[diagonal, diagonal] += RIDGE * matrix[diagonal, diagonal].max()
    return np.asarray(scipy.linalg.cholesky(matrix, lower=True, overwrite_a=True, check_finite=False))


def _solve_factor(factor: Doubles, columns: Doubles) -> Doubles:
    return np.asarray(scipy.linalg.solve_triangular(factor, columns, lower=True, check_finite=False))


def _check_size(problem: Problem, left_out: LeftOut) -> None:
    n_outputs, (n_samples, n_rank) = problem.n_outputs, problem.scores.shape
    width = n_samples if n_outputs > 1 else n_rank + 1
    if n_outputs * n_samples * width > MAX_NUMBERS:
        most = int(np.sqrt(MAX_NUMBERS / n_outputs)) if n_outputs > 1 else MAX_NUMBERS // width
        raise InvalidInputError(
            f"Leaving out one row of {n_samples} takes too much time and memory with {max(n_outputs, 2)} classes: the "
            f"limit is {most} rows. Pass a number of folds as 'cv', which with so many rows tells as much."
        )
    largest = left_out.largest
    if largest * n_outputs > MAX_TOGETHER:
        raise InvalidInputError(
            f"{largest} rows that are copies of each other or of one group cannot be left out in one step. With "
            f"{max(n_outputs, 2)} classes the limit is {MAX_TOGETHER // n_outputs} rows. Pass a number "
            "of folds as 'cv'."
        )
