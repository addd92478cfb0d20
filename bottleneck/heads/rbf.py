"""Chooses C of a support vector machine with the RBF kernel on the folds, and fits it to all rows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist
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

LEARNED = ("gamma", "support_vectors", "n_support", "dual_coef", "intercept")

CACHE_MB = 500
BLOCK_ROWS = 1024

UNTESTED_C = 1.0
"""scikit-learn's default: the nearest C to it is taken when no row can be held out."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class RbfMachine:
    """A fitted normalisation and machine as plain arrays, which decide together as scikit-learn's ``SVC`` does."""

    normalizer: Normalizer
    gamma: float
    support_vectors: NDArray[np.float64]
    """(n_support, d) normalised rows, class after class"""
    n_support: NDArray[np.intp]
    """(n_classes,) how many of them each class has"""
    dual_coef: NDArray[np.float64]
    """(n_classes - 1, n_support) weights in the decisions between the vector's class and each other one"""
    intercept: NDArray[np.float64]
    """(n_classes (n_classes - 1) / 2,) for each pair of classes"""

    def as_arrays(self) -> dict[str, NDArray[Any]]:
        """Return all that was learned but the kind of normalisation, by name."""
        learned = {name: np.asarray(getattr(self, name)) for name in LEARNED}
        return {"center": self.normalizer.center, "scale": self.normalizer.scale} | learned

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]], *, kind: Normalization) -> Self:
        """Build a machine from what ``as_arrays`` gave.

        Raises
        ------
        InvalidInputError
            An array is missing, or the shapes do not fit together.
        """
        missing = [name for name in ("center", "scale", *LEARNED) if name not in arrays]
        if missing:
            raise InvalidInputError(f"A machine needs the arrays {missing} too.")
        vectors, n_support = arrays["support_vectors"], arrays["n_support"]
        n_classes, n_features = len(n_support), vectors.shape[-1]
        expected = {
            "center": (n_features,),
            "scale": (n_features,),
            "gamma": (),
            "support_vectors": (int(n_support.sum()), n_features),
            "n_support": (n_classes,),
            "dual_coef": (n_classes - 1, len(vectors)),
            "intercept": (n_classes * (n_classes - 1) // 2,),
        }
        wrong = {name: arrays[name].shape for name, shape in expected.items() if arrays[name].shape != shape}
        if wrong:
            raise InvalidInputError(f"The arrays of a machine do not fit together: {wrong}.")
        return cls(
            normalizer=Normalizer(kind=kind, center=arrays["center"], scale=arrays["scale"]),
            gamma=float(arrays["gamma"]),
            support_vectors=vectors,
            n_support=n_support,
            dual_coef=arrays["dual_coef"],
            intercept=arrays["intercept"],
        )

    def decide(self, features: Floats) -> NDArray[np.float64]:
        """Return decisions (n, n_outputs) for features (n, d)."""
        blocks = [self._decide(features[start : start + BLOCK_ROWS]) for start in range(0, len(features), BLOCK_ROWS)]
        return np.concatenate(blocks)

    def _decide(self, features: Floats) -> NDArray[np.float64]:
        distances = cdist(self.normalizer(features), self.support_vectors, "sqeuclidean")
        pairs = self._between_pairs(np.exp(-self.gamma * distances))
        n_classes = len(self.n_support)
        return np.negative(pairs) if n_classes == 2 else count_votes(pairs, n_classes)

    def _between_pairs(self, kernel: Floats) -> NDArray[np.float64]:
        """Return a decision for each pair of classes (n, n_pairs), positive for the first of the two."""
        ends = np.cumsum(self.n_support)
        own = [slice(end - size, end) for end, size in zip(ends, self.n_support, strict=True)]
        pairs = combinations(range(len(own)), 2)
        decisions = [
            # A vector has no weight against its own class, so that later classes are one row up.
            kernel[:, own[first]] @ self.dual_coef[second - 1, own[first]]
            + kernel[:, own[second]] @ self.dual_coef[first, own[second]]
            for first, second in pairs
        ]
        between: NDArray[np.float64] = np.column_stack(decisions) + self.intercept
        return between


def count_votes(pairs: Floats, n_classes: int) -> NDArray[np.float64]:
    """Turn decisions between pairs (n, n_pairs) into one for each class (n, n_classes): its wins, then its margins."""
    votes = np.zeros((len(pairs), n_classes))
    margins = np.zeros_like(votes)
    for column, (first, second) in enumerate(combinations(range(n_classes), 2)):
        wins = pairs[:, column] >= 0
        votes[:, first] += wins
        votes[:, second] += ~wins
        margins[:, first] += pairs[:, column]
        margins[:, second] -= pairs[:, column]
    counted: NDArray[np.float64] = votes + margins / (3 * (np.abs(margins) + 1))
    return counted


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
    n_iter: int
    C: float
    trials: tuple[RbfTrial, ...]
    best: RbfTrial | None


def fit_rbf(training: TrainingSet, folds: Folds, *, kind: Normalization, Cs: Sequence[float] = RBF_CS) -> RbfFit:
    """Try all Cs on all folds, and fit the one with the least held-out log-loss to all rows."""
    trials = tuple(_try(training, folds, kind, C) for C in sorted(Cs)) if folds.held_out.any() else ()
    best = min(trials, key=lambda trial: trial.log_loss, default=None)
    C = best.C if best else min(Cs, key=lambda C: abs(np.log(C / UNTESTED_C)))
    machine, n_iter = _fit(training, np.ones(len(training.labels), dtype=bool), kind, C)
    return RbfFit(machine=machine, n_iter=n_iter, C=C, trials=trials, best=best)


def _try(training: TrainingSet, folds: Folds, kind: Normalization, C: float) -> RbfTrial:
    totals: Floats = np.zeros((len(training.labels), n_outputs(len(training.classes))))
    for train, held_out in zip(folds.train, folds.held_out, strict=True):
        totals[held_out] += _fit(training, train, kind, C)[0].decide(training.features[held_out])
    scored = folds.held_out.any(axis=0)
    decisions = totals / np.where(scored, folds.held_out.sum(axis=0), np.nan)[:, None]
    labels, weights = training.labels[scored], training.weights[scored]
    slope = fit_slope(decisions[scored], labels, weights)
    log_loss = float(np.average(log_losses(slope * decisions[scored], labels), weights=weights))
    return RbfTrial(C=C, decisions=decisions, slope=slope, log_loss=log_loss)


def _fit(training: TrainingSet, rows: NDArray[np.bool_], kind: Normalization, C: float) -> tuple[RbfMachine, int]:
    features, labels = training.features[rows], training.labels[rows]
    if len(np.unique(labels)) < len(training.classes):
        raise InvalidInputError("The RBF kernel needs every class in the training part of every split. One lacks some.")
    normalizer = fit_normalizer(features, training.sample_weights[rows], kind)
    normalized = normalizer(features)
    # As gamma="scale", with weighted rows.
    spread = float(np.average(np.square(normalized).sum(axis=1), weights=training.sample_weights[rows]))
    gamma = 1 / spread if spread > 0 else 1.0
    machine = SVC(C=C, kernel="rbf", gamma=gamma, cache_size=CACHE_MB)
    machine.fit(normalized, labels, sample_weight=training.weights[rows])
    # Of two classes scikit-learn turns the sign of what libsvm found.
    sign = -1.0 if len(training.classes) == 2 else 1.0
    found = RbfMachine(
        normalizer=normalizer,
        gamma=gamma,
        support_vectors=machine.support_vectors_,
        n_support=machine.n_support_.astype(np.intp),
        dual_coef=sign * machine.dual_coef_,
        intercept=sign * machine.intercept_,
    )
    return found, int(np.max(machine.n_iter_))
