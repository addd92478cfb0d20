"""The features of one feature space on disk: find rows by key, read them, append shards."""

import json
import logging
import secrets
from collections.abc import Generator, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import numpy as np
from joblib import delayed
from numpy.typing import NDArray

from bottleneck.cache.catalog import Catalog
from bottleneck.cache.compact import CompactReport, piled_up, worth_merging
from bottleneck.cache.files import cache_errors, remove_partials, write_whole
from bottleneck.cache.format import FeatureRows, parse_rows
from bottleneck.cache.index import first_of_each
from bottleneck.cache.keys import KEY_BYTES, FeatureSpace
from bottleneck.cache.layout import SHARDS, read_space
from bottleneck.cache.locks import Claim, claimed_keys, held_claim
from bottleneck.cache.manifest import ShardRecord
from bottleneck.cache.merging import Merge, merge_elsewhere, merge_shards
from bottleneck.cache.segments import NOWHERE
from bottleneck.cache.writing import SpaceWriter
from bottleneck.errors import CorruptShardError, InvalidInputError, listed
from bottleneck.progress import Progress, ProgressCallback, silent
from bottleneck.workers import parse_n_jobs, results_in_order

logger = logging.getLogger(__name__)

MOST_MOVES = 5
"""How often rows are looked for again because another process compacted the shard they were in meanwhile."""


