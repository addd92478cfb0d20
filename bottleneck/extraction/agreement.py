"""How well the features of two ways of computing agree."""

import numpy as np
from numpy.typing import NDArray

MIN_COSINE = 0.9999
"""A faster way is used only while every checked row keeps at least this cosine with its float32 features."""


def lowest_cosine(fast: dict[str, NDArray[np.float32]], exact: dict[str, NDArray[np.float32]]) -> float:
    """Return the lowest cosine, in any layer, of a row's features computed in two ways."""
    return min(_lowest_cosine(fast[layer], exact[layer]) for layer in exact)


def _lowest_cosine(fast: NDArray[np.float32], exact: NDArray[np.float32]) -> float:
    """Return the lowest cosine of two arrays' rows: 1 for two rows of zeros, 0 where only one is, or is not finite."""
    left, right = fast.astype(np.float64), exact.astype(np.float64)
    norms = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
    both_zero = ~left.any(axis=1) & ~right.any(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        cosines = np.nan_to_num((left * right).sum(axis=1) / norms, nan=0.0, posinf=0.0, neginf=0.0)
    return float(np.where(both_zero, 1.0, cosines).min())
