"""Ridge regression on one-hot targets with exact closed-form leave-one-out predictions.

The prediction for a row by the model fitted without it follows from the model fitted on all rows: its residual is
divided by 1 - h, where h is the leverage of the row (Allen 1974; Golub, Heath and Wahba 1979). One
eigendecomposition serves every penalty.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bottleneck.heads.rotation import rotate

Floats = NDArray[np.floating[Any]]

PENALTIES = np.logspace(-3, 4, 15)
"""Penalties tried, in units of the mean eigenvalue of the Gram matrix: two a decade."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LeaveOneOut:
    """Predictions (n, n_classes) for every row by the ridge regression fitted on all others."""

    penalty: float
    predictions: Floats


def leave_one_out(
    features: Floats, labels: NDArray[np.intp], *, weights: Floats, penalties: Floats | None = None
) -> Iterator[LeaveOneOut]:
    """Yield the leave-one-out predictions of each penalty, in the precision of ``features``.

    The regression minimises ``sum_i weights_i |onehot_i - x_i B - b|^2 + penalty |B|^2``; the intercept b is free.
    """
    weights = weights.astype(features.dtype)
    root = np.sqrt(weights)[:, None]
    share = weights / weights.sum()
    targets = np.eye(labels.max() + 1, dtype=features.dtype)[labels]
    rotation = rotate(root * (features - share @ features))
    scores, spectrum = rotation.scores, rotation.spectrum
    centred = root * (targets - share @ targets)
    projected = scores.T @ centred
    if penalties is None:
        mean_eigenvalue = spectrum.sum() / max(1, len(spectrum))
        penalties = PENALTIES.astype(features.dtype) * (mean_eigenvalue or 1)
    shrinks = 1 / (spectrum[:, None] + penalties)
    leverages = share[:, None] + np.square(scores) @ shrinks
    for penalty, shrink, leverage in zip(penalties, shrinks.T, leverages.T, strict=True):
        residuals = (centred - scores @ (shrink[:, None] * projected)) / (root * (1 - leverage)[:, None])
        yield LeaveOneOut(penalty=float(penalty), predictions=targets - residuals)
