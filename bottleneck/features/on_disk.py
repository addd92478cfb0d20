"""Features of a source that stay on disk: read in blocks, or row by row, with memory for one block only."""

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bottleneck.cache import FeatureCache, FeatureSpace, SpaceStore
from bottleneck.errors import CacheError, CorruptShardError
from bottleneck.extraction import Extractor, Precision
from bottleneck.features.chunks import FeatureChunk, feature_chunks
from bottleneck.features.job import CacheReport, raise_or_warn, summarise
from bottleneck.features.space import feature_space
from bottleneck.images import ImageSource
from bottleneck.progress import ProgressCallback, silent

BLOCK_BYTES = 32 * 1024 * 1024
"""Memory of one block: large enough that reading is sequential and the arithmetic on it runs at full speed."""

_one_at_a_time = threading.Lock()
"""A store is for one thread at a time, and a worker may have several."""

RUN_AGAIN = "Run cache_features again: it extracts what is missing."


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class FeatureBlocks:
    """One layer of some cached rows, in their order: a float32 matrix that is never in memory as a whole.

    Iterating yields consecutive blocks (m, n_features), as often as it is asked to; ``blocks[i:j]`` and
    ``blocks[indices]`` return such rows as an array, ``take(indices)`` these rows as blocks again, for a fold.
    Checksums are compared before the first row of a shard is read in this process. Pickled, as for workers that fit a
    head together, they are the keys of the rows: whoever gets them has to see the cache folder under the same path.

    Attributes
    ----------
    n_samples, n_features : int
    """

    store: SpaceStore = field(repr=False)
    keys: NDArray[np.uint8] = field(repr=False)
    layer: str
    block_rows: int

    @property
    def n_samples(self) -> int:
        """Number of rows."""
        return len(self.keys)

    @property
    def n_features(self) -> int:
        """Width of the layer."""
        return self.store.space.n_features(self.layer)

    @property
    def shape(self) -> tuple[int, int]:
        """``(n_samples, n_features)``."""
        return self.n_samples, self.n_features

    @property
    def dtype(self) -> "np.dtype[np.float32]":
        """What blocks are, however they are stored."""
        return np.dtype(np.float32)

    def __len__(self) -> int:
        return self.n_samples

    def __iter__(self) -> Iterator[NDArray[np.float32]]:
        """Yield float32 blocks of ``block_rows`` rows (the last may be shorter), in order.

        Raises
        ------
        CacheError
            Rows are no longer in the cache.
        """
        for start in range(0, len(self.keys), self.block_rows):
            yield self._read(self.keys[start : start + self.block_rows])

    def __getitem__(self, rows: Any) -> NDArray[np.float32]:
        """Return the rows of a slice, an array of indices or a mask (m, n_features), or those of one index (d,)."""
        wanted = self.keys[rows]
        return self._read(wanted) if wanted.ndim == 2 else self._read(wanted[None])[0]

    def take(self, rows: NDArray[np.integer] | slice) -> "FeatureBlocks":
        """Return some of the rows, in the order given, as blocks."""
        return FeatureBlocks(store=self.store, keys=self.keys[rows], layer=self.layer, block_rows=self.block_rows)

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopened, (self.store.folder.parent, self.store.space, self.keys, self.layer, self.block_rows)

    def _read(self, keys: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Read rows by key: straight from a memory-mapped shard where they lie together."""
        with _one_at_a_time:
            return self._read_alone(keys)

    def _read_alone(self, keys: NDArray[np.uint8]) -> NDArray[np.float32]:
        positions = self.store.find(keys)
        if (positions < 0).any():  # another process may have stored them again
            self.store.refresh()
            positions = self.store.find(keys)
        n_gone = int((positions < 0).sum())
        if n_gone:
            raise CacheError(f"{n_gone} rows are no longer in {self.store.folder}. {RUN_AGAIN}")
        try:
            blocks = list(self.store.blocks(positions, self.layer, block_rows=max(1, len(keys))))
        except CorruptShardError as exc:
            raise CacheError(f"{exc}\n{RUN_AGAIN}") from exc
        return blocks[0].astype(np.float32) if blocks else np.empty((0, self.n_features), np.float32)


@cache
def _store_here(cache_dir: Path, space: FeatureSpace) -> SpaceStore:
    """Return this process's store for rows that come from other processes: it indexes their keys once."""
    return FeatureCache(cache_dir).space(space)


def _reopened(
    cache_dir: Path, space: FeatureSpace, keys: NDArray[np.uint8], layer: str, block_rows: int
) -> FeatureBlocks:
    return FeatureBlocks(store=_store_here(cache_dir, space), keys=keys, layer=layer, block_rows=block_rows)


@dataclass(frozen=True, kw_only=True, slots=True)
class FeaturesOnDisk:
    """Cached features of every readable row of a source; ``kept[i]`` is the source row of row i of every layer."""

    kept: NDArray[np.int64]
    keys: NDArray[np.uint8]
    store: SpaceStore
    report: CacheReport

    def blocks(self, layer: str = "penultimate", *, block_rows: int | None = None) -> FeatureBlocks:
        """Return one layer of all rows, by default in blocks of ``BLOCK_BYTES``."""
        if block_rows is None:
            block_rows = max(1, BLOCK_BYTES // (4 * self.store.space.n_features(layer)))
        return FeatureBlocks(store=self.store, keys=self.keys, layer=layer, block_rows=block_rows)


def features_on_disk(
    source: ImageSource,
    extractor: Extractor,
    cache: FeatureCache,
    *,
    precision: Precision,
    on_error: str = "raise",
    progress: ProgressCallback = silent,
    chunk_rows: int | None = None,
) -> FeaturesOnDisk:
    """Fill the cache with the features of a source and return a way to read them, whatever their size.

    Of each row 24 bytes are kept in memory, and nothing of its features but those of ``chunk_rows`` rows (None: as
    many as in ``feature_chunks``) on their way to the disk.

    Raises
    ------
    UnreadableImagesError
        Some images cannot be read and ``on_error`` is "raise"; the features of the others are in the cache.
    """
    began = time.monotonic()
    kept: list[NDArray[np.int64]] = [np.empty(0, np.int64)]
    keys: list[NDArray[np.uint8]] = [np.empty((0, 16), np.uint8)]

    def noted() -> Iterator[FeatureChunk]:
        for chunk in feature_chunks(
            source,
            extractor,
            cache,
            precision=precision,
            layers=(),
            progress=progress,
            chunk_rows=chunk_rows,
        ):
            kept.append(chunk.rows)
            keys.append(chunk.keys)
            yield chunk

    report = summarise(noted(), extractor.backbone, precision, began=began)
    raise_or_warn(report.failures, on_error)
    return FeaturesOnDisk(
        kept=np.concatenate(kept),
        keys=np.concatenate(keys),
        store=cache.space(feature_space(extractor.backbone, precision)),
        report=report,
    )
