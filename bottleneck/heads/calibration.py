"""Probabilities from the decisions of a head, and the slope that makes decisions of an SVM into logits."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import log_softmax, softmax

Floats = NDArray[np.floating[Any]]

SLOPES = (1e-3, 1e4)
"""Least and most, relative to the size of the decisions: no better than chance, and certain."""


def log_probabilities(decisions: Floats) -> NDArray[np.float64]:
    """Return log-probabilities (n, n_classes) for logits (n, n_classes), or (n, 1) when there are two classes."""
    if decisions.shape[1] == 1:
        decisions = np.concatenate([np.zeros_like(decisions), decisions], axis=1)
    return np.asarray(log_softmax(decisions.astype(float), axis=1))


def log_losses(decisions: Floats, labels: NDArray[np.intp]) -> NDArray[np.float64]:
    """Return the log-loss (n,) of each row's label under its logits."""
    return -log_probabilities(decisions)[np.arange(len(labels)), labels]


def fit_slope(decisions: Floats, labels: NDArray[np.intp], weights: Floats) -> float:
    """Return the slope that makes held-out decisions the best logits (temperature scaling, Guo et al. 2017).

    One slope moves no decision, so that the most probable class remains the predicted one. As in Platt (1999) the
    labels count as a little uncertain, because decisions without an error would ask for an infinite slope: as much
    as one row more that could be of any class.
    """
    logits = decisions.astype(float)
    if logits.shape[1] == 1:
        logits = np.concatenate([np.zeros_like(logits), logits], axis=1)
    doubt = 1 / (1 + weights.sum())
    expected = (1 - doubt) * logits[np.arange(len(labels)), labels] + doubt * logits.mean(axis=1)

    def derivative(log_slope: float) -> float:
        proba = softmax(np.exp(log_slope) * logits, axis=1)
        return float(weights @ ((proba * logits).sum(axis=1) - expected))

    size = float(np.sqrt(np.mean(np.square(logits))))
    if size == 0:
        return 1.0
    low, high = (np.log(factor / size) for factor in SLOPES)
    if derivative(low) >= 0:
        return float(np.exp(low))
    if derivative(high) <= 0:
        return float(np.exp(high))
    return float(np.exp(brentq(derivative, low, high, xtol=1e-13)))
