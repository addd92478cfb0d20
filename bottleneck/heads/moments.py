"""What one pass over blocks of features says: their normalisation, in each fold too, and their principal axes."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from bottleneck.errors import InvalidInputError
from bottleneck.heads.blocks import BlockReader
from bottleneck.heads.linear import CONSTANT_VARIANCE
from bottleneck.heads.normalize import Normalization, Normalizer, RowNormalization, row_normalization

Floats = NDArray[np.floating[Any]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Moments:
    """Sums over rows(x) - origin: products in single precision within a block, double precision over blocks."""

    kind: Normalization
    n_samples: int
    eps: float
    """of the features' precision"""
    origin: NDArray[np.float64]
    """(d,) a row; features far from zero would drown their variance in rounding errors"""
    total: NDArray[np.float64]
    """(d,) of the rows, without weights"""
    gram: NDArray[np.float64]
    """(d, d) the same of products"""
    weights: NDArray[np.float64]
    """(n_folds + 1,) of the rows that each fold holds out, and last of those that none does"""
    first: NDArray[np.float64]
    """(n_folds + 1, d) weighted sums"""
    second: NDArray[np.float64]
    """(n_folds + 1, d) weighted sums of squares"""

    def normalizer(self) -> Normalizer:
        """Return the normalisation of all rows, as :func:`fit_normalizer` measures it."""
        mean, variance = _mean_and_variance(self.weights.sum(), self.first.sum(axis=0), self.second.sum(axis=0))
        center = self.origin + mean
        if self.kind == "none":
            return Normalizer(kind=self.kind, center=center, scale=np.ones_like(center))
        variance[variance <= (10 * self.eps * center) ** 2] = 0
        if self.kind != "standardize":
            variance = np.full_like(variance, variance.mean())
        return Normalizer(kind=self.kind, center=center, scale=np.where(variance > 0, np.sqrt(variance), 1))

    def fold_spread(self, normalizer: Normalizer) -> NDArray[np.float64]:
        """Return the normalised variance of each fold's training rows (n_folds, d) that its own scale would make 1."""
        n_folds = len(self.weights) - 1
        if self.kind == "none":
            return np.ones((n_folds, len(self.origin)))
        trained = self.weights.sum() - self.weights[:-1, None]
        sums = (self.first.sum(axis=0) - self.first[:-1], self.second.sum(axis=0) - self.second[:-1])
        spread = _mean_and_variance(trained, *sums)[1] / np.square(normalizer.scale)
        if self.kind != "standardize":
            spread = np.repeat(spread.mean(axis=1, keepdims=True), spread.shape[1], axis=1)
        return np.where(spread > CONSTANT_VARIANCE, spread, 1)

    def principal_axes(self, normalizer: Normalizer) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the axes (d, d) of the normalised rows and the sums of squares (d,) along them."""
        shift = normalizer.center - self.origin
        crossed = np.outer(self.total, shift)
        gram = self.gram - crossed - crossed.T + self.n_samples * np.outer(shift, shift)
        gram /= np.outer(normalizer.scale, normalizer.scale)
        spectrum, axes = scipy.linalg.eigh(gram, driver="evd", overwrite_a=True, check_finite=False)
        return axes, np.maximum(spectrum, 0)


def measure_moments(
    reader: BlockReader, *, kind: Normalization, weights: Floats, parts: NDArray[np.intp], n_folds: int
) -> Moments:
    """Sum over all rows once; ``weights`` (n,) are sample weights, ``parts`` (n,) the fold that holds a row out or -1.

    Raises
    ------
    InvalidInputError
        There are no rows.
    """
    rows = row_normalization(kind)
    origin = reader.first_row(rows)
    if origin is None:
        raise InvalidInputError("There are no features: the blocks have no rows.")
    d = reader.n_features
    total, gram = np.zeros(d), np.zeros((d, d))
    summed, first, second = np.zeros(n_folds + 1), np.zeros((n_folds + 1, d)), np.zeros((n_folds + 1, d))
    sums = (total, gram, summed, first, second)
    for sums_of_span in reader.map(_sum_span, weights, parts, shared=(rows, origin, n_folds)):
        for whole, part in zip(sums, sums_of_span, strict=True):
            whole += part
    return Moments(
        kind=kind,
        n_samples=reader.n_samples,
        eps=float(np.finfo(origin.dtype).eps),
        origin=origin.astype(float),
        total=total,
        gram=gram,
        weights=summed,
        first=first,
        second=second,
    )


def _sum_span(
    reader: BlockReader, weights: Floats, parts: NDArray[np.intp], rows: RowNormalization, origin: Floats, n_folds: int
) -> tuple[NDArray[np.float64], ...]:
    """Return total, gram, weights, first and second of :class:`Moments` for some of the rows."""
    d = reader.n_features
    total, gram = np.zeros(d), np.zeros((d, d))
    summed, first, second = np.zeros(n_folds + 1), np.zeros((n_folds + 1, d)), np.zeros((n_folds + 1, d))
    folds = np.append(np.arange(n_folds), -1)[:, None]
    for at, block in reader.read(rows):
        moved = block - origin
        gram += moved.T @ moved
        shares = (parts[at] == folds) * weights[at]
        wide = moved.astype(float)
        total += wide.sum(axis=0)
        summed += shares.sum(axis=1)
        first += shares @ wide
        second += shares @ np.square(wide, out=wide)
    return total, gram, summed, first, second


def _mean_and_variance(weight: Any, first: Floats, second: Floats) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    mean = first / weight
    return mean, np.maximum(second / weight - np.square(mean), 0)
