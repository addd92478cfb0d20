"""Puts features on a common scale: the normalisations a head chooses among, and their inverse.

Every normalisation is a row-wise step (nothing, or division by the L2 norm of the row) followed by an affine one
(subtract a centre, divide by a scale). The affine step folds into a linear head without a trace, so that a fitted
head is always ``weight @ rows(x) + bias``.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from bottleneck.heads.arrays import cast, namespace, rows_at_once

Floats = NDArray[np.floating[Any]]
Normalization = Literal["center", "l2", "standardize", "none"]
RowNormalization = Literal["none", "l2"]
BlockBalance = Literal["width", "equal"]

BLOCK_ROWS = 256

NORMALIZATIONS: tuple[Normalization, ...] = get_args(Normalization)
BALANCES: tuple[BlockBalance, ...] = get_args(BlockBalance)


@dataclass(frozen=True, kw_only=True, slots=True)
class Normalizer:
    """A fitted normalisation: ``(rows(x) - center) / scale``, both of shape (n_features,)."""

    kind: Normalization
    center: NDArray[np.float64]
    scale: NDArray[np.float64]

    def __call__(self, features: Floats) -> NDArray[np.float64]:
        """Return the normalised features (n, n_features) as a new float64 array."""
        xp = namespace(features)
        rows = normalize_rows(features, row_normalization(self.kind))
        normalized: NDArray[np.float64] = xp.asarray(rows, dtype=xp.float64, copy=True)
        normalized -= self.center
        normalized /= self.scale
        return normalized

    def to_float32(self, features: Floats) -> NDArray[np.float32]:
        """Return the normalised features (n, n_features) rounded to float32, with no larger array on the way."""
        xp = namespace(features)
        normalized: NDArray[np.float32] = xp.empty(features.shape, dtype=xp.float32)
        for block in row_blocks(features):
            normalized[block] = self(features[block])
        return normalized

    def fold(self, coef: Floats, intercept: Floats) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Turn coefficients and intercepts for normalised features into those for ``rows(x)``."""
        folded = coef / self.scale
        return folded, intercept - folded @ self.center


def row_blocks(features: Floats) -> list[slice]:
    """Return the blocks of rows to normalise at once."""
    n_rows = rows_at_once(features, width=features.shape[1], on_processor=BLOCK_ROWS)
    return [slice(start, start + n_rows) for start in range(0, len(features), n_rows)]


def row_normalization(kind: Normalization) -> RowNormalization:
    """Name the row-wise step of a normalisation."""
    return "l2" if kind == "l2" else "none"


def normalize_rows(features: Floats, rows: RowNormalization) -> Floats:
    """Divide each row by its L2 norm if asked to; a row of zeros stays one."""
    if rows == "none":
        return features
    xp = namespace(features)
    norms = xp.linalg.norm(features, axis=1, keepdims=True)
    normalized: Floats = features / xp.where(norms > 0, norms, 1)
    return normalized


def fit_normalizer(features: Floats, weights: Floats, kind: Normalization) -> Normalizer:
    """Measure centre and scale on weighted rows.

    ``center`` and ``l2`` divide by one number, after which the features have a variance of 1 on average, so that a
    C means about the same as after ``standardize``, which divides each feature by its own standard deviation.
    Constant features are left unscaled. ``none`` centres too, which an intercept undoes exactly and rounding likes.
    """
    xp = namespace(features)
    share = weights / weights.sum(dtype=xp.float64)
    center, variance = _moments(features, share, row_normalization(kind))
    if kind == "none":
        return Normalizer(kind=kind, center=center, scale=xp.ones_like(center))
    # A constant feature has a variance of rounding errors, relative to its mean.
    variance[variance <= (10 * xp.finfo(features.dtype).eps * center) ** 2] = 0
    if kind != "standardize":
        variance = variance.mean() * xp.ones_like(variance)
    return Normalizer(kind=kind, center=center, scale=xp.where(variance > 0, xp.sqrt(variance), 1))


def _moments(
    features: Floats, share: NDArray[np.float64], rows: RowNormalization
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return mean and variance of each feature (n_features,), block by block in float64."""
    xp = namespace(features)
    first = cast(normalize_rows(features[:1], rows), xp.float64)[0]
    mean, square = xp.zeros_like(first), xp.zeros_like(first)
    for block in row_blocks(features):
        # Relative to the first row, so that a large mean does not drown a small variance.
        shifted = cast(normalize_rows(features[block], rows), xp.float64) - first
        mean += share[block] @ shifted
        xp.square(shifted, out=shifted)
        square += share[block] @ shifted
    return first + mean, xp.clip(square - xp.square(mean), 0, None)


def concatenate_blocks(blocks: Sequence[Floats], *, balance: BlockBalance = "width") -> Floats:
    """Join features of several layers row by row so that none drowns the others.

    Every row of every block is divided by its root mean square, which needs no fitting. With ``"width"`` that is all,
    and a block counts by its number of features; with ``"equal"`` all blocks count alike. The first never loses much
    to the penultimate layer alone, the second gains more where early layers know more.

    Parameters
    ----------
    blocks
        Arrays (n_samples, n_features_i). One array is returned as it is.

    Returns
    -------
    ndarray
        Features (n_samples, sum of n_features_i).
    """
    if len(blocks) == 1:
        return blocks[0]
    sizes = [np.sqrt(block.shape[1]) if balance == "width" else 1.0 for block in blocks]
    return np.concatenate([size * normalize_rows(block, "l2") for size, block in zip(sizes, blocks, strict=True)], 1)
