"""The path of C: heads of all folds along strengths of regularisation, and the C they agree on.

C is judged by the log-loss of what each fold holds out, plus half a nat for each squared decade away from
``TYPICAL_C``. That smooths the choice when there are few rows, where held-out losses are noisy and separable classes
would ask for an infinite C; from a hundred rows on it hardly matters. (Measured on 2 to 50 images per class of three
sets of photographs with MobileNetV2 features, it halves what choosing C costs against knowing the best one.)
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bottleneck.heads.arrays import as_array, beside, cast, namespace, rows_at_once
from bottleneck.heads.calibration import fit_slope, log_losses
from bottleneck.heads.solver import Problem, Solution, compute_logits, curvature, solve, zero_heads

Floats = NDArray[np.floating[Any]]

TYPICAL_C = 100.0
"""In units of 1 / (curvature x mean eigenvalue): where the penalty weighs a hundredth of the loss."""

DECADES = (-3, 4)
START_DECADE = -1
"""Where the path sets out, a decade or more before where it ends on deep features: from there to the end took 40
evaluations on 1,000 images; straight to the middle 90, because heads without a path behind them are far away."""

STEPS_PER_DECADE = 3
PATIENCE = 2
"""Points without a better score after which the path has turned."""

CLEAR_RISE = 0.01
"""Relative rise of the score after which it has turned at once."""

PATH_MAX_ITER = 1000


@dataclass(frozen=True, kw_only=True, slots=True)
class PathPoint:
    """The heads of all folds at one C."""

    C: float
    score: float
    """log-loss summed over held-out rows, and half a nat for each squared decade from the typical C"""
    log_loss: float
    """mean over held-out rows"""
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
    labels, trained = as_array(problem.labels), as_array(problem.weights > 0)
    known = np.zeros((len(trained), labels.max() + 1), dtype=bool)
    for fold, rows in enumerate(trained):
        known[fold, labels[rows]] = True
    unknown: NDArray[np.bool_] = held_out & ~known[:, labels]
    return np.asarray(held_out.any(axis=0) & ~unknown.any(axis=0))


def walk_path(
    problem: Problem,
    held_out: NDArray[np.bool_],
    *,
    weights: Floats,
    tol: float,
    Cs: Sequence[float] | None = None,
    calibrate: bool = False,
) -> Path:
    """Fit the heads of all folds at one C after the other, each from those before, and choose a C.

    ``weights`` (n,) are those of held-out rows, and ``tol`` is the residual at which heads are good enough to
    compare. ``Cs=None`` takes three a decade, up from a common C until the score has turned, or else down from it;
    Cs that were asked for are all tried.
    """
    scored = scored_rows(problem, held_out)
    held_out = beside(problem.scores, held_out)

    def decide(heads: Solution, C: float) -> Floats:
        return _held_out_decisions(problem, heads, held_out)

    return choose_c(problem, decide, scored=scored, weights=weights, tol=tol, Cs=Cs, calibrate=calibrate)


def choose_c(
    problem: Problem,
    decide: Callable[[Solution, float], Floats],
    *,
    scored: NDArray[np.bool_],
    weights: Floats,
    tol: float,
    Cs: Sequence[float] | None,
    calibrate: bool = False,
) -> Path:
    """Walk the path, judged by the decisions (n, n_outputs) on scored rows that ``decide`` makes of heads at a C."""
    unit = _unit(problem)
    xp, scored = namespace(problem.scores), beside(problem.scores, scored)
    labels, row_weights = problem.labels[scored], weights[scored]

    def judge(C: float, start: Solution, before: Solution | None) -> PathPoint:
        heads = solve(problem, C=C, start=start, before=before, tol=tol, max_iter=PATH_MAX_ITER)
        decisions = decide(heads, C)
        slope = fit_slope(decisions[scored], labels, row_weights) if calibrate else 1.0
        loss = float(cast(row_weights, xp.float64) @ log_losses(slope * decisions[scored], labels))
        return PathPoint(
            C=C,
            score=loss + 0.5 * float(np.log10(C / (TYPICAL_C * unit))) ** 2,
            log_loss=loss / float(row_weights.sum()),
            slope=slope,
            decisions=decisions,
            heads=heads,
        )

    if Cs is not None:
        walked = _walk(judge, np.sort(np.asarray(Cs, dtype=float)), [zero_heads(problem)], patience=None)
    else:
        below, above = automatic_grid(unit)
        walked = _walk(judge, above, [zero_heads(problem)], patience=PATIENCE)
        if walked.tried[0][0] == walked.best.C:
            walked = walked.joined(_walk(judge, below, walked.first_heads, patience=PATIENCE))
    tried = np.array(sorted(walked.tried))
    return Path(Cs=tried[:, 0], log_losses=tried[:, 1], best=walked.best)


Judge = Callable[[float, Solution, Solution | None], PathPoint]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Walked:
    tried: list[tuple[float, float]]
    """Cs and log-losses"""
    best: PathPoint
    first_heads: list[Solution]
    """of the second point and the first: where a walk in the other direction sets out"""

    def joined(self, other: "_Walked") -> "_Walked":
        best = min(self.best, other.best, key=lambda point: point.score)
        return _Walked(tried=self.tried + other.tried, best=best, first_heads=self.first_heads)


def _walk(judge: Judge, Cs: Floats, heads: list[Solution], *, patience: int | None) -> _Walked:
    """Judge one C after the other, from the last of ``heads``, until the best is so many points ago."""
    tried: list[tuple[float, float]] = []
    best: PathPoint | None = None
    since_best = 0
    trail = list(heads)
    first_heads: list[Solution] = []
    for C in Cs:
        point = judge(float(C), trail[-1], trail[-2] if len(trail) > 1 else None)
        tried.append((point.C, point.log_loss))
        # Heads of zero are no point of the path that leads anywhere.
        trail = [trail[-1], point.heads] if tried[1:] or len(heads) > 1 else [point.heads]
        first_heads = trail[::-1] if len(tried) == 2 else first_heads
        since_best = 0 if best is None or point.score < best.score else since_best + 1
        best = point if since_best == 0 or best is None else best
        if patience and (since_best == patience or point.score > (1 + CLEAR_RISE) * best.score):
            break
    assert best is not None, "there is at least one C"
    return _Walked(tried=tried, best=best, first_heads=first_heads or trail)


def _unit(problem: Problem) -> float:
    """Return the C at which penalty and loss bend an average axis alike, when nothing has been learned yet."""
    bend = float(curvature(problem, zero_heads(problem)).mean() * problem.spectrum.sum())
    return len(problem.labels) * len(problem.spectrum) / bend if bend > 0 else 1.0


def automatic_grid(unit: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the Cs that may be tried: downwards from below the first one, and upwards from it."""
    first, start, last = (
        round(STEPS_PER_DECADE * (np.log10(unit) + decade)) for decade in (DECADES[0], START_DECADE, DECADES[1])
    )
    below, above = np.arange(start - 1, first - 1, -1), np.arange(start, last + 1)
    return 10.0 ** (below / STEPS_PER_DECADE), 10.0 ** (above / STEPS_PER_DECADE)


def _held_out_decisions(problem: Problem, heads: Solution, held_out: NDArray[np.bool_]) -> Floats:
    """Return the mean decisions (n, n_outputs) of the folds that hold a row out, NaN where none does."""
    xp = namespace(problem.scores)
    n_samples, width = len(problem.labels), len(held_out) * problem.n_outputs
    total = xp.zeros((problem.n_outputs, n_samples), dtype=xp.float64)
    n_rows = rows_at_once(problem.scores, width=width, on_processor=n_samples)
    for start in range(0, n_samples, n_rows):
        block = slice(start, start + n_rows)
        logits, decided = compute_logits(problem, heads, block), total[:, block]
        for fold, rows in enumerate(held_out[:, block]):
            decided[:, rows] += logits[fold][:, rows]
    times = held_out.sum(axis=0)
    mean: Floats = xp.where(times > 0, total / xp.clip(times, 1, None), xp.nan).T
    return mean
