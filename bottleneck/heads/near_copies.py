"""Finds images that look the same to the backbone: saved again, scaled, cut a little, or taken a moment later.

Unlike :mod:`duplicates`, which keeps copies out of each other's folds, this is for people to look at, across labels,
and finds more. An image has a near copy where another lies nearer than half as far as its next neighbours do, which
needs no scale of the set, and less than half where features spread in so few directions that chance would do it.

Measured on 60 images of each of three sets (ants and bees, clothing, textures). With MobileNetV2 all copies saved again
at JPEG quality 85 or brightened by a tenth are found, 99 % at quality 70, 83 % at 50, 90 % of those cut to 95 % of
their sides and 60 % to 90 %, 13 % at half the size; with the embedded backbone all of quality 50 or half the size, 99 %
cut to 95 % and 90 % to 90 %. Of different photographs no two of ants and bees are that near. Of 3,409 pieces of
clothing three pairs are: the two looked at are one piece taken twice, once under two labels. Of 800 textures ten sets
are, most of them crops of one photograph, and of 4,000 drawings of clothes at 28 pixels two pairs. Of more than six
copies of one image only those are found that are within ``NEAR`` of the typical distance. A fixed cosine tells less:
0.89 for copies at quality 50, 0.96 for one different pair of textures in a hundred.
"""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import scipy.sparse
from numpy.typing import NDArray
from sklearn.neighbors import NearestNeighbors

from bottleneck.heads.duplicates import BLOCK_ROWS, FEW_FEATURES, MANY_ROWS, NEAR, connected, row_codes

NEAR_SHARE = 0.5
"""Distance of a near copy as a share of the mean distance to the next neighbours; see above."""

CHANCE = 1 / 500
"""Share of images that may have a near copy by chance: where features spread in few directions, the share above is
lowered until no more have."""

NEIGHBOURS = 6
"""Nearest others that are looked at: the first may be copies, the mean of all but the first is the measure."""

COPIES_ALLOWED_FOR = 2
MEDIAN_GROWTH = 1.27
"""Median of the sum of log(d6 / d) over the third to the fifth neighbour in one dimension, where these logarithms are
sums of exponential variables of the rates 3, 4 and 5 (Levina and Bickel 2004)."""
TINY = np.finfo(float).tiny

FEWEST_ROWS = 2 * NEIGHBOURS
"""Distinct rows below which there is no measure of how far neighbours lie."""

SKETCH_SIZE = 64
"""Random directions that keep distances within a tenth, as a rule (Johnson and Lindenstrauss 1984)."""

SLACK = 1.5
"""How much nearer than in the sketch two rows may be: what is within that is measured exactly."""

EXACT_ROWS = 256
"""Rows that are measured exactly at a time."""

ENOUGH_MEMBERS = 10
"""Images of a label from which on its own typical distance is known well enough."""


class Rows(Protocol):
    """Features (n, d) of which some rows can be had at a time: an array, or rows on disk."""

    @property
    def shape(self) -> tuple[int, ...]:
        """``(n, d)``."""
        ...

    def __getitem__(self, rows: Any, /) -> Any: ...


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Copies:
    """Which rows are alike.

    Attributes
    ----------
    same : intp array (n,)
        The same number for rows whose features are equal bit by bit.
    alike : intp array (n,)
        The same number for rows that a chain of near copies joins; features of at most ``FEW_FEATURES`` do not tell.
    searched : bool
        Whether near copies were looked for: not among more than ``MANY_ROWS`` rows.
    """

    same: NDArray[np.intp]
    alike: NDArray[np.intp]
    searched: bool


def find_copies(features: Rows, labels: NDArray[np.generic]) -> Copies:
    """Find equal and nearly equal rows of features (n, d), whatever their labels (n,).

    Memory is bounded by blocks of rows.
    """
    n_rows, n_features = features.shape
    starts = range(0, n_rows, BLOCK_ROWS)
    codes = np.concatenate([row_codes(features[start : start + BLOCK_ROWS]) for start in starts])
    _, first, same = np.unique(codes, return_index=True, return_inverse=True)
    searched = n_rows <= MANY_ROWS
    if n_features <= FEW_FEATURES:
        return Copies(same=same, alike=np.arange(n_rows), searched=searched)
    if not searched or len(first) < FEWEST_ROWS:
        return Copies(same=same, alike=same, searched=searched)
    left, right = _near_pairs(features, first, typical_distances(features, labels)[first])
    return Copies(same=same, alike=connected(left, right, len(first))[same], searched=True)


