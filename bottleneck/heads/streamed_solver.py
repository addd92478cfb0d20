"""Fits many linear heads at once on features that pass by in blocks: every fold, and several Cs.

The same problem as in :mod:`solver`, preconditioned along the same axes, but the features are never rotated: each
step turns the few coefficients to the features and the gradients back.
"""

from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bottleneck.heads.blocks import BLOCK_ROWS, BlockReader
from bottleneck.heads.calibration import log_losses
from bottleneck.heads.lbfgs import minimize_together
from bottleneck.heads.losses import Loss
from bottleneck.heads.normalize import Normalizer, row_normalization
from bottleneck.heads.solver import BLOCK_ELEMENTS, CURVATURE_FLOOR

Floats = NDArray[np.floating[Any]]

ALL_ROWS = -2
"""The fold of a head that trains on every row."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StreamedProblem:
    """Labelled features in blocks, with everything of them that fits in memory."""

    reader: BlockReader
    labels: NDArray[np.intp]
    """(n,)"""
    weights: NDArray[np.float64]
    """(n,)"""
    parts: NDArray[np.intp]
    """(n,) the fold that holds a row out, or -1"""
    normalizer: Normalizer
    axes: NDArray[np.float64]
    """(d, d) principal axes of the normalised features"""
    spectrum: NDArray[np.float64]
    """(d,) sums of squares along them"""
    spread: NDArray[np.float64]
    """(n_folds, d) multiples of the penalty that make up for each fold's own scale"""
    loss: Loss
    n_outputs: int

    @property
    def n_folds(self) -> int:
        """Number of folds."""
        return len(self.spread)

    def fold_weights(self) -> NDArray[np.float64]:
        """Return the weight of each class in the training rows of each fold (n_folds, n_classes)."""
        n_classes = int(self.labels.max()) + 1
        every = np.bincount(self.labels, self.weights, minlength=n_classes)
        held = [
            np.bincount(self.labels[self.parts == fold], self.weights[self.parts == fold], minlength=n_classes)
            for fold in range(self.n_folds)
        ]
        trained: NDArray[np.float64] = every - np.array(held, dtype=float).reshape(self.n_folds, n_classes)
        return trained


@dataclass(frozen=True, kw_only=True, slots=True)
class StreamedHeads:
    """Heads on normalised features; each trains on the rows that its fold does not hold out."""

    folds: NDArray[np.intp]
    """(n_heads,)"""
    Cs: NDArray[np.float64]
    """(n_heads,)"""
    coef: NDArray[np.float64]
    """(n_heads, n_outputs, d)"""
    intercept: NDArray[np.float64]
    """(n_heads, n_outputs)"""
    n_iter: int = 0
    residual: float = 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class HeldOut:
    """What heads of one C say of the rows that their folds hold out."""

    weight: float
    log_loss: float
    """summed, weighted"""
    kept: Floats
    """(n_kept, n_outputs) decisions for the rows that were to be kept"""


def zero_heads(problem: StreamedProblem, *, folds: NDArray[np.intp], Cs: NDArray[np.float64]) -> StreamedHeads:
    """Return heads that decide nothing."""
    shape = (len(folds), problem.n_outputs)
    coef = np.zeros((*shape, problem.reader.n_features))
    return StreamedHeads(folds=folds, Cs=Cs, coef=coef, intercept=np.zeros(shape))


