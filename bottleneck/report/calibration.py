"""Whether a classifier that is 90 % sure is right 90 % of the time."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bottleneck.report.metrics import Share

N_BINS = 15
"""Guo et al. (2017), On calibration of modern neural networks, section 2; bins are open on the left as theirs are."""

N_DRAWS = 1000
"""Simulated test sets for the error that chance alone gives: its mean is then within about 2 % of itself."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Bin:
    """The images whose most likely class got a probability above ``low`` up to ``high``."""

    low: float
    high: float
    confidence: float
    accuracy: Share


@dataclass(frozen=True, kw_only=True, slots=True)
class Calibration:
    """Accuracy by confidence.

    Attributes
    ----------
    bins : tuple of Bin
        Those that have images, by rising confidence.
    error : float
        Expected calibration error: the mean distance of confidence and accuracy over the bins, weighted by images.
    error_by_chance : float
        What the error would be on average if the probabilities were right, with as many images.
    """

    bins: tuple[Bin, ...]
    error: float
    error_by_chance: float


def calibrate(confidence: NDArray[np.float64], correct: NDArray[np.bool_]) -> Calibration:
    """Compare the probability of the predicted class, (n,), with how often it was right.

    The calibration error is biased upwards on few images, so the error of a perfectly calibrated classifier is given
    beside it: bins redrawn as if their confidence were true (Bröcker and Smith 2007, Increasing the reliability of
    reliability diagrams).
    """
    index = np.clip(np.ceil(confidence * N_BINS).astype(np.int64) - 1, 0, N_BINS - 1)
    counts = np.bincount(index, minlength=N_BINS)
    filled = np.flatnonzero(counts)
    n, n_right = counts[filled], np.bincount(index, weights=correct, minlength=N_BINS)[filled]
    mean = np.clip(np.bincount(index, weights=confidence, minlength=N_BINS)[filled] / n, 0, 1)
    drawn = np.random.default_rng(0).binomial(n, mean, size=(N_DRAWS, len(n)))
    return Calibration(
        bins=tuple(
            Bin(
                low=number / N_BINS,
                high=(number + 1) / N_BINS,
                confidence=float(mean[i]),
                accuracy=Share(n_right=int(n_right[i]), n=int(n[i])),
            )
            for i, number in enumerate(filled.tolist())
        ),
        error=float(np.abs(n_right - n * mean).sum() / n.sum()),
        error_by_chance=float(np.abs(drawn - n * mean).sum(axis=1).mean() / n.sum()),
    )
