"""The path of C: heads of all folds from strong to weak regularisation, and the C they agree on.

C is judged by the log-loss of what each fold holds out, plus half a nat for each squared decade away from
``TYPICAL_C``. That smooths the choice when there are few rows, where held-out losses are noisy and separable classes
would ask for an infinite C; from a hundred rows on it hardly matters. (Measured on 2 to 50 images per class of three
sets of photographs with MobileNetV2 features, it halves what choosing C costs against knowing the best one.)
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bottleneck.heads.calibration import fit_slope, log_losses
from bottleneck.heads.solver import Problem, Solution, compute_logits, curvature, solve, zero_heads

Floats = NDArray[np.floating[Any]]

TYPICAL_C = 100.0
"""In units of 1 / (curvature x mean eigenvalue): where the penalty weighs a hundredth of the loss."""

DECADES = (-2, 4)
STEPS_PER_DECADE = 3
PATIENCE = 2
"""Points without a better score after which the path has turned."""

PATH_MAX_ITER = 1000


@dataclass(frozen=True, kw_only=True, slots=True)
class PathPoint:
    """The heads of all folds at one C."""

    C: float
    score: float
    """log-loss summed over held-out rows, and half a nat for each squared decade from the typical C"""
    slope: float
    """makes decisions into logits: 1 unless calibrated"""
    decisions: Floats
    """(n, n_outputs); rows of NaN are never held out"""
    heads: Solution


@dataclass(frozen=True, kw_only=True, slots=True)
class Path:
    """The Cs tried, their held-out log-losses, and the best point."""

    Cs: NDArray[np.float64]
    log_losses: NDArray[np.float64]
    best: PathPoint


def typical_c(problem: Problem) -> float:
    """Return the C to take when no row can be held out."""
    return TYPICAL_C * _unit(problem)


def scored_rows(problem: Problem, held_out: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Say which rows (n,) are held out by folds whose training rows include their class."""
    classes = np.arange(problem.labels.max() + 1)
    known = (problem.weights > 0).astype(float) @ (problem.labels[:, None] == classes) > 0
    unknown = held_out & ~known[:, problem.labels]
    scored: NDArray[np.bool_] = held_out.any(axis=0) & ~unknown.any(axis=0)
    return scored


def walk_path(
    problem: Problem,
    held_out: NDArray[np.bool_],
    *,
    weights: Floats,
    tol: float,
    Cs: Sequence[float] | None = None,
    calibrate: bool = False,
) -> Path:
    """Fit the heads of all folds from the smallest C to the largest, each from the one before, and choose a C.

    ``weights`` (n,) are those of held-out rows, and ``tol`` is the residual at which heads are good enough to
    compare. ``Cs=None`` takes three a decade and stops when the score has turned; Cs that were asked for are all
    tried.
    """
    unit = _unit(problem)
    scored = scored_rows(problem, held_out)
    heads = zero_heads(problem)
    before: Solution | None = None
    tried: list[tuple[float, float]] = []
    best: PathPoint | None = None
    since_best = 0
    for C in _grid(unit) if Cs is None else np.sort(np.asarray(Cs, dtype=float)):
        found = solve(problem, C=float(C), start=heads, before=before, tol=tol, max_iter=PATH_MAX_ITER)
        before, heads = heads if tried else None, found
        decisions = _held_out_decisions(compute_logits(problem, heads), held_out)
        slope = fit_slope(decisions[scored], problem.labels[scored], weights[scored]) if calibrate else 1.0
        loss = float(weights[scored] @ log_losses(slope * decisions[scored], problem.labels[scored]))
        tried.append((float(C), loss / float(weights[scored].sum())))
        score = loss + 0.5 * float(np.log10(C / (TYPICAL_C * unit))) ** 2
        since_best += 1
        if best is None or score < best.score:
            best = PathPoint(C=float(C), score=score, slope=slope, decisions=decisions, heads=heads)
            since_best = 0
        if Cs is None and since_best == PATIENCE:
            break
    assert best is not None, "there is at least one C"
    return Path(Cs=np.array(tried)[:, 0], log_losses=np.array(tried)[:, 1], best=best)


def _unit(problem: Problem) -> float:
    """Return the C at which penalty and loss bend an average axis alike, when nothing has been learned yet."""
    bend = float(curvature(problem, zero_heads(problem)).mean() * problem.spectrum.sum())
    return len(problem.labels) * len(problem.spectrum) / bend if bend > 0 else 1.0


def _grid(unit: float) -> NDArray[np.float64]:
    first, last = (round(STEPS_PER_DECADE * (np.log10(unit) + decade)) for decade in DECADES)
    return 10.0 ** (np.arange(first, last + 1) / STEPS_PER_DECADE)


def _held_out_decisions(logits: Floats, held_out: NDArray[np.bool_]) -> Floats:
    """Return the mean decisions (n, n_outputs) of the folds that hold a row out, NaN where none does."""
    total = np.zeros(logits.shape[1:])
    for fold, rows in enumerate(held_out):
        total[:, rows] += logits[fold][:, rows]
    times = held_out.sum(axis=0)
    return np.where(times > 0, total / np.maximum(times, 1), np.nan).T
