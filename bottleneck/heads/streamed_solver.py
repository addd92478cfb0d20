"""Fits many linear heads at once on features that pass by in blocks: every fold, and several Cs.

The same problem as in :mod:`solver`, preconditioned along the same axes, but the features are never rotated: each
step turns the few coefficients to the features and the gradients back. What a pass sums up, it sums span by span of the
rows, which are tasks of their own.
"""

from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from bottleneck.heads.blocks import BLOCK_ROWS, BlockReader
from bottleneck.heads.calibration import log_losses
from bottleneck.heads.lbfgs import minimize_together
from bottleneck.heads.losses import Loss
from bottleneck.heads.normalize import Normalizer, row_normalization
from bottleneck.heads.solver import BLOCK_ELEMENTS, CURVATURE_FLOOR

Floats = NDArray[np.floating[Any]]
T = TypeVar("T")

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

    def map(
        self, function: Callable[..., T], *shared: Any, marked: NDArray[np.bool_] | np.bool_ = np.False_
    ) -> Iterator[T]:
        """Yield ``function(span, *shared)`` for each span of the rows, in order; one pass."""
        by_row = (self.labels, self.weights, self.parts, np.broadcast_to(marked, self.labels.shape))
        return self.reader.map(_on_span, *by_row, shared=(self.normalizer, self.loss, function, *shared))


