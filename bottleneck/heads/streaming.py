"""From features on disk to a fitted linear head in bounded memory, by this process or by workers.

What is kept: labels, weights, folds and marks of copies (some tens of bytes a row), the Gram matrix (d x d), and the
heads in work. What is read: the features, once for copies, twice for the screen (of which at most a few thousand rows
are kept, the same ones as in memory), once for centre, scales and axes; then once for each step of all folds and a
decade of Cs together (10 to 25 steps a decade), once for what held-out rows say at the best C, and once for each step
of the final head (10 to 50). Of features that can be read from any row on, the screen reads the rows it keeps.

A pass is cut into spans of rows, which are tasks: sums, Gram matrix and gradients of spans are added up in the order of
the rows. The cut follows from the features alone, and a worker computes on one core, so that the head does not depend
on the number of workers, to the last bit on machines of one kind.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from bottleneck.heads.blocks import BlockReader, RowsOfBlocks
from bottleneck.heads.calibration import fit_slope, log_losses
from bottleneck.heads.choice import choose_kind, trusted_order
from bottleneck.heads.duplicates import FEW_FEATURES, MANY_ROWS, Marks, group_copies, mark_rows
from bottleneck.heads.evidence import mean_and_se
from bottleneck.heads.folds import Folds, deal, deal_parts
from bottleneck.heads.linear import PATH_TOL, n_outputs
from bottleneck.heads.losses import Loss
from bottleneck.heads.moments import measure_moments
from bottleneck.heads.normalize import Normalization
from bottleneck.heads.path import DECADES, PATH_MAX_ITER, PATIENCE, START_DECADE, STEPS_PER_DECADE, TYPICAL_C
from bottleneck.heads.rotation import RANK_TOLERANCE
from bottleneck.heads.screen import MAX_WIDE_ROWS, choose_normalization
from bottleneck.heads.streamed_solver import (
    ALL_ROWS,
    HeldOut,
    StreamedHeads,
    StreamedProblem,
    judge_held_out,
    score_held_out,
    solve_streamed,
    untrained_curvature,
    zero_heads,
)
from bottleneck.heads.training import StreamedLabels, TrainingSet

Floats = NDArray[np.floating[Any]]

HISTORY_BYTES = 2**28
"""Steps and gradients that L-BFGS may remember on the path: with many classes and features fewer Cs run together."""

VECTORS_REMEMBERED = 24

KEPT_DECISIONS = 2**21
"""Held-out decisions of each C that calibration sees: those of all rows up to here, else of a random part of them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Trial:
    """All folds' heads at one C."""

    C: float
    heads: StreamedHeads
    held_out: HeldOut
    slope: float
    log_loss: float
    """mean of held-out rows"""
    score: float


@dataclass(frozen=True, kw_only=True, slots=True)
class StreamedFit:
    """A head that decides by ``coef @ rows(x) + intercept``, and how its C was found."""

    kind: Normalization
    coef: NDArray[np.float64]
    intercept: NDArray[np.float64]
    C: float
    trials: tuple[Trial, ...]
    best: Trial | None
    accuracy: float
    """of held-out rows, by ``best``, as the next two; NaN if nothing was held out"""
    accuracy_se: float
    log_loss: float
    n_iter: int
    residual: float
    n_passes: int


def fit_streamed(
    reader: BlockReader,
    given: StreamedLabels,
    *,
    loss: Loss,
    kind: Normalization | None,
    n_folds: int,
    Cs: Sequence[float] | None,
    calibrate: bool,
    tol: float,
    max_iter: int,
    rng: np.random.Generator,
) -> StreamedFit:
    """Choose normalisation (if None) and C as in memory, then fit the head of all rows to ``tol``."""
    n_folds, parts = _deal(reader, given, n_folds, rng)
    kind = kind or _choose_kind(reader, given, parts, n_folds, rng)
    problem = _pose(reader, given, parts, n_folds, loss=loss, kind=kind)
    fold_weights = problem.fold_weights()
    trials = _walk(problem, fold_weights, Cs, calibrate=calibrate) if n_folds else ()
    best = min(trials, key=lambda trial: trial.score, default=None)
    if best is None:
        C, start = _untested(problem, Cs)
    else:
        C, start = best.C, _mean(best.heads)
    accuracy, accuracy_se, log_loss = _score(problem, given, best)
    final = zero_heads(problem, folds=np.array([ALL_ROWS]), Cs=np.array([C]))
    final = replace(final, coef=start.coef, intercept=start.intercept)
    head = solve_streamed(problem, final, tol=tol, max_iter=max_iter, dtype=np.float64)
    coef, intercept = problem.normalizer.fold(head.coef[0], head.intercept[0])
    return StreamedFit(
        kind=kind,
        coef=coef,
        intercept=intercept,
        C=C,
        trials=trials,
        best=best,
        accuracy=accuracy,
        accuracy_se=accuracy_se,
        log_loss=log_loss,
        n_iter=head.n_iter,
        residual=head.residual,
        n_passes=reader.n_passes,
    )


