"""Probabilities from the decisions of a head, and the slope that makes decisions of an SVM into logits."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq

from bottleneck.heads.arrays import cast, namespace, special

Floats = NDArray[np.floating[Any]]

SLOPES = (1e-3, 1e4)
"""Least and most, relative to the size of the decisions: no better than chance, and certain."""


def log_probabilities(decisions: Floats) -> NDArray[np.float64]:
    """Return log-probabilities (n, n_classes) for logits (n, n_classes), or (n, 1) when there are two classes."""
    xp = namespace(decisions)
    if decisions.shape[1] == 1:
        decisions = xp.concatenate([xp.zeros_like(decisions), decisions], axis=1)
    log_proba: NDArray[np.float64] = special(decisions).log_softmax(cast(decisions, xp.float64), axis=1)
    return log_proba


def log_losses(decisions: Floats, labels: NDArray[np.intp]) -> NDArray[np.float64]:
    """Return the log-loss (n,) of each row's label under its logits."""
    losses: NDArray[np.float64] = -(log_probabilities(decisions)[namespace(decisions).arange(len(labels)), labels])
    return losses


def fit_slope(decisions: Floats, labels: NDArray[np.intp], weights: Floats) -> float:
    """Return the slope that makes held-out decisions the best logits (temperature scaling, Guo et al. 2017).

    One slope moves no decision, so that the most probable class remains the predicted one. As in Platt (1999) the
    labels count as a little uncertain, because decisions without an error would ask for an infinite slope: as much
    as one row more that could be of any class.
    """
    xp = namespace(decisions)
    logits = cast(decisions, xp.float64)
    if logits.shape[1] == 1:
        logits = xp.concatenate([xp.zeros_like(logits), logits], axis=1)
    doubt = 1 / (1 + weights.sum())
    weights = cast(weights, logits.dtype)
    expected = (1 - doubt) * logits[xp.arange(len(labels)), labels] + doubt * logits.mean(axis=1)

    def derivative(log_slope: float) -> float:
        proba = special(logits).softmax(float(np.exp(log_slope)) * logits, axis=1)
        return float(weights @ ((proba * logits).sum(axis=1) - expected))

    size = float(xp.sqrt(xp.mean(xp.square(logits))))
    if size == 0:
        return 1.0
    low, high = (np.log(factor / size) for factor in SLOPES)
    if derivative(low) >= 0:
        return float(np.exp(low))
    if derivative(high) <= 0:
        return float(np.exp(high))
    return float(np.exp(brentq(derivative, low, high, xtol=1e-13)))