def typical_distances(features: Rows, labels: NDArray[np.generic]) -> NDArray[np.float64]:
    """Return for each row the root mean square distance between two rows of its label, (n,).

    Of a label with few rows, which may all be copies, that between all rows.
    """
    codes = np.unique(labels, return_inverse=True)[1]
    n_rows, n_features = features.shape
    counts = np.bincount(codes)
    sums, squares = np.zeros((len(counts), n_features)), np.zeros(len(counts))
    origin = features[:1].astype(np.float64)  # squares of features that are far from zero would lose their digits
    for start in range(0, n_rows, BLOCK_ROWS):
        block = features[start : start + BLOCK_ROWS] - origin
        own = codes[start : start + BLOCK_ROWS]
        members = (np.ones(len(own)), (own, np.arange(len(own))))
        sums += scipy.sparse.coo_array(members, shape=(len(counts), len(own))) @ block
        squares += np.bincount(own, np.einsum("nd,nd->n", block, block), minlength=len(counts))
    spread = squares / counts - np.square(sums / counts[:, None]).sum(axis=1)
    overall = squares.sum() / n_rows - np.square(sums.sum(axis=0) / n_rows).sum()
    found: NDArray[np.float64] = np.sqrt(2 * np.maximum(np.where(counts >= ENOUGH_MEMBERS, spread, overall), 0))
    return found[codes]


def _near_pairs(
    features: Rows, rows: NDArray[np.intp], typical: NDArray[np.float64]
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return pairs of positions in ``rows`` (distinct rows) that are near copies; ``typical`` as positions are."""
    rough, neighbours = _sketched_neighbours(features, rows)
    share = near_share(rough)
    typical = typical * NEAR * share / NEAR_SHARE
    limit = SLACK * np.maximum(share * rough[:, 1:].mean(axis=1), typical)
    possible = np.flatnonzero(rough[:, 0] <= limit)
    measured = np.unique(np.concatenate([possible, neighbours[possible].ravel()]))
    exact = rough.copy()
    exact[measured] = _exact_distances(features, rows, measured, neighbours[measured])
    # The sketch may have put the neighbours in another order.
    next_ones = (exact.sum(axis=1) - exact.min(axis=1)) / (NEIGHBOURS - 1)
    nearby = np.minimum(next_ones[possible, None], next_ones[neighbours[possible]])
    usual = np.minimum(typical[possible, None], typical[neighbours[possible]])
    near = exact[possible] <= np.maximum(share * nearby, usual)
    found, columns = np.nonzero(near)
    return possible[found], neighbours[possible[found], columns]


def near_share(distances: NDArray[np.float64]) -> float:
    """Return the share of the distance to its next neighbours within which a row is a near copy.

    In m dimensions one of k - 1 neighbours lies within a share t of the distance to the k-th by a chance of at most
    (k - 1) t^m. How many dimensions the rows spread in shows in how the distances (n, k), sorted, to their neighbours
    grow (Levina and Bickel 2004). The first two are left out, and the median taken: many rows may have copies.
    """
    later = distances[:, COPIES_ALLOWED_FOR:]
    growth = float(np.median(np.log(later[:, -1:] / np.maximum(later, TINY)).sum(axis=1)))
    return float(min(NEAR_SHARE, (CHANCE / (NEIGHBOURS - 1)) ** (growth / MEDIAN_GROWTH)))


def _sketched_neighbours(features: Rows, rows: NDArray[np.intp]) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """Return distances and positions (m, NEIGHBOURS) of the nearest others among ``rows`` (m,), both nearly right."""
    directions = np.random.default_rng(0).standard_normal((features.shape[1], SKETCH_SIZE)) / np.sqrt(SKETCH_SIZE)
    directions = directions.astype(np.float32)
    origin = features[:1]  # distances between features that are far from zero would drown in rounding errors
    sketch = np.concatenate(
        [
            (features[rows[start : start + BLOCK_ROWS]] - origin).astype(np.float32) @ directions
            for start in range(0, len(rows), BLOCK_ROWS)
        ]
    )
    sketch -= sketch.mean(axis=0)
    distances, neighbours = NearestNeighbors(n_neighbors=NEIGHBOURS, algorithm="brute").fit(sketch).kneighbors()
    return distances.astype(np.float64), neighbours.astype(np.intp)


def _exact_distances(
    features: Rows, rows: NDArray[np.intp], positions: NDArray[np.intp], neighbours: NDArray[np.intp]
) -> NDArray[np.float64]:
    """Return the distance (m, k) from the row at each position (m,) to those at its neighbours (m, k)."""
    found = np.empty(neighbours.shape)
    for start in range(0, len(positions), EXACT_ROWS):
        part = slice(start, start + EXACT_ROWS)
        own = features[rows[positions[part]]]
        others = features[rows[neighbours[part].ravel()]].reshape(*neighbours[part].shape, -1)
        found[part] = np.linalg.norm(others - own[:, None], axis=2)
    return found
