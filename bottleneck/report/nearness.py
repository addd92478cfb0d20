"""What the features say of the test images among themselves: which are alike, which are copies, and a map of all."""

from contextlib import closing
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from sklearn.neighbors import NearestNeighbors
from threadpoolctl import threadpool_limits

from bottleneck.estimators import TransferClassifier
from bottleneck.estimators.layers import join_layers
from bottleneck.estimators.parse import open_cache
from bottleneck.extraction import ExtractionSettings, Extractor
from bottleneck.features import feature_chunks
from bottleneck.heads.duplicates import FEW_FEATURES, NEAR, connected
from bottleneck.heads.near_copies import typical_distances
from bottleneck.images import ImageSource, subset
from bottleneck.progress import progress_bars

N_NEIGHBOURS = 6
"""As many as stand in a row."""

MOST_MAPPED = 2000
"""Images on the map: t-SNE of so many takes about ten seconds on one core."""

LEAST_FOR_TSNE = 50
"""Images below which the two main directions show as much, without bending anything."""

MAP_DIRECTIONS = 50
"""Principal directions that t-SNE starts from (van der Maaten and Hinton 2008, section 4.2, who take 30)."""

PERPLEXITY = 30
MAP_ITERATIONS = 500
"""Half of scikit-learn's default: the groups stand where they will by then."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class ListedFeatures:
    """Features and content keys of some rows of a source.

    Attributes
    ----------
    rows : int64 array (m,)
        Those that can still be read, in the order asked for.
    values : float32 array (m, n_features)
    keys : uint8 array (m, 16)
    """

    rows: NDArray[np.int64]
    values: NDArray[np.float32]
    keys: NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Nearness:
    """How images lie to each other.

    Attributes
    ----------
    neighbours : int64 array (m, k)
        The most similar others of each image, the nearest first.
    copies : tuple of int64 arrays
        Groups of images that show the same picture, exactly or saved again.
    exact : tuple of bool
        Whether all of a group have the same content, pixel by pixel or byte by byte.
    places : float64 array (min(m, MOST_MAPPED), 2)
        Where the first images lie on the map, from 0 to 1.
    """

    neighbours: NDArray[np.int64]
    copies: tuple[NDArray[np.int64], ...]
    exact: tuple[bool, ...]
    places: NDArray[np.float64]


def features_of(classifier: TransferClassifier, source: ImageSource, rows: NDArray[np.int64]) -> ListedFeatures:
    """Return the features that the head sees of some rows; from the cache, where they are since their prediction."""
    settings = ExtractionSettings(
        device=classifier.device, precision=classifier.precision, batch_size=classifier.batch_size
    )
    with (
        progress_bars(enabled=classifier.verbose) as progress,
        closing(
            feature_chunks(
                subset(source, rows),
                Extractor(classifier.backbone_, settings),
                open_cache(classifier.cache_dir),
                precision=classifier.precision_,
                layers=classifier.layers_,
                progress=progress,
            )
        ) as found,
    ):
        chunks = list(found)
    return ListedFeatures(
        rows=rows[np.concatenate([chunk.rows for chunk in chunks])],
        values=np.concatenate([join_layers(chunk.layers, classifier.layers_) for chunk in chunks]),
        keys=np.concatenate([chunk.keys for chunk in chunks]),
    )


def measure_nearness(listed: ListedFeatures, labels: NDArray[np.int64]) -> Nearness:
    """Return how images lie to each other; ``labels`` (m,) are the true ones."""
    distances, neighbours = nearest(listed.values)
    copies = group_copies(listed, labels, distances, neighbours)
    return Nearness(
        neighbours=neighbours,
        copies=copies,
        exact=tuple(bool((listed.keys[group] == listed.keys[group[0]]).all()) for group in copies),
        places=map_places(listed.values[:MOST_MAPPED]),
    )


def nearest(values: NDArray[np.float32]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return distances and rows (m, k) of the nearest other rows, k being at most ``N_NEIGHBOURS``."""
    k = min(N_NEIGHBOURS, len(values) - 1)
    if k < 1:
        return np.empty((len(values), 0)), np.empty((len(values), 0), dtype=np.int64)
    # Distances of features that are far from zero would drown in rounding errors.
    centred = values.astype(np.float64) - values.mean(axis=0, dtype=np.float64)
    distances, rows = NearestNeighbors(n_neighbors=k, algorithm="brute").fit(centred).kneighbors()
    return distances, rows.astype(np.int64)


def group_copies(
    listed: ListedFeatures,
    labels: NDArray[np.int64],
    distances: NDArray[np.float64],
    neighbours: NDArray[np.int64],
) -> tuple[NDArray[np.int64], ...]:
    """Return groups of two and more images that are copies, by rows of ``listed``, whatever their labels.

    Copies are images of the same content, and images whose features are as near as those of a photograph saved again
    (``NEAR`` of the typical distance in their class, the narrower one of two; see ``heads.duplicates``).
    """
    _, same = np.unique(listed.keys, axis=0, return_inverse=True)
    order = np.argsort(same.ravel(), kind="stable")
    alike = np.flatnonzero(np.diff(same.ravel()[order]) == 0)
    left, right = [order[alike]], [order[alike + 1]]
    if listed.values.shape[1] > FEW_FEATURES and neighbours.size:
        typical = typical_distances(listed.values, labels)
        near = distances <= NEAR * np.minimum(typical[:, None], typical[neighbours])
        rows, columns = np.nonzero(near)
        left, right = [*left, rows], [*right, neighbours[rows, columns]]
    groups = connected(np.concatenate(left), np.concatenate(right), len(labels))
    sizes = np.bincount(groups)
    return tuple(np.flatnonzero(groups == number) for number in np.flatnonzero(sizes > 1))


def map_places(values: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return a place in the unit square for each row, (m, 2): near rows lie near each other.

    t-SNE (van der Maaten and Hinton 2008) from the principal directions; of few rows the first two of these. The same
    rows give the same places.
    """
    centred = values.astype(np.float64) - values.mean(axis=0, dtype=np.float64)
    directions = min(MAP_DIRECTIONS, *centred.shape)
    if directions < 2 or not np.ptp(centred, axis=0).any():
        return np.full((len(values), 2), 0.5)
    # One thread: sums in another order would move every point.
    with threadpool_limits(1):
        found = PCA(directions, random_state=0).fit_transform(centred)
        if len(values) >= LEAST_FOR_TSNE and np.ptp(found, axis=0).all():
            perplexity = min(PERPLEXITY, (len(values) - 1) / 3)
            found = TSNE(perplexity=perplexity, max_iter=MAP_ITERATIONS, init="pca", random_state=0).fit_transform(
                found / found[:, 0].std()
            )
    low, spread = found[:, :2].min(axis=0), np.ptp(found[:, :2], axis=0)
    return np.asarray((found[:, :2] - low) / np.where(spread > 0, spread, 1), dtype=np.float64)
