"""Turns features to their principal axes: fewer columns when rows are few, and a spectrum to precondition with.

An L2 penalty does not change under rotation, and the weights that fit n rows lie in the span of those rows. Hence
nothing is lost by fitting on min(n, d) coordinates, and the weights on features are ``basis @ weights``.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bottleneck.heads.arrays import eigh, namespace, rows_at_once

Floats = NDArray[np.floating[Any]]

RANK_TOLERANCE = 1e-10
"""Axes whose share of the largest eigenvalue is below this are dropped; rounding errors make the rest of them up."""

BLOCK_ROWS = 4096


@dataclass(frozen=True, kw_only=True, slots=True)
class Rotation:
    """Features (n, d) as ``scores @ basis.T``."""

    scores: Floats
    """(n, r), r <= min(n, d)"""
    spectrum: Floats
    """(r,), sums of squares of the columns of ``scores``"""
    axes: Floats
    """(d, r) the basis itself, or (n, r) what makes it of the ``rows``"""
    rows: Floats | None
    """(n, d) features, when they are wide: their basis is large and mostly not needed"""

    @property
    def basis(self) -> Floats:
        """Orthonormal columns (d, r)."""
        return self.axes if self.rows is None else self.rows.T @ self.axes

    def to_features(self, coef: Floats) -> Floats:
        """Return coefficients (n_outputs, d) on features that are those given (n_outputs, r) on scores."""
        on_axes = coef @ self.axes.T
        return on_axes if self.rows is None else on_axes @ self.rows


def rotate(features: Floats) -> Rotation:
    """Rotate features (n, d) to their principal axes. The array given is kept, or overwritten."""
    n_samples, n_features = features.shape
    if n_samples < n_features:
        return _rotate_wide(features)
    spectrum, axes = eigh(features.T @ features)
    n_rows = rows_at_once(features, width=n_features, on_processor=BLOCK_ROWS)
    for start in range(0, n_samples, n_rows):
        block = slice(start, start + n_rows)
        features[block] = features[block] @ axes
    return Rotation(scores=features, spectrum=namespace(features).clip(spectrum, 0, None), axes=axes, rows=None)


def principal_axes(gram: Floats) -> tuple[Floats, Floats]:
    """Return the eigenvalues (r,) and axes (n, r) of a Gram matrix of rows (n, n), which is overwritten."""
    spectrum, axes = eigh(gram)
    tolerance = max(RANK_TOLERANCE, 10 * namespace(axes).finfo(axes.dtype).eps)
    kept = spectrum > tolerance * abs(spectrum).max()
    return spectrum[kept], axes[:, kept]


def _rotate_wide(features: Floats) -> Rotation:
    spectrum, axes = principal_axes(features @ features.T)
    singular = namespace(features).sqrt(spectrum)
    return Rotation(scores=axes * singular, spectrum=spectrum, axes=axes / singular, rows=features)
