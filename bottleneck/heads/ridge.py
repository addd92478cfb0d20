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

from bottleneck.heads.rotation import principal_axes, rotate

Floats = NDArray[np.floating[Any]]

PENALTIES = np.logspace(-3, 4, 15)
"""Penalties tried, in units of the mean eigenvalue of the Gram matrix: two a decade."""

BLOCK_ELEMENTS = 2**20
"""Predictions made at once, which bounds memory."""


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
    share = weights / weights.sum()
    rotation = rotate(np.sqrt(weights)[:, None] * (features - share @ features))
    return _predict_left_out(rotation.scores, rotation.spectrum, labels, weights, penalties)


def leave_one_out_by_gram(
    gram: Floats, labels: NDArray[np.intp], *, weights: Floats, penalties: Floats | None = None
) -> Iterator[LeaveOneOut]:
    """Yield what :func:`leave_one_out` yields for features of which only the Gram matrix of the rows (n, n) is known.

    Their centre may be anywhere near: the intercept is free. The block of some rows is the Gram matrix of these.
    """
    weights = weights.astype(gram.dtype)
    root, share = np.sqrt(weights)[:, None], weights / weights.sum()
    means = gram @ share
    centred = gram - means
    centred -= (means - share @ means)[:, None]
    centred *= root
    centred *= root.T
    spectrum, axes = principal_axes(centred)
    return _predict_left_out(axes * np.sqrt(spectrum), spectrum, labels, weights, penalties)


def _predict_left_out(
    scores: Floats, spectrum: Floats, labels: NDArray[np.intp], weights: Floats, penalties: Floats | None
) -> Iterator[LeaveOneOut]:
    """Yield the predictions by the scores (n, r) of rows centred and times the roots of their weights."""
    root = np.sqrt(weights)[:, None]
    share = weights / weights.sum()
    targets = np.eye(labels.max() + 1, dtype=scores.dtype)[labels]
    centred = root * (targets - share @ targets)
    projected = scores.T @ centred
    if penalties is None:
        mean_eigenvalue = spectrum.sum() / max(1, len(spectrum))
        penalties = PENALTIES.astype(scores.dtype) * (mean_eigenvalue or 1)
    shrinks = 1 / (spectrum[:, None] + penalties)
    left = 1 - share[:, None] - np.square(scores) @ shrinks
    # One product for several penalties reads the scores once.
    n_at_once = max(1, BLOCK_ELEMENTS // targets.size)
    for start in range(0, len(penalties), n_at_once):
        some = shrinks[:, start : start + n_at_once]
        n_penalties, n_classes = some.shape[1], targets.shape[1]
        coef = (some[:, :, None] * projected[:, None]).reshape(len(projected), n_penalties * n_classes)
        fitted = (scores @ coef).reshape(len(scores), n_penalties, n_classes)
        for offset in range(n_penalties):
            residuals = (centred - fitted[:, offset]) / (root * left[:, start + offset, None])
            yield LeaveOneOut(penalty=float(penalties[start + offset]), predictions=targets - residuals)
