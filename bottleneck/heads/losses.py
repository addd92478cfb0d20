"""The losses of linear heads, with gradient and curvature, for several heads side by side.

Arrays are ``(n_heads, n_outputs, n_rows)``: one head per fold, one output per class (one in all when there are two
classes). Rows come last, so that the exponentials run over contiguous memory.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bottleneck.heads.arrays import cast, log_expit, namespace, special

Floats = NDArray[np.floating[Any]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Loss:
    """A loss of logits (heads, outputs, rows) and labels (rows,).

    ``residuals`` overwrites the logits with the derivative of the loss by them and returns the loss of every row
    (heads, rows); ``curvature`` turns those derivatives into the diagonal of the second derivative. ``bend``
    multiplies changes of the logits of one head (outputs, rows) by its whole second derivative there.
    """

    residuals: Callable[[Floats, NDArray[np.intp]], Floats]
    curvature: Callable[[Floats], Floats]
    bend: Callable[[Floats, NDArray[np.intp], Floats], Floats]


def _softmax(logits: Floats, labels: NDArray[np.intp]) -> Floats:
    xp = namespace(logits)
    rows = xp.arange(len(labels))
    logits -= xp.amax(logits, axis=1, keepdims=True)
    own = logits[:, labels, rows]
    xp.exp(logits, out=logits)
    total = logits.sum(axis=1)
    logits /= total[:, None]
    logits[:, labels, rows] -= 1
    losses: Floats = xp.log(total) - own
    return losses


def _sigmoid(logits: Floats, labels: NDArray[np.intp]) -> Floats:
    sign = cast(2 * labels - 1, logits.dtype)
    margin = logits[:, 0] * sign
    logits[:, 0] = -sign * special(margin).expit(-margin)
    losses: Floats = -log_expit(margin)
    return losses


def _squared_hinge(logits: Floats, labels: NDArray[np.intp]) -> Floats:
    xp = namespace(logits)
    sign = xp.full(logits.shape[1:], -1, dtype=logits.dtype)
    if len(sign) == 1:
        sign[0, labels == 1] = 1
    else:
        sign[labels, xp.arange(len(labels))] = 1
    slack = xp.clip(1 - sign * logits, 0, None)
    logits[...] = -2 * sign * slack
    losses: Floats = xp.square(slack).sum(axis=1)
    return losses


def _probability_curvature(residuals: Floats) -> Floats:
    # A residual is p or p - 1, so that p (1 - p) = |residual| (1 - |residual|).
    magnitude: Floats = abs(residuals)
    curvature: Floats = magnitude * (1 - magnitude)
    return curvature


def _softmax_bend(residuals: Floats, labels: NDArray[np.intp], changes: Floats) -> Floats:
    xp = namespace(residuals)
    proba = xp.asarray(residuals, copy=True)
    proba[labels, xp.arange(len(labels))] += 1
    bent: Floats = proba * changes
    bent -= proba * bent.sum(axis=0)
    return bent


def _diagonal_bend(
    curvature: Callable[[Floats], Floats], residuals: Floats, labels: NDArray[np.intp], changes: Floats
) -> Floats:
    return curvature(residuals) * changes


def _hinge_curvature(residuals: Floats) -> Floats:
    curvature: Floats = 2 * cast(residuals != 0, residuals.dtype)
    return curvature


SOFTMAX = Loss(residuals=_softmax, curvature=_probability_curvature, bend=_softmax_bend)
SIGMOID = Loss(
    residuals=_sigmoid, curvature=_probability_curvature, bend=partial(_diagonal_bend, _probability_curvature)
)
SQUARED_HINGE = Loss(
    residuals=_squared_hinge, curvature=_hinge_curvature, bend=partial(_diagonal_bend, _hinge_curvature)
)
