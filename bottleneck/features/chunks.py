"""Chunk by chunk: resolve the keys, look them up, extract what is missing, read back."""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from bottleneck.cache import FeatureCache, FeatureRows, SpaceStore, as_stored
from bottleneck.errors import CacheError, CorruptShardError, ImageFailure
from bottleneck.extraction import Extractor, FeatureBatch, Precision
from bottleneck.features.keyed import KeyedRows
from bottleneck.features.space import feature_space
from bottleneck.images import ImageSource
from bottleneck.progress import Progress, ProgressCallback, silent

logger = logging.getLogger(__name__)

CHUNK_ROWS = 4096
"""Rows whose keys are resolved, looked up and extracted together: bounds memory whatever n is."""
SHARD_SECONDS = 15.0
"""While extracting, a shard is written at least this often: what a kill can cost."""
REPAIR_ATTEMPTS = 3
"""How often a chunk is looked up again after a shard turned out damaged while it was read."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FeatureChunk:
    """Features of the readable rows of one chunk of a source, in the source's order.

    Attributes
    ----------
    rows : int64 array (n,)
    layers : dict of str to float32 array (n, n_features of the layer)
    failures : tuple of ImageFailure
    rows_extracted : int
        How many images of the chunk went through the network.
    """

    rows: NDArray[np.int64]
    layers: dict[str, NDArray[np.float32]]
    failures: tuple[ImageFailure, ...]
    rows_extracted: int


def feature_chunks(
    source: ImageSource,
    extractor: Extractor,
    cache: FeatureCache | None,
    *,
    precision: Precision,
    layers: Sequence[str] = ("penultimate",),
    progress: ProgressCallback = silent,
) -> Iterator[FeatureChunk]:
    """Yield the features of a source chunk by chunk, in order, extracting only what the cache lacks.

    With ``layers=()`` the cache is filled and nothing is read back.
    """
    store = None if cache is None else cache.space(feature_space(extractor.backbone, precision))
    for start in range(0, len(source), CHUNK_ROWS):
        rows = np.arange(start, min(start + CHUNK_ROWS, len(source)))

        def advance(done: int, *, start: int = start) -> None:
            progress(Progress(stage="features", done=start + done, total=len(source)))

        if cache is None or store is None:
            yield _extract_chunk(source, rows, extractor, precision=precision, layers=layers, advance=advance)
        else:
            keyed = KeyedRows(source=source, rows=rows, cache=cache, workers=extractor.workers)
            yield _CachedChunk(keyed=keyed, extractor=extractor, store=store, precision=precision).compute(
                layers, advance
            )
        advance(len(rows))


def count_cached(source: ImageSource, extractor: Extractor, cache: FeatureCache, *, precision: Precision) -> int:
    """Return how many rows of the source the cache has already; an empty space is told without reading an image."""
    store = cache.space(feature_space(extractor.backbone, precision))
    if not store.n_rows:
        return 0
    n_cached = 0
    for start in range(0, len(source), CHUNK_ROWS):
        rows = np.arange(start, min(start + CHUNK_ROWS, len(source)))
        keyed = KeyedRows(source=source, rows=rows, cache=cache, workers=extractor.workers)
        keyed.resolve()
        n_cached += int((store.find(keyed.keys[keyed.readable()]) >= 0).sum())
    return n_cached


def _extract_chunk(
    source: ImageSource,
    rows: NDArray[np.int64],
    extractor: Extractor,
    *,
    precision: Precision,
    layers: Sequence[str],
    advance: Callable[[int], None],
) -> FeatureChunk:
    """Extract without a cache, rounded as a cache would store it, so that both ways give the same features."""
    batches: list[FeatureBatch] = []
    for batch in extractor.extract(source, rows, precision=precision):
        batches.append(batch)
        advance(int(batch.rows[-1] - rows[0]) + 1 if len(batch.rows) else 0)
    kept = [batch for batch in batches if len(batch.rows)]
    widths = extractor.backbone.layer_widths
    return FeatureChunk(
        rows=np.concatenate([np.empty(0, np.int64), *(batch.rows for batch in kept)]),
        layers={
            layer: as_stored(
                np.concatenate([np.empty((0, widths[layer]), np.float32), *(batch.layers[layer] for batch in kept)])
            )
            for layer in layers
        },
        failures=tuple(failure for batch in batches for failure in batch.failures),
        rows_extracted=sum(len(batch.rows) for batch in kept),
    )


@dataclass(kw_only=True, slots=True)
class _CachedChunk:
    """One chunk on its way through the cache."""

    keyed: KeyedRows
    extractor: Extractor
    store: SpaceStore
    precision: Precision
    rows_extracted: int = field(init=False, default=0)

    def compute(self, layers: Sequence[str], advance: Callable[[int], None]) -> FeatureChunk:
        self.keyed.resolve()
        features = self.read_or_repair(layers, advance)
        return FeatureChunk(
            rows=self.keyed.rows[self.keyed.readable()],
            layers=features,
            failures=self.keyed.failures(),
            rows_extracted=self.rows_extracted,
        )

    def read_or_repair(self, layers: Sequence[str], advance: Callable[[int], None]) -> dict[str, NDArray[np.float32]]:
        """Extract what is missing and read every layer; again if a shard or a file turned out changed meanwhile."""
        for _ in range(REPAIR_ATTEMPTS):
            self.extract_missing(advance)
            positions = self.store.find(self.keyed.keys[self.keyed.readable()])
            if (positions < 0).any():
                continue
            try:
                return {layer: self.store.read(positions, layer) for layer in layers}
            except CorruptShardError as exc:
                logger.warning("%s These rows are extracted again.", exc)
        raise CacheError(
            f"The cache in {self.store.folder} or the images changed {REPAIR_ATTEMPTS} times while they were read. "
            "Run again once nothing else writes to them."
        )

    def extract_missing(self, advance: Callable[[int], None]) -> None:
        """Extract each missing image once, and append a shard every ``SHARD_SECONDS``."""
        readable = self.keyed.readable()
        missing = readable[self.store.find(self.keyed.keys[readable]) < 0]
        if not len(missing):
            return
        copies = _group_by_key(self.keyed.keys, missing)
        wanted = self.keyed.rows[list(copies)]
        pending: list[FeatureBatch] = []
        began = time.monotonic()
        try:
            for batch in self.extractor.extract(self.keyed.source, wanted, precision=self.precision):
                self.note(batch, copies)
                if len(batch.rows):
                    pending.append(batch)
                    advance(self.keyed.index_of(int(batch.rows[-1])) + 1)
                if pending and time.monotonic() - began > SHARD_SECONDS:
                    self.store.append(_as_rows(pending))
                    pending, began = [], time.monotonic()
        finally:  # Ctrl-C too: what has been computed is kept
            if pending:
                self.store.append(_as_rows(pending))

    def note(self, batch: FeatureBatch, copies: dict[int, list[int]]) -> None:
        """Record what a batch found out: failures, and the keys of files that changed since they were looked up."""
        self.rows_extracted += len(batch.rows)
        for row, key in zip(batch.rows.tolist(), batch.keys, strict=True):
            self.keyed.keys[self.keyed.index_of(row)] = key
        for failure in batch.failures:
            i = self.keyed.index_of(failure.row)
            # Content that cannot be decoded cannot in any copy; a file that has gone says nothing about the others.
            for failed in copies[i] if self.keyed.is_unchanged(i) else [i]:
                self.keyed.reasons[failed] = failure.reason


def _group_by_key(keys: NDArray[np.uint8], wanted: NDArray[np.int64]) -> dict[int, list[int]]:
    """Return, by the first of each distinct content among ``wanted``, all that share it."""
    by_key: dict[bytes, list[int]] = {}
    for i in wanted.tolist():
        by_key.setdefault(keys[i].tobytes(), []).append(i)
    return {group[0]: group for group in by_key.values()}


def _as_rows(batches: list[FeatureBatch]) -> FeatureRows:
    return FeatureRows(
        keys=np.concatenate([batch.keys for batch in batches]),
        layers={layer: np.concatenate([batch.layers[layer] for batch in batches]) for layer in batches[0].layers},
    )