def solve_streamed(
    problem: StreamedProblem, start: StreamedHeads, *, tol: float, max_iter: int, dtype: type[np.floating[Any]]
) -> StreamedHeads:
    """Minimise every head from ``start`` in one pass a step, with products in the precision asked for."""
    scale = _preconditioner(problem, start, dtype)
    root_weight = np.sqrt(_total_weights(problem, start.folds))
    spread = np.ones((len(start.folds), problem.reader.n_features))
    spread[start.folds >= 0] = problem.spread[start.folds[start.folds >= 0]]

    def objective(points: Floats) -> tuple[NDArray[np.float64], Floats]:
        scaled = points.reshape(scale.shape).astype(float) * scale
        coef, intercept = scaled[..., :-1] @ problem.axes.T, scaled[..., -1]
        values, pulled, shifted = _sum_losses(problem, start.folds, coef, intercept, dtype)
        penalized = spread[:, None] * coef / start.Cs[:, None, None]
        values += 0.5 * (coef * penalized).sum(axis=(1, 2))
        gradients = np.concatenate([(pulled + penalized) @ problem.axes, shifted[..., None]], axis=2) * scale
        return values, gradients.reshape(points.shape).astype(points.dtype)

    stacked = np.concatenate([start.coef @ problem.axes, start.intercept[..., None]], axis=2)
    found = minimize_together(
        objective, (stacked / scale).reshape(len(scale), -1).astype(dtype), tol=tol * root_weight, max_iter=max_iter
    )
    scaled = found.points.reshape(scale.shape).astype(float) * scale
    return StreamedHeads(
        folds=start.folds,
        Cs=start.Cs,
        coef=scaled[..., :-1] @ problem.axes.T,
        intercept=scaled[..., -1],
        n_iter=found.n_iter,
        residual=float((found.residuals / root_weight).max()),
    )


def untrained_curvature(problem: StreamedProblem, fold_weights: Floats) -> NDArray[np.float64]:
    """Return the second derivative of the loss by the intercepts (n, n_outputs) of heads that decide nothing."""
    n_classes = fold_weights.shape[1]
    residuals = np.zeros((1, problem.n_outputs, n_classes))
    problem.loss.residuals(residuals, np.arange(n_classes))
    bend: NDArray[np.float64] = fold_weights @ problem.loss.curvature(residuals)[0].T
    return bend


def score_held_out(problem: StreamedProblem, heads: StreamedHeads, kept: NDArray[np.intp]) -> list[HeldOut]:
    """Return what the heads of each C, which lie fold after fold, say of the rows held out; one pass."""
    n_Cs = len(heads.folds) // problem.n_folds
    weight, losses = 0.0, np.zeros(n_Cs)
    decisions = np.full((n_Cs, len(kept), problem.n_outputs), np.nan, dtype=np.float32)
    for rows, decided in _decide_held_out(problem, heads):
        labels, weights = problem.labels[rows], problem.weights[rows]
        weight += weights.sum()
        losses += [weights @ log_losses(logits, labels) for logits in decided]
        wanted, places = _places(kept, rows)
        decisions[:, places] = decided[:, wanted]
    return [
        HeldOut(weight=weight, log_loss=float(loss), kept=logits)
        for loss, logits in zip(losses, decisions, strict=True)
    ]


def judge_held_out(
    problem: StreamedProblem, heads: StreamedHeads, *, slope: float
) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """Return whether the heads of one C, one a fold, are right about each row held out, and its log-loss; one pass.

    (n,) each; NaN is the log-loss of rows that no fold holds out.
    """
    right, losses = np.zeros(len(problem.labels), dtype=bool), np.full(len(problem.labels), np.nan)
    for rows, (logits,) in _decide_held_out(problem, heads):
        predicted = logits[:, 0] > 0 if logits.shape[1] == 1 else logits.argmax(axis=1)
        right[rows] = predicted == problem.labels[rows]
        losses[rows] = log_losses(slope * logits, problem.labels[rows])
    return right, losses


def _decide_held_out(
    problem: StreamedProblem, heads: StreamedHeads
) -> Generator[tuple[NDArray[np.intp], NDArray[np.float32]]]:
    """Yield rows (m,) that a fold holds out and their decisions (n_Cs, m, n_outputs), block by block."""
    n_Cs = len(heads.folds) // problem.n_folds
    weight = (heads.coef / problem.normalizer.scale).reshape(n_Cs, problem.n_folds, problem.n_outputs, -1)
    weight_t = weight.astype(np.float32).swapaxes(2, 3)
    intercept = heads.intercept.reshape(n_Cs, problem.n_folds, 1, problem.n_outputs)
    for at, rows in _centred(problem, np.float32):
        for fold in range(problem.n_folds):
            chosen = np.flatnonzero((problem.parts[at] == fold) & (problem.weights[at] > 0))
            yield at.start + chosen, rows[chosen] @ weight_t[:, fold] + intercept[:, fold]