class SpaceStore:
    """All rows of one feature space.

    Rows are found by key and read by position. A position stays valid as long as the store lives, also in pickled
    copies of it (which reopen the files) and when shards are compacted, but means nothing to another store. Any
    number of processes may read and append at once; within a process, one thread at a time.

    A shard that is damaged, missing or from a newer version is left out with a ``CacheWarning``: its keys are then
    misses. Checksums are compared before the first row of a shard is read in this process.

    Parameters
    ----------
    cache_dir
        The cache folder; the space has the folder named by its digest in there. Nothing is written before the first
        ``append`` or ``claim``.
    space
        What the rows are the features of.
    """

    merges_shards = True
    """Whether small shards are merged as they pile up."""

    def __init__(self, cache_dir: Path, space: FeatureSpace) -> None:
        self.folder = cache_dir / space.digest
        self.space = space
        self._catalog = Catalog(self.folder, space)
        self._writer = SpaceWriter(self.folder, space, self._catalog)
        self._is_open = False

    @property
    def n_rows(self) -> int:
        """Number of rows."""
        self._open()
        self._catalog.settle()
        return self._catalog.segments.n_rows

    @property
    def n_bytes(self) -> int:
        """Bytes of the shards on disk."""
        self._open()
        self._catalog.settle()
        return sum(record.n_bytes for record in self._catalog.live())

    def find(self, keys: NDArray[np.uint8]) -> NDArray[np.int64]:
        """Return the position of each key, -1 where there is no row.

        Parameters
        ----------
        keys
            uint8, shape (n, 16).

        Raises
        ------
        CacheError
            The folder belongs to another space, or to a newer version of the library.
        InvalidInputError
            Another dtype or shape.
        """
        if keys.dtype != np.uint8 or keys.shape != (len(keys), KEY_BYTES):
            raise InvalidInputError(f"keys must be uint8 (n, {KEY_BYTES}). Got {keys.dtype} {keys.shape}.")
        self._open()
        return self._catalog.find(keys)

    def read(self, positions: NDArray[np.int64], layer: str) -> NDArray[np.float32]:
        """Return rows of one layer, in the order asked for; positions may repeat.

        Parameters
        ----------
        positions
            int64, shape (n,), as returned by ``find``.
        layer
            Name of a layer of the space.

        Returns
        -------
        float32, shape (n, n_features), bit for bit what ``as_stored`` gives.

        Raises
        ------
        CorruptShardError
            Some rows are gone since they were found. ``find`` again: they are misses now.
        InvalidInputError
            No such layer, or a position that ``find`` did not return.
        """
        self._open()
        features = np.empty((len(positions), self.space.n_features(layer)), np.float32)
        unread = np.arange(len(positions))
        gone: list[str] = []
        for _ in range(MOST_MOVES):
            unread, damaged = self._read_where_they_are(positions, unread, layer, features)
            gone += damaged
            if not len(unread):
                break
        else:
            gone.append("some that other processes keep moving")
        if gone:
            raise CorruptShardError(
                f"Rows in {self.folder} are gone since they were found; find their keys again. Shards:\n{listed(gone)}"
            )
        return features

    def blocks(
        self, positions: NDArray[np.int64], layer: str, *, block_rows: int
    ) -> Iterator[NDArray[np.float16 | np.float32]]:
        """Yield rows of one layer in the order asked for, ``block_rows`` at a time, without loading the others.

        Rows that lie together in one shard, as after ``compact`` or one pass over a source, are memory-mapped as they
        are stored: float16, or float32 where a value of the shard overflows that. Others are copied, as float32.
        Blocks of memory-mapped rows are read-only, and the pages of a block are given up with it.

        Parameters
        ----------
        positions
            int64, shape (n,), as returned by ``find``.
        layer
            Name of a layer of the space.
        block_rows
            Rows of each block but the last.

        Raises
        ------
        CorruptShardError
            As for ``read``, once a block comes to the rows.
        """
        for start in range(0, len(positions), block_rows):
            wanted = positions[start : start + block_rows]
            mapped = self._map_if_together(wanted, layer)
            yield self.read(wanted, layer) if mapped is None else mapped

    def append(self, rows: FeatureRows) -> int:
        """Store rows that are not there yet as one immutable shard, which appears whole or not at all.

        Returns
        -------
        How many rows were stored: those that another process has stored meanwhile, or that repeat, are left out.

        Raises
        ------
        InvalidInputError
            The rows do not fit the space, or hold values that are not finite.
        CacheError
            The folder cannot be written.
        """
        stored = parse_rows(rows, self.space)
        if len(stored.keys) == 0:
            return 0
        self._open()
        with self._writer.exclusively():
            missing = np.flatnonzero(self._catalog.find(stored.keys) < 0)
            fresh = missing[first_of_each(stored.keys[missing])]
            if len(fresh):
                layers = {name: features[fresh] for name, features in stored.layers.items()}
                self._writer.write_shard(FeatureRows(keys=stored.keys[fresh], layers=layers))
                if self.merges_shards:
                    self._writer.take_in(merge_shards(self._catalog.reader, piled_up(self._catalog.live())))
                self._writer.shorten_manifest()
        return len(fresh)

    @contextmanager
    def claim(self, keys: NDArray[np.uint8], *, heed_others: bool = True) -> Iterator[Claim]:
        """Say which of these keys are missing and nobody else is at work on, and keep others off them meanwhile.

        Parameters
        ----------
        keys
            uint8, shape (n, 16).
        heed_others
            False takes all that is missing.

        Raises
        ------
        CacheError
            The folder cannot be written.
        """
        self._open()
        with ExitStack() as until_done:
            with self._writer.exclusively():
                missing = self._catalog.find(keys) < 0
                claimed = claimed_keys(self.folder) if heed_others and missing.any() else set()
                others = missing & np.fromiter((bytes(key) in claimed for key in keys), bool, len(keys))
                mine = missing & ~others
                if mine.any():
                    until_done.enter_context(held_claim(self.folder, keys[mine]))
            yield Claim(mine=mine, others=others)

    def compact(self, *, n_jobs: int | None = None, progress: ProgressCallback = silent) -> CompactReport:
        """Write many small shards as few large ones, without losing a row whenever it is stopped.

        Others may read and append meanwhile. Damaged shards stay as they are, for ``FeatureCache.repair``.

        Parameters
        ----------
        n_jobs
            Worker processes, each of which writes one new shard after the other; the result is the same to the last
            bit. None is one, or what ``joblib.parallel_config`` says.
        progress
            Called with ``bottleneck.progress.Progress`` records.

        Raises
        ------
        CacheError
            The folder cannot be written.
        WorkerError
            A worker process died.
        """
        parse_n_jobs(n_jobs, owner="compact")
        self.refresh()
        before = len(self._catalog.live())
        done = 0
        while groups := worth_merging(self._catalog.live()):
            total = done + sum(map(len, groups))
            with closing(self._merges(groups, n_jobs)) as merges:
                for group, merge in zip(groups, merges, strict=True):
                    with self._writer.exclusively():  # the lock is given up in between
                        self._writer.take_in(merge)
                    done += len(group)
                    progress(Progress(stage=f"compact {self.space.digest}", done=done, total=total, unit="shards"))
        if before:
            with self._writer.exclusively():
                self._writer.remove_dropped()
        return CompactReport(shards_before=before, shards_after=len(self._catalog.live()), n_bytes=self.n_bytes)

    def _merges(self, groups: list[list[ShardRecord]], n_jobs: int | None) -> Generator[Merge]:
        """Yield the merge of each group, to be taken in at once: files that were not are removed at the end."""
        token = secrets.token_hex(8)
        tasks = (delayed(merge_elsewhere)(self.folder, self.space, group, token) for group in groups)
        with cache_errors(self.folder):
            try:
                with closing(results_in_order(tasks, n_jobs=n_jobs)) as merges:
                    yield from merges
            finally:
                remove_partials(self.folder / SHARDS, token)

    def refresh(self) -> None:
        """See the shards that other processes have written or dropped since.

        Raises
        ------
        CacheError
            The folder belongs to another space, or to a newer version of the library.
        """
        with cache_errors(self.folder):
            self._writer.was_there = read_space(self.folder) is not None or self._writer.was_there
            self._catalog.take_news()
            self._is_open = True
            if self._catalog.unlisted():
                self._writer.adopt_unlisted()

    def write_note(self, name: str, note: dict[str, str | float]) -> None:
        """Keep a few facts beside the rows, such as how long they took; a later note of that name replaces it.

        Raises
        ------
        CacheError
            The folder cannot be written.
        """
        with cache_errors(self.folder):
            self._writer.create_folder()
            write_whole(self.folder / f"{name}.json", json.dumps(note).encode())

    def read_note(self, name: str) -> dict[str, str | float] | None:
        """Return what ``write_note`` kept, or None if there is nothing that can be read: notes are never needed."""
        try:
            note = json.loads((self.folder / f"{name}.json").read_bytes())
        except (OSError, ValueError) as exc:
            logger.debug("no note %s in %s: %s", name, self.folder, exc)
            return None
        return note if isinstance(note, dict) else None

    def _open(self) -> None:
        if not self._is_open:
            self.refresh()

    def _read_where_they_are(
        self, positions: NDArray[np.int64], unread: NDArray[np.int64], layer: str, features: NDArray[np.float32]
    ) -> tuple[NDArray[np.int64], list[str]]:
        """Fill in the rows at ``unread``; return those that have moved meanwhile, and the shards that are damaged."""
        self._catalog.settle()
        moved: list[NDArray[np.int64]] = []
        damaged: list[str] = []
        for part in self._catalog.segments.locate(positions[unread]):
            wanted = unread[part.wanted]
            record = self._catalog.records.get(part.file)
            if part.file == NOWHERE:
                damaged.append("one that is no longer in the cache")
            elif record is None:  # looking into another shard brought the news
                moved.append(wanted)
            else:
                try:
                    features[wanted] = self._catalog.reader.read_rows(record, layer, part.rows)
                except CorruptShardError as exc:
                    if self._catalog.has_moved(part.file):
                        moved.append(wanted)
                    else:
                        self._catalog.lose(part.file, str(exc))
                        damaged.append(part.file)
        return np.concatenate([unread[:0], *moved]), damaged

    def _map_if_together(self, positions: NDArray[np.int64], layer: str) -> NDArray[np.float16 | np.float32] | None:
        """Map rows that follow each other in one shard; None if they do not, or if the shard needs a second look."""
        self._catalog.settle()
        parts = self._catalog.segments.locate(positions)
        if (
            len(parts) != 1
            or parts[0].file == NOWHERE
            or (np.diff(parts[0].rows[np.argsort(parts[0].wanted)]) != 1).any()
        ):
            return None
        rows = parts[0].rows
        try:
            record = self._catalog.records[parts[0].file]
            return self._catalog.reader.map_rows(record, layer, int(rows[0]), int(rows[-1]) + 1)
        except CorruptShardError as exc:
            logger.debug("%s cannot be mapped: %s", parts[0].file, exc)
            return None