def _deal(
    reader: BlockReader, given: StreamedLabels, n_folds: int, rng: np.random.Generator
) -> tuple[int, NDArray[np.intp]]:
    """Return the number of folds and the one that holds each row out (n,), -1 for none."""
    rows = given.rows
    if reader.n_features <= FEW_FEATURES or len(rows) > MANY_ROWS:  # marks of rows by themselves, else beside the first
        marks = np.concatenate(list(reader.map(_mark_span, shared=(len(rows),))))
    else:
        marks = _mark_span(reader, len(rows))
    copies = group_copies(marks[rows], given.labels[rows])
    groups = None if given.groups is None else given.groups[rows]
    n_folds, dealt = deal_parts(n_folds, copies, given.labels[rows], rng, groups=groups)
    parts = np.full(reader.n_samples, -1)
    parts[rows] = dealt
    return n_folds, parts


def _mark_span(reader: BlockReader, n_samples: int) -> Marks:
    return mark_rows((block for _, block in reader.read()), n_samples=n_samples, n_features=reader.n_features)


def _choose_kind(
    reader: BlockReader, given: StreamedLabels, parts: NDArray[np.intp], n_folds: int, rng: np.random.Generator
) -> Normalization:
    """Choose as in memory, where a few thousand rows are screened too; with groups, on so many rows of all folds."""
    rows = given.rows
    view = RowsOfBlocks(reader, rows)
    if given.groups is None:
        return choose_normalization(cast(Any, view), given.labels[rows], weights=given.weights[rows], rng=rng)
    if not n_folds:
        return trusted_order(reader.n_features)[0]
    few = np.flatnonzero(deal(given.labels[rows], -(-len(rows) // MAX_WIDE_ROWS), rng) == 0)
    sample = rows[few]
    held_out = parts[sample] == np.arange(n_folds)[:, None]
    training = TrainingSet(
        features=view[few],
        labels=given.labels[sample],
        classes=given.classes,
        sample_weights=given.sample_weights[sample],
        weights=given.weights[sample],
        rows=np.arange(len(sample)),
        targets=given.labels[sample],
        groups=given.groups[sample],
    )
    return choose_kind(training, Folds(train=~held_out, held_out=held_out), rng)


def _pose(
    reader: BlockReader,
    given: StreamedLabels,
    parts: NDArray[np.intp],
    n_folds: int,
    *,
    loss: Loss,
    kind: Normalization,
) -> StreamedProblem:
    moments = measure_moments(reader, kind=kind, weights=given.sample_weights, parts=parts, n_folds=n_folds)
    normalizer = moments.normalizer()
    axes, spectrum = moments.principal_axes(normalizer)
    return StreamedProblem(
        reader=reader,
        labels=given.labels,
        weights=given.weights,
        parts=parts,
        normalizer=normalizer,
        axes=axes,
        spectrum=spectrum,
        spread=moments.fold_spread(normalizer),
        loss=loss,
        n_outputs=n_outputs(len(given.classes)),
    )


def _walk(
    problem: StreamedProblem, fold_weights: NDArray[np.float64], Cs: Sequence[float] | None, *, calibrate: bool
) -> tuple[Trial, ...]:
    """Try Cs as :func:`walk_path` does, several at once."""
    unit = _unit(problem, untrained_curvature(problem, fold_weights))
    folds = np.arange(problem.n_folds)
    kept = _kept_rows(problem) if calibrate else np.empty(0, dtype=np.intp)

    def walk(grid: NDArray[np.float64], heads: StreamedHeads) -> list[Trial]:
        trials: list[Trial] = []
        for together in _portions(problem, grid):
            n_Cs = len(together)
            start = StreamedHeads(
                folds=np.tile(folds, n_Cs),
                Cs=np.repeat(together, len(folds)),
                coef=np.tile(heads.coef, (n_Cs, 1, 1)),
                intercept=np.tile(heads.intercept, (n_Cs, 1)),
            )
            found = solve_streamed(problem, start, tol=PATH_TOL, max_iter=PATH_MAX_ITER, dtype=np.float32)
            each = [_take(found, slice(first, first + len(folds))) for first in range(0, len(start.folds), len(folds))]
            scored = score_held_out(problem, found, kept)
            for C, of_C, held_out in zip(together, each, scored, strict=True):
                trials.append(_judge(problem, float(C), of_C, held_out, kept, unit=unit, calibrate=calibrate))
                if Cs is None and _turned(trials):
                    return trials
            heads = each[-1]
        return trials

    zero = zero_heads(problem, folds=folds, Cs=np.ones(len(folds)))
    if Cs is not None:
        return tuple(walk(np.sort(np.asarray(Cs, dtype=float)), zero))
    below, above = _two_ways(unit)
    up = walk(above, zero)
    turned_at_once = min(up, key=lambda trial: trial.score) is up[0]
    down = walk(below, up[0].heads) if turned_at_once else []
    return (*down[::-1], *up)


def _two_ways(unit: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the Cs below the one to set out from, downwards, and those from it upwards, as in :mod:`path`."""
    first, start, last = (
        round(STEPS_PER_DECADE * (np.log10(unit) + decade)) for decade in (DECADES[0], START_DECADE, DECADES[1])
    )
    steps = np.arange(first, last + 1) / STEPS_PER_DECADE
    return 10.0 ** steps[: start - first][::-1], 10.0 ** steps[start - first :]


def _judge(
    problem: StreamedProblem,
    C: float,
    heads: StreamedHeads,
    held_out: HeldOut,
    kept: NDArray[np.intp],
    *,
    unit: float,
    calibrate: bool,
) -> Trial:
    slope, log_loss = 1.0, held_out.log_loss / held_out.weight
    if calibrate:
        labels, weights = problem.labels[kept], problem.weights[kept]
        slope = fit_slope(held_out.kept, labels, weights)
        log_loss = float(np.average(log_losses(slope * held_out.kept, labels), weights=weights))
    score = log_loss * held_out.weight + 0.5 * float(np.log10(C / (TYPICAL_C * unit))) ** 2
    return Trial(C=C, heads=heads, held_out=held_out, slope=slope, log_loss=log_loss, score=score)


def _score(problem: StreamedProblem, given: StreamedLabels, best: Trial | None) -> tuple[float, float, float]:
    """Return accuracy, its standard error and log-loss of held-out rows, which count with their sample weights."""
    if best is None:
        return np.nan, np.nan, np.nan
    right, losses = judge_held_out(problem, best.heads, slope=best.slope)
    scored = np.flatnonzero(~np.isnan(losses))
    weights, groups = given.sample_weights[scored], None if given.groups is None else given.groups[scored]
    accuracy, accuracy_se = mean_and_se(right[scored], weights, groups)
    return accuracy, accuracy_se, float(np.average(losses[scored], weights=weights))


def _turned(trials: Sequence[Trial]) -> bool:
    """Say whether the last trials were no better than one before them."""
    scores = [trial.score for trial in trials]
    return len(scores) - 1 - int(np.argmin(scores)) >= PATIENCE


def _portions(problem: StreamedProblem, grid: NDArray[np.float64]) -> list[NDArray[np.float64]]:
    """Cut the grid into the Cs that fit together: a decade, or fewer if their heads are large."""
    one = 4 * VECTORS_REMEMBERED * problem.n_folds * problem.n_outputs * problem.reader.n_features
    size = int(np.clip(HISTORY_BYTES // one, 1, STEPS_PER_DECADE))
    return [grid[first : first + size] for first in range(0, len(grid), size)]


def _unit(problem: StreamedProblem, bend: Floats) -> float:
    """Return the C at which penalty and loss bend an average axis alike, as in :mod:`path`."""
    n_samples, spectrum = len(problem.labels), problem.spectrum
    rank = len(spectrum) if n_samples >= len(spectrum) else int((spectrum > RANK_TOLERANCE * spectrum.max()).sum())
    total = float(bend.mean() * spectrum.sum())
    return n_samples * rank / total if total > 0 else 1.0


def _untested(problem: StreamedProblem, Cs: Sequence[float] | None) -> tuple[float, StreamedHeads]:
    of_classes = np.bincount(problem.labels, problem.weights)[None].astype(float)
    typical = TYPICAL_C * _unit(problem, untrained_curvature(problem, of_classes))
    C = typical if Cs is None else float(min(Cs, key=lambda C: abs(np.log(C / typical))))
    return C, zero_heads(problem, folds=np.array([ALL_ROWS]), Cs=np.array([C]))


def _kept_rows(problem: StreamedProblem) -> NDArray[np.intp]:
    """Return the sorted rows, held out by a fold, whose decisions are kept to calibrate by."""
    rows = np.flatnonzero((problem.parts >= 0) & (problem.weights > 0))
    n_kept = KEPT_DECISIONS // problem.n_outputs
    if len(rows) <= n_kept:
        return rows
    return np.sort(np.random.default_rng(0).choice(rows, size=n_kept, replace=False))


def _take(heads: StreamedHeads, which: slice) -> StreamedHeads:
    return StreamedHeads(
        folds=heads.folds[which], Cs=heads.Cs[which], coef=heads.coef[which], intercept=heads.intercept[which]
    )


def _mean(heads: StreamedHeads) -> StreamedHeads:
    coef, intercept = heads.coef.mean(axis=0, keepdims=True), heads.intercept.mean(axis=0, keepdims=True)
    return replace(heads, coef=coef, intercept=intercept)
