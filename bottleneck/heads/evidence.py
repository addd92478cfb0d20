"""A mean over rows, and how sure it is."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]


def mean_and_se(values: NDArray[Any], weights: Floats, groups: NDArray[np.intp] | None = None) -> tuple[float, float]:
    """Return the weighted mean of values (n,) and its standard error.

    Rows of one group, numbered from 0, err together and count as one piece of evidence.
    """
    mean = float(np.average(values, weights=weights))  # exactly 1 if all are
    deviations = weights / weights.sum() * (values - mean)
    if groups is not None:
        deviations = np.bincount(groups, deviations)
    return mean, float(np.sqrt(deviations @ deviations))
