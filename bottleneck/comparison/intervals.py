"""What held-out images can tell: 95 % intervals of an accuracy, and of the difference of two on the same images."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Z_95 = 1.959963984540054
"""The 97.5 % quantile of the normal distribution."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Interval:
    """A value, and the ends of its 95 % interval."""

    value: float
    low: float
    high: float


def accuracy_interval(correct: NDArray[np.bool_], groups: NDArray[np.intp] | None = None) -> Interval:
    """Return the share of right images (n,) and its Wilson interval.

    Images of one group err together and count for fewer: as many as independent images with the same standard error
    would be, at least one a group.

    References
    ----------
    .. [1] Wilson (1927), Probable inference, the law of succession, and statistical inference.
    .. [2] Kish (1965), Survey Sampling, section 8.2 (the design effect).
    """
    share, n = float(correct.mean()), _effective_number(correct, groups)
    centre = (share * n + Z_95**2 / 2) / (n + Z_95**2)
    half = Z_95 / (n + Z_95**2) * math.sqrt(n * share * (1 - share) + Z_95**2 / 4)
    return Interval(value=share, low=max(0.0, min(share, centre - half)), high=min(1.0, max(share, centre + half)))


def difference_interval(
    correct: NDArray[np.bool_], other: NDArray[np.bool_], groups: NDArray[np.intp] | None = None
) -> Interval:
    """Return how much better the first is on the same images (n,), and the interval of that difference.

    Paired: images that both get right or wrong say nothing, which is why it is narrower than the two accuracies'
    intervals let expect. Half an image is added to each of the four cells, so that two backbones that agree on every
    image are not taken for certainly equal.

    References
    ----------
    .. [1] Agresti and Min (2005), Simple improved confidence intervals for comparing matched proportions.
    """
    n = len(correct)
    gained, lost = int((correct & ~other).sum()) + 0.5, int((other & ~correct).sum()) + 0.5
    centre = (gained - lost) / (n + 2)
    error = math.sqrt(gained + lost - (gained - lost) ** 2 / (n + 2)) / (n + 2)
    differences = correct.astype(float) - other
    if groups is not None:
        error = max(error, _clustered_error(differences, groups))
    value = float(differences.mean())
    low, high = max(-1.0, centre - Z_95 * error), min(1.0, centre + Z_95 * error)
    return Interval(value=value, low=min(value, low), high=max(value, high))


def _effective_number(correct: NDArray[np.bool_], groups: NDArray[np.intp] | None) -> float:
    if groups is None:
        return float(len(correct))
    share, n_groups = float(correct.mean()), len(np.unique(groups))
    error = _clustered_error(correct.astype(float), groups)
    independent = share * (1 - share) / error**2 if error > 0 else n_groups
    return float(np.clip(independent, n_groups, len(correct)))


def _clustered_error(values: NDArray[np.float64], groups: NDArray[np.intp]) -> float:
    """Return the standard error of the mean of values (n,) of which those of a group go together."""
    sums = np.bincount(groups, values - values.mean())
    return float(np.sqrt(np.square(sums).sum())) / len(values)
