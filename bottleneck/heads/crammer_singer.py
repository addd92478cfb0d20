"""Chooses C of the multi-class support vector machine of Crammer and Singer (2001) on the folds, and fits it.

Its loss, by how much the best wrong class comes within 1 of the right one, has corners that the solver of the other
linear heads cannot take. So every machine is scikit-learn's ``LinearSVC``, fitted to normalised features from nothing.
"""

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.svm import LinearSVC

from bottleneck.heads.calibration import fit_slope, log_losses
from bottleneck.heads.folds import Folds
from bottleneck.heads.linear import n_outputs
from bottleneck.heads.normalize import Normalization, Normalizer, fit_normalizer, normalize_rows, row_normalization
from bottleneck.heads.path import CLEAR_RISE, PATIENCE, TYPICAL_C, automatic_grid
from bottleneck.heads.rotation import Rotation, rotate
from bottleneck.heads.training import TrainingSet

Floats = NDArray[np.floating[Any]]
Doubles = NDArray[np.float64]

MAX_PASSES = 100_000
"""Where liblinear gives this machine up, whatever ``max_iter`` says."""

FOLD_TOL = 1e-3
"""How far, in margins, a fold's machine may be from optimal: held-out log-losses were then within 0.001."""

MARGIN_TOL = 100
"""What LinearSVC's ``tol``, in margins, is for a head's ``tol`` of 1. At the head's default the value ended a few
millionths above the least; a hundred times more exact took between 1.5 and 40 times as many passes."""

SMALL, SMALL_TOL = 2**14, 1e-8
"""Products in a pass over all folds up to which all machines are exact, as other small heads are. Liblinear takes no
step below 1e-12, so that it might go on for ever if asked for much more."""

NO_WEIGHT = 1e-12


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Trial:
    """What the machines of all folds say of the rows they hold out, at one C."""

    C: float
    decisions: Doubles
    """(n, n_outputs); rows of NaN are never held out"""
    slope: float
    log_loss: float
    score: float
    """log-loss summed over held-out rows, and half a nat for each squared decade from the typical C"""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class CrammerSingerFit:
    """A machine that decides by ``coef @ rows(x) + intercept``, and the trials, by C, that chose its C."""

    coef: Doubles
    """(n_outputs, n_features)"""
    intercept: Doubles
    """(n_outputs,)"""
    C: float
    n_iter: int
    trials: tuple[Trial, ...]
    best: Trial | None
    """None if no row could be held out"""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Rows:
    """The rows that one machine is trained on."""

    normalizer: Normalizer
    rotation: Rotation | None
    """where there are fewer rows than features, on which a pass would take longer"""
    features: Doubles
    """of unit length on average, without which liblinear's least step would be too long"""
    size: float
    """what they were divided by"""
    labels: NDArray[np.intp]
    weights: Doubles


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Machine:
    coef: Doubles
    intercept: Doubles
    n_iter: int


def fit_crammer_singer(
    training: TrainingSet,
    folds: Folds,
    *,
    kind: Normalization,
    Cs: Sequence[float] | None,
    tol: float,
    rng: np.random.Generator,
) -> CrammerSingerFit:
    """Choose C by held-out log-loss on the grid of the other linear heads, then fit all rows to ``tol``."""
    seed = int(rng.integers(2**31))
    exact = _is_small(training, folds)
    everything = _prepare(training, np.ones(len(training.labels), dtype=bool), kind)
    unit = _unit(everything)
    trials = _try_all(training, folds, kind=kind, Cs=Cs, unit=unit, tol=SMALL_TOL if exact else FOLD_TOL, seed=seed)
    best = min(trials, key=lambda trial: trial.score, default=None)
    C = best.C if best else _untested(Cs, unit)
    machine = _fit(everything, C=C, tol=SMALL_TOL if exact else max(MARGIN_TOL * tol, SMALL_TOL), seed=seed)
    return CrammerSingerFit(
        coef=machine.coef, intercept=machine.intercept, C=C, n_iter=machine.n_iter, trials=trials, best=best
    )


