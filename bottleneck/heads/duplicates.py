"""Finds rows that show the same picture: exact copies, and the same photograph saved again.

Measured with MobileNetV2 features of two sets of images: a photograph saved again as JPEG at quality 95 lies at 0.04
to 0.11 of the typical distance between two rows, at quality 85 at 0.07 to 0.15, at 70 or resized beyond 0.14; the
nearest different images of a set at 0.2 (and at 0.08 among textures, which may be crops of one photograph). So a
threshold of 0.1 finds most good copies and hardly anything else. Cosines tell less: a copy has 0.99, and so have two
different pictures of a narrow subject.
"""

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import scipy.sparse
from numpy.typing import NDArray
from scipy.spatial import cKDTree

Floats = NDArray[np.floating[Any]]
Marks = NDArray[np.uint64] | NDArray[np.float32]

NEAR = 0.1
"""Distance of near-duplicates, as a share of the root mean square distance between rows of their class."""

FEW_FEATURES = 32
"""Up to here rows of different images may well be that near to each other: only exact copies count."""

MANY_ROWS = 20_000
"""Above this only exact copies count: the search would take longer than the fit, and a copy more matters less."""

SKETCH_SIZE = 16
"""Random directions that keep distances within a fifth, as a rule (Johnson and Lindenstrauss 1984)."""

NEIGHBOURS = 4
GRAIN = 1e-6
BLOCK_ROWS = 1024


def cut(features: Floats, n_rows: int = BLOCK_ROWS) -> Iterator[Floats]:
    """Yield features (n, d) in blocks of rows."""
    for start in range(0, len(features), n_rows):
        yield features[start : start + n_rows]


def mark_rows(blocks: Iterable[Floats], *, n_samples: int, n_features: int) -> Marks:
    """Return what copies are known by: a hash of each row (n,), or a sketch (n, size) that is near for near rows."""
    if n_features <= FEW_FEATURES or n_samples > MANY_ROWS:
        return np.concatenate([row_codes(block) for block in blocks])
    directions = np.random.default_rng(0).standard_normal((n_features, SKETCH_SIZE)).astype(np.float32)
    origin: Floats | None = None
    sketches: list[NDArray[np.float32]] = []
    for block in blocks:
        # Distances between features that are far from zero would drown in rounding errors.
        origin = block[:1].astype(np.float32) if origin is None else origin
        sketches.append((block - origin).astype(np.float32, copy=False) @ directions)
    return np.concatenate(sketches)


def group_copies(marks: Marks, labels: NDArray[np.intp]) -> NDArray[np.intp]:
    """Return a number for every row (n,), the same for rows of one label that are copies."""
    if marks.ndim == 1:
        return _number(np.column_stack([marks, labels.astype(np.uint64)]))
    centred = marks - marks.mean(axis=0, dtype=float)
    centred /= _typical_distance(centred) or 1
    # Exact copies first: a hundred of them would fill each other's lists of neighbours.
    exact = _number(np.column_stack([np.round(centred / GRAIN), labels]))
    _, first = np.unique(exact, return_index=True)
    points = centred[first]
    # Each class by its own measure: beside a wide class, all rows of a narrow one would be near each other.
    for label in np.unique(labels):
        members = labels[first] == label
        points[members] /= _typical_distance(points[members] - points[members].mean(axis=0)) or 1
    # One more coordinate keeps rows of different labels apart.
    return _join_neighbours(np.column_stack([points, labels[first]]))[exact]


def _typical_distance(centred: NDArray[np.float64]) -> float:
    """Return the root mean square distance between rows whose mean is 0."""
    return float(np.sqrt(2 * np.square(centred).sum(axis=1).mean()))


def connected(left: NDArray[np.intp], right: NDArray[np.intp], n_points: int) -> NDArray[np.intp]:
    """Return a number for each point (n_points,), the same for points that a chain of links (left, right) joins."""
    links = scipy.sparse.coo_array((np.ones(len(left), dtype=np.int8), (left, right)), shape=(n_points, n_points))
    return np.asarray(scipy.sparse.csgraph.connected_components(links, directed=False)[1], dtype=np.intp)


def row_codes(block: Floats) -> NDArray[np.uint64]:
    """Hash each row's bits: equal rows have equal codes, others by a chance of 2^-63 (Dietzfelbinger 1996)."""
    block = np.ascontiguousarray(block)
    words = block.view(np.dtype(f"u{block.dtype.itemsize}"))
    factors = np.random.default_rng(0).integers(1, 2**63, size=words.shape[1], dtype=np.uint64) * 2 + 1
    codes: NDArray[np.uint64] = np.einsum("nd,d->n", words, factors, dtype=np.uint64, casting="unsafe")
    return codes


def _number(rows: NDArray[Any]) -> NDArray[np.intp]:
    """Number equal rows (n, k) alike, in order of their first appearance."""
    _, first, numbers = np.unique(rows, axis=0, return_index=True, return_inverse=True)
    rank = np.empty(len(first), dtype=np.intp)
    rank[np.argsort(first)] = np.arange(len(first))
    return rank[numbers.reshape(-1)]


def _join_neighbours(points: NDArray[np.float64]) -> NDArray[np.intp]:
    n_points = len(points)
    found = cKDTree(points).query(points, k=min(NEIGHBOURS + 1, n_points), distance_upper_bound=NEAR)
    neighbours = np.asarray(found[1]).reshape(n_points, -1)
    rows, columns = np.nonzero(neighbours < n_points)
    return connected(rows, neighbours[rows, columns], n_points)