def _places(kept: NDArray[np.intp], rows: NDArray[np.intp]) -> tuple[NDArray[np.bool_], NDArray[np.intp]]:
    """Say which of ``rows`` are among the sorted rows ``kept``, and where."""
    places = np.searchsorted(kept, rows)
    wanted = np.zeros(len(rows), dtype=bool)
    inside = places < len(kept)
    wanted[inside] = kept[places[inside]] == rows[inside]
    return wanted, places[wanted]


def _centred(problem: StreamedProblem, dtype: type[np.floating[Any]], *, n_logits: int = 1) -> Any:
    """Yield where each block belongs, and its rows without the centre."""
    n_rows = min(BLOCK_ROWS, max(256, BLOCK_ELEMENTS // n_logits))
    center = problem.normalizer.center.astype(dtype)
    for at, rows in problem.reader.read(row_normalization(problem.normalizer.kind), n_rows=n_rows):
        yield at, rows.astype(dtype, copy=False) - center


def _sum_losses(
    problem: StreamedProblem, folds: NDArray[np.intp], coef: Floats, intercept: Floats, dtype: type[np.floating[Any]]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return the losses (n_heads,) of the training rows, and their derivatives by coefficients and intercepts."""
    n_heads, n_outputs, d = coef.shape
    weight = (coef / problem.normalizer.scale).reshape(-1, d).astype(dtype)
    bias = intercept.reshape(-1, 1).astype(dtype)
    values, pulled, shifted = np.zeros(n_heads), np.zeros_like(weight, dtype=float), np.zeros(intercept.shape)
    for at, rows in _centred(problem, dtype, n_logits=len(weight)):
        residuals = (weight @ rows.T + bias).reshape(n_heads, n_outputs, -1)
        losses = problem.loss.residuals(residuals, problem.labels[at])
        given = (problem.weights[at] * (problem.parts[at] != folds[:, None])).astype(dtype)
        values += (given * losses).sum(axis=1, dtype=float)
        residuals *= given[:, None]
        pulled += residuals.reshape(len(weight), -1) @ rows
        shifted += residuals.sum(axis=2, dtype=float)
    return values, pulled.reshape(coef.shape) / problem.normalizer.scale, shifted


def _curvature(problem: StreamedProblem, heads: StreamedHeads, dtype: type[np.floating[Any]]) -> NDArray[np.float64]:
    """Return the second derivative of the loss by the intercepts (n_heads, n_outputs); one pass."""
    weight = (heads.coef / problem.normalizer.scale).reshape(-1, problem.reader.n_features).astype(dtype)
    bias = heads.intercept.reshape(-1, 1).astype(dtype)
    bend = np.zeros(heads.intercept.shape)
    for at, rows in _centred(problem, dtype, n_logits=len(weight)):
        residuals = (weight @ rows.T + bias).reshape(*bend.shape, -1)
        problem.loss.residuals(residuals, problem.labels[at])
        given = problem.weights[at] * (problem.parts[at] != heads.folds[:, None])
        bend += (problem.loss.curvature(residuals) * given[:, None]).sum(axis=2, dtype=float)
    return bend


def _total_weights(problem: StreamedProblem, folds: NDArray[np.intp]) -> NDArray[np.float64]:
    of_fold = [float(problem.weights[problem.parts != fold].sum()) for fold in range(problem.n_folds)]
    every = float(problem.weights.sum())
    return np.array([every if fold == ALL_ROWS else of_fold[fold] for fold in folds])


def _preconditioner(
    problem: StreamedProblem, start: StreamedHeads, dtype: type[np.floating[Any]]
) -> NDArray[np.float64]:
    """Return the inverse root of the Hessian's approximate diagonal (n_heads, n_outputs, d + 1), as in memory."""
    floor = CURVATURE_FLOOR * _total_weights(problem, start.folds)[:, None]
    bend = np.maximum(_curvature(problem, start, dtype), floor)[..., None]
    along = bend * (problem.spectrum / len(problem.labels)) + 1 / start.Cs[:, None, None]
    scale: NDArray[np.float64] = 1 / np.sqrt(np.concatenate([along, bend], axis=2))
    return scale