@dataclass(frozen=True, kw_only=True, slots=True)
class _Span:
    """Some consecutive rows of a problem: what a task gets."""

    reader: BlockReader
    labels: NDArray[np.intp]
    weights: NDArray[np.float64]
    parts: NDArray[np.intp]
    marked: NDArray[np.bool_]
    normalizer: Normalizer
    loss: Loss

    def centred(self, dtype: type[np.floating[Any]], *, n_logits: int = 1) -> Iterator[tuple[slice, Floats]]:
        """Yield where each block belongs, and its rows without the centre."""
        n_rows = min(BLOCK_ROWS, max(256, BLOCK_ELEMENTS // n_logits))
        center = self.normalizer.center.astype(dtype)
        for at, rows in self.reader.read(row_normalization(self.normalizer.kind), n_rows=n_rows):
            yield at, rows.astype(dtype, copy=False) - center


def _on_span(
    reader: BlockReader,
    labels: NDArray[np.intp],
    weights: NDArray[np.float64],
    parts: NDArray[np.intp],
    marked: NDArray[np.bool_],
    normalizer: Normalizer,
    loss: Loss,
    function: Callable[..., T],
    *shared: Any,
) -> T:
    span = _Span(
        reader=reader, labels=labels, weights=weights, parts=parts, marked=marked, normalizer=normalizer, loss=loss
    )
    return function(span, *shared)


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
    """Return what the heads of each C, which lie fold after fold, say of the rows held out; one pass.

    ``kept`` are the sorted rows whose decisions are to be kept.
    """
    weight, losses = 0.0, np.zeros(len(heads.folds) // problem.n_folds)
    marked = np.zeros(len(problem.labels), dtype=bool)
    marked[kept] = True
    decisions: list[NDArray[np.float32]] = []
    for scored, lost, decided in problem.map(_score_span, *_by_fold(problem, heads), marked=marked):
        weight += scored
        losses += lost
        decisions.append(decided)
    return [
        HeldOut(weight=weight, log_loss=float(loss), kept=logits)
        for loss, logits in zip(losses, np.concatenate(decisions, axis=1), strict=True)
    ]


def _score_span(
    span: _Span, weight: NDArray[np.float32], intercept: Floats
) -> tuple[float, NDArray[np.float64], NDArray[np.float32]]:
    """Return weight and losses (n_Cs,) of rows that are held out, and decisions (n_Cs, n_marked, n_outputs)."""
    n_Cs, _, n_outputs, _ = weight.shape
    total, losses = 0.0, np.zeros(n_Cs)
    places = np.cumsum(span.marked) - 1
    decisions = np.full((n_Cs, int(span.marked.sum()), n_outputs), np.nan, dtype=np.float32)
    for rows, decided in _decide_held_out(span, weight, intercept):
        labels, weights = span.labels[rows], span.weights[rows]
        total += float(weights.sum())
        losses += [weights @ log_losses(logits, labels) for logits in decided]
        wanted = span.marked[rows]
        decisions[:, places[rows[wanted]]] = decided[:, wanted]
    return total, losses, decisions


def judge_held_out(
    problem: StreamedProblem, heads: StreamedHeads, *, slope: float
) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """Return whether the heads of one C, one a fold, are right about each row held out, and its log-loss; one pass.

    (n,) each; NaN is the log-loss of rows that no fold holds out.
    """
    judged = list(problem.map(_judge_span, *_by_fold(problem, heads), slope))
    return np.concatenate([right for right, _ in judged]), np.concatenate([losses for _, losses in judged])


def _judge_span(
    span: _Span, weight: NDArray[np.float32], intercept: Floats, slope: float
) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    right, losses = np.zeros(len(span.labels), dtype=bool), np.full(len(span.labels), np.nan)
    for rows, (logits,) in _decide_held_out(span, weight, intercept):
        predicted = logits[:, 0] > 0 if logits.shape[1] == 1 else logits.argmax(axis=1)
        right[rows] = predicted == span.labels[rows]
        losses[rows] = log_losses(slope * logits, span.labels[rows])
    return right, losses


def _by_fold(problem: StreamedProblem, heads: StreamedHeads) -> tuple[NDArray[np.float32], Floats]:
    """Return coefficients (n_Cs, n_folds, n_outputs, d) on centred rows, and intercepts (n_Cs, n_folds, n_outputs)."""
    n_Cs = len(heads.folds) // problem.n_folds
    weight = (heads.coef / problem.normalizer.scale).reshape(n_Cs, problem.n_folds, problem.n_outputs, -1)
    return weight.astype(np.float32), heads.intercept.reshape(n_Cs, problem.n_folds, problem.n_outputs)


def _decide_held_out(
    span: _Span, weight: NDArray[np.float32], intercept: Floats
) -> Generator[tuple[NDArray[np.intp], Floats]]:
    """Yield rows (m,) that a fold holds out and their decisions (n_Cs, m, n_outputs), block by block."""
    weight_t = weight.swapaxes(2, 3)
    for at, rows in span.centred(np.float32):
        for fold in range(weight.shape[1]):
            chosen = np.flatnonzero((span.parts[at] == fold) & (span.weights[at] > 0))
            yield at.start + chosen, rows[chosen] @ weight_t[:, fold] + intercept[:, fold, None]


def _sum_losses(
    problem: StreamedProblem, folds: NDArray[np.intp], coef: Floats, intercept: Floats, dtype: type[np.floating[Any]]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return the losses (n_heads,) of the training rows, and their derivatives by coefficients and intercepts."""
    weight = (coef / problem.normalizer.scale).reshape(-1, coef.shape[2]).astype(dtype)
    values, pulled, shifted = np.zeros(len(coef)), np.zeros_like(weight, dtype=float), np.zeros(intercept.shape)
    for lost, pulled_here, shifted_here in problem.map(_sum_losses_of_span, folds, weight, intercept.astype(dtype)):
        values += lost
        pulled += pulled_here
        shifted += shifted_here
    return values, pulled.reshape(coef.shape) / problem.normalizer.scale, shifted


def _sum_losses_of_span(
    span: _Span, folds: NDArray[np.intp], weight: Floats, intercept: Floats
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    values, pulled, shifted = np.zeros(len(folds)), np.zeros_like(weight, dtype=float), np.zeros(intercept.shape)
    for at, rows in span.centred(weight.dtype.type, n_logits=len(weight)):
        residuals = (weight @ rows.T + intercept.reshape(-1, 1)).reshape(*intercept.shape, -1)
        losses = span.loss.residuals(residuals, span.labels[at])
        given = (span.weights[at] * (span.parts[at] != folds[:, None])).astype(weight.dtype)
        values += (given * losses).sum(axis=1, dtype=float)
        residuals *= given[:, None]
        pulled += residuals.reshape(len(weight), -1) @ rows
        shifted += residuals.sum(axis=2, dtype=float)
    return values, pulled, shifted


def _curvature(problem: StreamedProblem, heads: StreamedHeads, dtype: type[np.floating[Any]]) -> NDArray[np.float64]:
    """Return the second derivative of the loss by the intercepts (n_heads, n_outputs); one pass."""
    weight = (heads.coef / problem.normalizer.scale).reshape(-1, problem.reader.n_features).astype(dtype)
    bend = np.zeros(heads.intercept.shape)
    for of_span in problem.map(_curvature_of_span, heads.folds, weight, heads.intercept.astype(dtype)):
        bend += of_span
    return bend


def _curvature_of_span(span: _Span, folds: NDArray[np.intp], weight: Floats, intercept: Floats) -> NDArray[np.float64]:
    bend = np.zeros(intercept.shape)
    for at, rows in span.centred(weight.dtype.type, n_logits=len(weight)):
        residuals = (weight @ rows.T + intercept.reshape(-1, 1)).reshape(*bend.shape, -1)
        span.loss.residuals(residuals, span.labels[at])
        given = span.weights[at] * (span.parts[at] != folds[:, None])
        bend += (span.loss.curvature(residuals) * given[:, None]).sum(axis=2, dtype=float)
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
