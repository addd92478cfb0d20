"""Frozen features for ``fit``: in memory where they fit, else read from the cache in blocks, as often as needed."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bottleneck.cache import FeatureCache
from bottleneck.estimators.layers import join_layers
from bottleneck.extraction import Extractor, Precision
from bottleneck.features import FeatureBlocks, Features, FeaturesOnDisk, compute_features, features_on_disk
from bottleneck.heads.blocks import MEMORY_SHARE, needs_streaming
from bottleneck.images import ImageSource
from bottleneck.memory import available_memory
from bottleneck.progress import ProgressCallback, silent

BLOCK_NUMBERS = 8 * 1024 * 1024
"""Features of all layers together in one block: 32 MB."""

FrozenFeatures = Features | FeaturesOnDisk


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class JoinedBlocks:
    """Several layers of the same rows, joined block by block as :func:`join_layers` joins them in memory."""

    parts: Mapping[str, FeatureBlocks]

    @property
    def n_samples(self) -> int:
        """Number of rows."""
        return next(iter(self.parts.values())).n_samples

    @property
    def n_features(self) -> int:
        """Features of all layers together."""
        return sum(part.n_features for part in self.parts.values())

    def __iter__(self) -> Iterator[NDArray[np.float32]]:
        """Yield float32 blocks (n, n_features), in order."""
        for blocks in zip(*self.parts.values(), strict=True):
            yield join_layers(dict(zip(self.parts, blocks, strict=True)), tuple(self.parts))

    def take(self, rows: NDArray[np.int64] | slice) -> "JoinedBlocks":
        """Return some of the rows, in the order given, as blocks."""
        return JoinedBlocks(parts={layer: part.take(rows) for layer, part in self.parts.items()})


OneLayer = NDArray[np.float32] | FeatureBlocks
Matrix = OneLayer | JoinedBlocks
"""What a head can be fitted to."""


def memory_for_fit(memory_limit: object) -> float:
    """Return the bytes that a fit may take, as heads read their ``memory_limit``."""
    if isinstance(memory_limit, int | float | np.number):
        return float(memory_limit)
    return MEMORY_SHARE * available_memory()


def fits_in_memory(n_samples: int, widths: Mapping[str, int], *, limit: float) -> bool:
    """Say whether a head on all these layers could be fitted in ``limit`` bytes."""
    return not needs_streaming(n_samples, sum(widths.values()), limit=limit)


def extract_frozen(
    source: ImageSource,
    extractor: Extractor,
    cache: FeatureCache,
    *,
    precision: Precision,
    layers: Sequence[str],
    limit: float,
    on_error: str = "raise",
    progress: ProgressCallback = silent,
    chunk_rows: int | None = None,
) -> FrozenFeatures:
    """Return the features of a source: arrays where a fit fits in ``limit`` bytes, else a way to read them.

    ``chunk_rows`` are on their way to the cache at once; None: as many as usual.

    Raises
    ------
    UnreadableImagesError
        Some images cannot be read and ``on_error`` is "raise"; the features of the others are in the cache.
    """
    widths = {layer: extractor.backbone.layer_widths[layer] for layer in layers}
    if fits_in_memory(len(source), widths, limit=limit):
        return compute_features(
            source,
            extractor,
            cache,
            precision=precision,
            layers=layers,
            on_error=on_error,
            progress=progress,
            chunk_rows=chunk_rows,
        )
    return features_on_disk(
        source, extractor, cache, precision=precision, on_error=on_error, progress=progress, chunk_rows=chunk_rows
    )


def layer_of(features: FrozenFeatures, layer: str) -> OneLayer:
    """Return all rows of one layer."""
    match features:
        case Features():
            return features.layers[layer]
        case FeaturesOnDisk():
            return features.blocks(layer)


def joined(features: FrozenFeatures, layers: Sequence[str]) -> Matrix:
    """Return one matrix of several layers."""
    match features:
        case Features():
            return join_layers(features.layers, layers)
        case FeaturesOnDisk():
            block_rows = max(1, BLOCK_NUMBERS // sum(features.blocks(layer).n_features for layer in layers))
            return JoinedBlocks(parts={layer: features.blocks(layer, block_rows=block_rows) for layer in layers})


def rows_of(features: FrozenFeatures, layer: str, rows: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return some rows of one layer as an array."""
    return layer_of(features, layer)[rows]
