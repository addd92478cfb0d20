"""Chunk by chunk: resolve the keys, look them up, extract what is missing, read back; beside any number of processes.

Chunks are yielded in the order of the source. The rows that a chunk lacks are claimed before they are extracted; if
another process is at work on them, the pass goes on with later chunks and comes back, so that processes that go
through the same list share the work. A claim is held only while its owner extracts, never while it waits for
others, so that no two can wait for each other.
"""

import logging
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from bottleneck.cache import FeatureCache, SpaceStore, as_stored
from bottleneck.errors import CacheError, CorruptShardError, ImageFailure
from bottleneck.extraction import Extractor, FeatureBatch, Precision
from bottleneck.features.keyed import KeyedRows
from bottleneck.features.pending import PendingRows
from bottleneck.features.space import feature_space, remember_compiling
from bottleneck.images import ImageSource
from bottleneck.progress import Progress, ProgressCallback, silent

logger = logging.getLogger(__name__)

CHUNK_ROWS = 4096
"""Rows whose keys are resolved, looked up, claimed and extracted together: bounds memory whatever n is."""
SHARD_SECONDS = 15.0
"""While extracting, a shard is written at least this often: what a kill can cost."""
REPAIR_ATTEMPTS = 3
"""How often a chunk is looked up again after a shard turned out damaged while it was read."""
LOOK_AHEAD = 64
"""Chunks that may be begun while an earlier one is in others' hands: 64 bytes a row are kept of each."""
POLL_SECONDS = (0.1, 2.0)
"""First and longest pause between two looks at what others have done."""
MADE_BY = "made_by"
"""Name of the note with the names that ``load_backbone`` takes."""
PATIENCE_SECONDS = 180.0
"""A process that lives but has stored nothing of its claim for this long has been stopped, or is stuck: others then
extract its rows. Nothing is stored twice if it goes on after all."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FeatureChunk:
    """Features of the readable rows of one chunk of a source, in the source's order.

    Attributes
    ----------
    rows : int64 array (n,)
    keys : uint8 array (n, 16)
        Their content keys.
    layers : dict of str to float32 array (n, n_features of the layer)
    failures : tuple of ImageFailure
    rows_extracted : int
        How many images of the chunk went through the network here.
    """

    rows: NDArray[np.int64]
    keys: NDArray[np.uint8]
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
    rows_after: int = 0,
    store: SpaceStore | None = None,
    chunk_rows: int | None = None,
    shard_seconds: float | None = None,
) -> Generator[FeatureChunk]:
    """Yield the features of a source chunk by chunk, in order, extracting only what the cache lacks.

    With ``layers=()`` the cache is filled and nothing is read back. ``rows_after`` is how many more rows of the same
    job the extractor will be given afterwards, as far as that is known. Whoever calls this again and again passes the
    ``store``, which need not find out anew what is cached. By default chunks have ``CHUNK_ROWS`` rows, and shards are
    written every ``SHARD_SECONDS``.
    """
    if cache is None:
        for rows in _row_ranges(len(source), chunk_rows or CHUNK_ROWS):
            extractor.expected_rows = extractor.rows_done + len(source) - int(rows[0]) + rows_after
            yield _extract_chunk(source, rows, extractor, precision=precision, layers=layers, progress=progress)
    else:
        job = _CachedPass(
            source=source,
            extractor=extractor,
            cache=cache,
            store=store or cache.space(feature_space(extractor.backbone, precision)),
            precision=precision,
            progress=progress,
            rows_after=rows_after,
            chunk_rows=chunk_rows or CHUNK_ROWS,
            shard_seconds=SHARD_SECONDS if shard_seconds is None else shard_seconds,
        )
        yield from job.chunks(layers)
        remember_compiling(extractor, cache, precision)


def count_cached(source: ImageSource, extractor: Extractor, cache: FeatureCache, *, precision: Precision) -> int:
    """Return how many rows of the source the cache has already; an empty space is told without reading an image."""
    store = cache.space(feature_space(extractor.backbone, precision))
    if not store.n_rows:
        return 0
    n_cached = 0
    for rows in _row_ranges(len(source), CHUNK_ROWS):
        keyed = KeyedRows(source=source, rows=rows, cache=cache, workers=extractor.workers)
        keyed.resolve()
        n_cached += int((store.find(keyed.keys[keyed.readable()]) >= 0).sum())
    return n_cached


def _row_ranges(n_rows: int, size: int) -> Iterator[NDArray[np.int64]]:
    return (np.arange(start, min(start + size, n_rows)) for start in range(0, n_rows, size))


def _extract_chunk(
    source: ImageSource,
    rows: NDArray[np.int64],
    extractor: Extractor,
    *,
    precision: Precision,
    layers: Sequence[str],
    progress: ProgressCallback,
) -> FeatureChunk:
    """Extract without a cache, rounded as a cache would store it, so that both ways give the same features."""
    widths = extractor.backbone.layer_widths
    pending = PendingRows({layer: widths[layer] for layer in layers}, len(rows))
    kept: list[int] = []
    failures: list[ImageFailure] = []
    with closing(extractor.extract(source, rows, precision=precision)) as found:
        for batch in found:
            failures += batch.failures
            if len(batch.rows):
                pending.add(batch)
                kept += batch.rows.tolist()
            progress(Progress(stage="features", done=kept[-1] + 1 if kept else int(rows[0]), total=len(source)))
    progress(Progress(stage="features", done=int(rows[-1]) + 1, total=len(source)))
    extracted = pending.take()
    return FeatureChunk(
        rows=np.array(kept, dtype=np.int64),
        keys=extracted.keys,
        layers={layer: as_stored(features) for layer, features in extracted.layers.items()},
        failures=tuple(failures),
        rows_extracted=len(kept),
    )


@dataclass(kw_only=True, slots=True)
class _CachedPass:
    """A pass over a source; ``rows_after`` are those that this process will be given afterwards, in the same job."""

    source: ImageSource
    extractor: Extractor
    cache: FeatureCache
    store: SpaceStore
    precision: Precision
    progress: ProgressCallback
    rows_after: int
    chunk_rows: int
    shard_seconds: float
    _begun: dict[int, "_CachedChunk"] = field(init=False, default_factory=dict)
    _rows_done: int = field(init=False, default=0)
    _n_found: int = field(init=False, default=0)
    _n_unreadable: int = field(init=False, default=0)

    def chunks(self, layers: Sequence[str]) -> Iterator[FeatureChunk]:
        """Yield every chunk in order; with ``layers=()`` the cache is filled and nothing is read back."""
        for number in range(self._n_chunks):
            yield self._finish(number, layers)
            del self._begun[number]

    def note_origin(self) -> None:
        """Keep beside the rows which backbone makes them, so that a repair can say how to make them again."""
        reference = self.extractor.backbone.reference
        if reference.rebuildable and self.store.read_note(MADE_BY) is None:
            self.store.write_note(MADE_BY, {"backbone": reference.backbone, "weights": reference.weights or "none"})

    @property
    def _n_chunks(self) -> int:
        return -(-len(self.source) // self.chunk_rows)

    def _finish(self, number: int, layers: Sequence[str]) -> FeatureChunk:
        """Fill a chunk and read it; again if a shard or a file turned out changed meanwhile."""
        for _ in range(REPAIR_ATTEMPTS):
            self._fill_or_wait(number)
            chunk = self._begun[number].read(layers)
            if chunk is not None:
                return chunk
        raise CacheError(
            f"The cache in {self.store.folder} or the images changed {REPAIR_ATTEMPTS} times while they were read. "
            "Run again once nothing else writes to them."
        )

    def _fill_or_wait(self, number: int) -> None:
        """Have the rows of a chunk in the cache, whoever extracts them."""
        pause, longest = POLL_SECONDS
        fewest, last_gain = self.chunk_rows + 1, time.monotonic()
        while n_claimed := self._fill(number):
            if n_claimed < fewest:
                fewest, last_gain = n_claimed, time.monotonic()
            elif time.monotonic() - last_gain > PATIENCE_SECONDS:
                logger.warning("another process has stored nothing for %.0f s; its rows are taken", PATIENCE_SECONDS)
                self._fill(number, heed_others=False)
                return
            if not self._fill_a_later_one(number):
                logger.info("waiting for another process that extracts %d of the rows", n_claimed)
                self._report(0, note=f"waiting for another process ({n_claimed} images)")
                time.sleep(pause)
                pause = min(2 * pause, longest)

    def _fill_a_later_one(self, number: int) -> bool:
        """Extract what can be had of the first later chunk that has something; False if none has."""
        for later in range(number + 1, min(number + 1 + LOOK_AHEAD, self._n_chunks)):
            before = self._chunk(later).rows_extracted
            self._fill(later)
            if self._chunk(later).rows_extracted > before:
                return True
        return False

    def _fill(self, number: int, *, heed_others: bool = True) -> int:
        """Extract the rows of a chunk that nobody else is at work on; return how many others are at work on."""
        chunk = self._chunk(number)
        n_claimed = chunk.extract_missing(heed_others=heed_others)
        if not n_claimed and not chunk.is_counted:
            chunk.is_counted = True
            self._rows_done += len(chunk.keyed.rows)
            self._n_unreadable += len(chunk.keyed.reasons)
            self._n_found += len(chunk.keyed.readable()) - chunk.rows_extracted
            self._report(0)
        return n_claimed

    def _chunk(self, number: int) -> "_CachedChunk":
        if number not in self._begun:
            start = number * self.chunk_rows
            rows = np.arange(start, min(start + self.chunk_rows, len(self.source)))
            keyed = KeyedRows(source=self.source, rows=rows, cache=self.cache, workers=self.extractor.workers)
            keyed.resolve()
            self._begun[number] = _CachedChunk(job=self, keyed=keyed)
        return self._begun[number]

    def _report(self, done: int, *, note: str = "") -> None:
        self.progress(
            Progress(stage="features", done=self._rows_done + done, total=len(self.source), note=note or self._so_far())
        )

    def _so_far(self) -> str:
        """Say how many images of the finished chunks were found in the cache, and how many could not be read."""
        counts = ((self._n_found, "found"), (self._n_unreadable, "unreadable"))
        return ", ".join(f"{n:,} {what}" for n, what in counts if n)


@dataclass(kw_only=True, slots=True)
class _CachedChunk:
    """One chunk on its way through the cache."""

    job: _CachedPass
    keyed: KeyedRows
    rows_extracted: int = 0
    is_counted: bool = False

    def read(self, layers: Sequence[str]) -> FeatureChunk | None:
        """Read what has been extracted; None if rows are missing, or turn out to be."""
        readable = self.keyed.readable()
        keys = self.keyed.keys[readable]
        positions = self.job.store.find(keys)
        if (positions < 0).any():
            return None
        try:
            features = {layer: self.job.store.read(positions, layer) for layer in layers}
        except CorruptShardError as exc:
            logger.warning("%s These rows are extracted again.", exc)
            return None
        return FeatureChunk(
            rows=self.keyed.rows[readable],
            keys=keys,
            layers=features,
            failures=self.keyed.failures(),
            rows_extracted=self.rows_extracted,
        )

    def extract_missing(self, *, heed_others: bool) -> int:
        """Extract each missing image once, unless others are at work on it; return how many rows they have."""
        readable = self.keyed.readable()
        missing = readable[self.job.store.find(self.keyed.keys[readable]) < 0]
        if not len(missing):
            return 0
        with self.job.store.claim(self.keyed.keys[missing], heed_others=heed_others) as claim:
            if claim.mine.any():
                self._extract(missing[claim.mine])
            return int(claim.others.sum())

    def _extract(self, missing: NDArray[np.int64]) -> None:
        """Extract rows and append a shard every ``SHARD_SECONDS``."""
        copies = _group_by_key(self.keyed.keys, missing)
        wanted = self.keyed.rows[list(copies)]
        self._tell_what_is_to_come(len(wanted))
        self.job.note_origin()
        pending = PendingRows(self.job.extractor.backbone.layer_widths, len(wanted))
        began = time.monotonic()
        try:
            with closing(self.job.extractor.extract(self.keyed.source, wanted, precision=self.job.precision)) as found:
                for batch in found:
                    self._note(batch, copies)
                    if len(batch.rows):
                        pending.add(batch)
                        self.job._report(0 if self.is_counted else self.keyed.index_of(int(batch.rows[-1])) + 1)
                    if len(pending) and time.monotonic() - began > self.job.shard_seconds:
                        self.job.store.append(pending.take())
                        began = time.monotonic()
        except CacheError:  # a full disk is still full
            pending.take()
            raise
        finally:  # Ctrl-C too: what has been computed is kept
            if len(pending):
                self.job.store.append(pending.take())

    def _tell_what_is_to_come(self, n_wanted: int) -> None:
        """Let the extractor know how large the job is, taking it that later chunks lack as much as this one."""
        n_later = len(self.job.source) - int(self.keyed.rows[-1]) - 1 + self.job.rows_after
        extractor = self.job.extractor
        extractor.expected_rows = extractor.rows_done + n_wanted + n_later * n_wanted // len(self.keyed.rows)

    def _note(self, batch: FeatureBatch, copies: dict[int, list[int]]) -> None:
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