def _try_all(
    training: TrainingSet,
    folds: Folds,
    *,
    kind: Normalization,
    Cs: Sequence[float] | None,
    unit: float,
    tol: float,
    seed: int,
) -> tuple[Trial, ...]:
    """Return the trials at the Cs asked for, or up from a common one until the score has turned, or else down."""
    scored = _scored_rows(training, folds)
    if not scored.any():
        return ()
    wide = int(folds.train.sum(axis=1).max()) < training.features.shape[1]
    # The rotation of few rows is worth keeping; the normalised copies of many are not worth the memory.
    kept = [_prepare(training, train, kind) for train in folds.train] if wide else None

    def judge(C: float) -> Trial:
        total: Doubles = np.zeros((len(scored), n_outputs(len(training.classes))))
        for fold, held_out in enumerate(folds.held_out):
            rows = kept[fold] if kept else _prepare(training, folds.train[fold], kind)
            machine = _fit(rows, C=C, tol=tol, seed=seed)
            new = normalize_rows(training.features[held_out], row_normalization(kind))
            total[held_out] += new @ machine.coef.T + machine.intercept
        times = folds.held_out.sum(axis=0)
        decisions = total / np.where(times > 0, times, np.nan)[:, None]
        labels, weights = training.labels[scored], training.weights[scored]
        slope = fit_slope(decisions[scored], labels, weights)
        loss = float(weights @ log_losses(slope * decisions[scored], labels))
        score = loss + 0.5 * float(np.log10(C / (TYPICAL_C * unit))) ** 2
        return Trial(C=C, decisions=decisions, slope=slope, log_loss=loss / float(weights.sum()), score=score)

    if Cs is not None:
        return tuple(judge(float(C)) for C in sorted(Cs))
    below, above = automatic_grid(unit)
    up = tuple(_until_turned(judge, above))
    down = tuple(_until_turned(judge, below)) if min(up, key=lambda trial: trial.score) is up[0] else ()
    return (*down[::-1], *up)


def _until_turned(judge: Callable[[float], Trial], Cs: Floats) -> Iterator[Trial]:
    best, since_best = np.inf, 0
    for C in Cs:
        trial = judge(float(C))
        yield trial
        since_best = 0 if trial.score < best else since_best + 1
        best = min(best, trial.score)
        if since_best == PATIENCE or trial.score > (1 + CLEAR_RISE) * best:
            return


def _scored_rows(training: TrainingSet, folds: Folds) -> NDArray[np.bool_]:
    """Say which rows (n,) are held out by folds whose training rows include their class."""
    of_class = training.labels[:, None] == np.arange(len(training.classes))
    known = folds.train.astype(float) @ of_class > 0
    unknown = folds.held_out & ~known[:, training.labels]
    scored: NDArray[np.bool_] = folds.held_out.any(axis=0) & ~unknown.any(axis=0)
    return scored


def _is_small(training: TrainingSet, folds: Folds) -> bool:
    n_samples, n_features = training.features.shape
    n_machines = len(training.classes) * max(1, len(folds))
    return bool(n_samples * min(n_samples, n_features) * n_machines <= SMALL)


def _unit(rows: _Rows) -> float:
    """Return the C at which penalty and loss bend an average axis alike, if the hinge were squared: see :mod:`path`."""
    n_samples, rank = rows.features.shape
    bend = 2 * float(rows.weights.sum()) * float(np.square(rows.size * rows.features).sum())
    return n_samples * rank / bend if bend > 0 else 1.0


def _untested(Cs: Sequence[float] | None, unit: float) -> float:
    typical = TYPICAL_C * unit
    return typical if Cs is None else float(min(Cs, key=lambda C: abs(np.log(C / typical))))


def _prepare(training: TrainingSet, chosen: NDArray[np.bool_], kind: Normalization) -> _Rows:
    """Normalise the chosen rows by themselves, and rotate them where they are few."""
    features, labels, weights = training.features[chosen], training.labels[chosen], training.weights[chosen]
    normalizer = fit_normalizer(features, training.sample_weights[chosen], kind)
    normalized = normalizer(features)
    rotation = rotate(normalized) if len(features) < features.shape[1] and normalized.any() else None
    normalized = normalized if rotation is None else rotation.scores.astype(float, copy=False)
    size = float(np.sqrt(np.square(normalized).sum() / len(features))) or 1.0
    # A class that this fold lacks still needs decisions: a row in the middle, of next to no weight, stands for it.
    lacking = np.setdiff1d(np.arange(len(training.classes)), labels)
    return _Rows(
        normalizer=normalizer,
        rotation=rotation,
        features=np.concatenate([normalized / size, np.zeros((len(lacking), normalized.shape[1]))]),
        size=size,
        labels=np.concatenate([labels, lacking]),
        weights=np.concatenate([weights, np.full(len(lacking), NO_WEIGHT)]),
    )


def _fit(rows: _Rows, *, C: float, tol: float, seed: int) -> _Machine:
    """Return the machine on features that are normalised by row only."""
    machine = LinearSVC(
        multi_class="crammer_singer",
        C=C * rows.size**2,
        intercept_scaling=1 / rows.size,
        tol=tol,
        max_iter=MAX_PASSES,
        random_state=seed,
    )
    with warnings.catch_warnings():
        # Who asked for the head is told in its own words.
        warnings.simplefilter("ignore", ConvergenceWarning)
        machine.fit(rows.features, rows.labels, sample_weight=rows.weights)
    coef = machine.coef_ / rows.size
    coef = coef if rows.rotation is None else rows.rotation.to_features(coef)
    coef, intercept = rows.normalizer.fold(coef, machine.intercept_)
    return _Machine(coef=coef, intercept=intercept, n_iter=int(np.max(machine.n_iter_)))
