"""Chooses C of a support vector machine with the RBF kernel on the folds, and fits it to all rows."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.svm import SVC

from bottleneck.errors import InvalidInputError
from bottleneck.heads.calibration import fit_slope, log_losses
from bottleneck.heads.folds import Folds
from bottleneck.heads.linear import n_outputs
from bottleneck.heads.normalize import Normalization, Normalizer, fit_normalizer
from bottleneck.heads.training import TrainingSet

Floats = NDArray[np.floating[Any]]

RBF_CS = (0.1, 1.0, 10.0, 100.0)
"""Values of the kernel lie between 0 and 1, whatever the features."""

CACHE_MB = 500

UNTESTED_C = 1.0
"""scikit-learn's default: the nearest C to it is taken when no row can be held out."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class RbfMachine:
    """A fitted normalisation and machine, which decide together."""

    normalizer: Normalizer
    machine: SVC

    def decide(self, features: Floats) -> NDArray[np.float64]:
        """Return decisions (n, n_outputs) for features (n, d)."""
        decisions = self.machine.decision_function(self.normalizer(features))
        return np.asarray(decisions.reshape(len(features), -1))


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class RbfTrial:
    """What the machines of all folds say of the rows they hold out, at one C."""

    C: float
    decisions: NDArray[np.float64]
    """(n, n_outputs); rows of NaN are never held out"""
    slope: float
    log_loss: float


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class RbfFit:
    """The machine of all rows and the trials that chose its C, none if no row could be held out."""

    machine: RbfMachine
    C: float
    trials: tuple[RbfTrial, ...]
    best: RbfTrial | None


def fit_rbf(training: TrainingSet, folds: Folds, *, kind: Normalization, Cs: Sequence[float] = RBF_CS) -> RbfFit:
    """Try all Cs on all folds, and fit the one with the least held-out log-loss to all rows."""
    trials = tuple(_try(training, folds, kind, C) for C in sorted(Cs)) if folds.held_out.any() else ()
    best = min(trials, key=lambda trial: trial.log_loss, default=None)
    C = best.C if best else min(Cs, key=lambda C: abs(np.log(C / UNTESTED_C)))
    machine = _fit(training, np.ones(len(training.labels), dtype=bool), kind, C)
    return RbfFit(machine=machine, C=C, trials=trials, best=best)


def _try(training: TrainingSet, folds: Folds, kind: Normalization, C: float) -> RbfTrial:
    totals: Floats = np.zeros((len(training.labels), n_outputs(len(training.classes))))
    for train, held_out in zip(folds.train, folds.held_out, strict=True):
        totals[held_out] += _fit(training, train, kind, C).decide(training.features[held_out])
    scored = folds.held_out.any(axis=0)
    decisions = totals / np.where(scored, folds.held_out.sum(axis=0), np.nan)[:, None]
    labels, weights = training.labels[scored], training.weights[scored]
    slope = fit_slope(decisions[scored], labels, weights)
    log_loss = float(np.average(log_losses(slope * decisions[scored], labels), weights=weights))
    return RbfTrial(C=C, decisions=decisions, slope=slope, log_loss=log_loss)


def _fit(training: TrainingSet, rows: NDArray[np.bool_], kind: Normalization, C: float) -> RbfMachine:
    features, labels = training.features[rows], training.labels[rows]
    if len(np.unique(labels)) < len(training.classes):
        raise InvalidInputError("The RBF kernel needs every class in the training part of every split. One lacks some.")
    normalizer = fit_normalizer(features, training.sample_weights[rows], kind)
    normalized = normalizer(features)
    # As gamma="scale", with weighted rows.
    spread = float(np.average(np.square(normalized).sum(axis=1), weights=training.sample_weights[rows]))
    machine = SVC(C=C, kernel="rbf", gamma=1 / spread if spread > 0 else 1.0, cache_size=CACHE_MB)
    machine.fit(normalized, labels, sample_weight=training.weights[rows])
    return RbfMachine(normalizer=normalizer, machine=machine)
