"""What a store knows of the shards of its space: which there are, which rows they hold, which positions those have."""

import logging
import warnings
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bottleneck.cache.format import keys_sha256
from bottleneck.cache.index import KeyIndex
from bottleneck.cache.keys import FeatureSpace
from bottleneck.cache.layout import MANIFEST, SHARDS, shard_names
from bottleneck.cache.manifest import DroppedShard, Manifest, ManifestReader, ShardRecord, next_number
from bottleneck.cache.reading import ShardReader
from bottleneck.cache.segments import NOWHERE, Segment, Segments
from bottleneck.errors import CacheWarning, CorruptShardError

INDEXED_AT_ONCE = 1 << 16
"""Rows whose keys are taken into the index together: a few MiB."""

logger = logging.getLogger(__name__)


class Catalog:
    """Shards, rows and positions, brought up to date from the manifest.

    Attributes
    ----------
    records : dict of str to ShardRecord
        The shards on the list, also those that turned out damaged.
    dropped, lost : set of str
        Shards that were taken off the list, and those that are there but cannot be used.
    segments : Segments
    reader : ShardReader
    next_number : int
        Above the numbers of all shards seen.
    """

    def __init__(self, folder: Path, space: FeatureSpace) -> None:
        self.folder = folder
        self.space = space
        self.records: dict[str, ShardRecord] = {}
        self.dropped: set[str] = set()
        self.lost: set[str] = set()
        self.segments = Segments()
        self.next_number = 0
        self._manifest = ManifestReader(folder / MANIFEST)
        self._warned: set[str] = set()
        self._start_reading()

    def __getstate__(self) -> dict[str, object]:
        """Leave out what can be read again; segments stay, because they say what the positions are."""
        return {name: value for name, value in vars(self).items() if name not in ("reader", "_index", "_unsettled")}

    def __setstate__(self, state: dict[str, object]) -> None:
        vars(self).update(state)
        for file in self.segments.files:
            for segment in self.segments.of(file):
                segment.is_settled = segment.is_indexed = False
        self._start_reading()

    def _start_reading(self) -> None:
        self.reader = ShardReader(self.folder / SHARDS, self.space)
        self._index = KeyIndex()
        self._unsettled = dict.fromkeys(self.segments.files)

    @property
    def n_outdated_lines(self) -> int:
        """How many lines of the manifest have been made void by later ones."""
        return self._manifest.n_lines - len(self.records)

    def live(self) -> list[ShardRecord]:
        """Return the shards that can be used, in the order they came."""
        return [record for name, record in self.records.items() if name not in self.lost]

    def find(self, keys: NDArray[np.uint8]) -> NDArray[np.int64]:
        """Return the position of each key (n, 16), -1 where there is no row."""
        self.settle()
        return self._index.find(keys)

    def take_news(self) -> None:
        """Read what the manifest says that was not read before."""
        news = self._manifest.read_new()
        came: dict[str, ShardRecord] = {}
        went: set[str] = set()
        for line in news.lines:
            match line:
                case ShardRecord(file=name):
                    came[name] = line
                    went.discard(name)
                case DroppedShard(file=name):
                    came.pop(name, None)
                    went.add(name)
            if isinstance(line, ShardRecord) and line.file not in self.records:
                self._move_rows(line)
        if news.is_whole:
            went |= self.records.keys() - came.keys()
        self.dropped = (self.dropped | went) - came.keys()
        self.next_number = max(self.next_number, next_number({*came, *went}))
        for name in went:
            self.records.pop(name, None)
            self.lost.discard(name)
            self._forget(name)
        for name, record in came.items():
            if name not in self.records:
                self.add(record)

    def add(self, record: ShardRecord) -> None:
        """Give positions to the rows of a shard; what is in there is checked before they are told."""
        self.records[record.file] = record
        self.segments.cover(record.file, record.n_rows)
        self._unsettled[record.file] = None

    def unlisted(self) -> list[str]:
        """Return the shards that are there but that the manifest says nothing about: their writer died."""
        names = shard_names(self.folder)
        self.next_number = max(self.next_number, next_number(names))
        return sorted(names - self.records.keys() - self.dropped - self.lost)

    def settle(self) -> None:
        """See that the shards that came or that rows were moved to hold what they should, and index their rows."""
        found: list[tuple[NDArray[np.uint8], NDArray[np.int64]]] = []
        while self._unsettled:
            name = next(iter(self._unsettled))
            del self._unsettled[name]
            try:
                keys = self.reader.read_keys(self.records[name])
            except CorruptShardError as exc:
                if not self.has_moved(name):
                    self.lose(name, str(exc))
                continue
            found += [self._settle(segment, keys) for segment in [*self.segments.of(name)] if not segment.is_settled]
            self.segments.cover(name, len(keys))  # rows whose positions led elsewhere get new ones
            found += [self._settle(segment, keys) for segment in [*self.segments.of(name)] if not segment.is_settled]
            if sum(len(rows) for _, rows in found) > INDEXED_AT_ONCE:
                self._index_rows(found)
                found = []
        self._index_rows(found)

    def _index_rows(self, found: list[tuple[NDArray[np.uint8], NDArray[np.int64]]]) -> None:
        if found:
            self._index.add(np.concatenate([keys for keys, _ in found]), np.concatenate([rows for _, rows in found]))

    def has_moved(self, name: str) -> bool:
        """Say whether a shard that cannot be read has been taken off the list meanwhile, as by a compaction."""
        if name == NOWHERE:
            return False
        self.take_news()
        return name not in self.records

    def lose(self, name: str, reason: str) -> None:
        """Make the rows of a shard that is damaged misses, and say so once."""
        if name == NOWHERE:
            return
        self.lost.add(name)
        self._forget(name)
        self.warn(name, reason)

    def warn(self, name: str, reason: str) -> None:
        """Say once that a shard is left out."""
        if name not in self._warned:
            self._warned.add(name)
            warnings.warn(
                f"Shard {self.reader.path(name)} {reason}. Its rows will be computed again. "
                "FeatureCache.repair() takes damaged shards out of the cache.",
                CacheWarning,
                stacklevel=5,
            )

    def as_manifest(self) -> Manifest:
        """Return the list as it should be written: all that holds, and what must not be taken up again."""
        still_there = self.dropped & shard_names(self.folder)
        return Manifest(shards=dict(self.records), dropped=frozenset(still_there))

    def _move_rows(self, record: ShardRecord) -> None:
        """Let the positions of rows that were written again lead to where they are now."""
        offset = 0
        for name, n_rows in record.replaces:
            self.segments.move(name, record.file, offset)
            offset += n_rows

    def _settle(self, segment: Segment, keys: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        """Return the keys and positions of a segment that the index should have, given the keys of its shard."""
        nothing = keys[:0], np.empty(0, np.int64)
        own = keys[segment.row : segment.row + segment.n_rows]
        sha256 = keys_sha256(own)
        if len(own) < segment.n_rows or segment.keys_sha256 not in ("", sha256):
            # A damaged manifest said where the rows have gone.
            self._lose(segment)
            return nothing
        was_indexed = segment.is_indexed
        segment.keys_sha256, segment.is_settled, segment.is_indexed = sha256, True, True
        return nothing if was_indexed else (own, np.arange(segment.first, segment.stop))

    def _forget(self, name: str) -> None:
        """Make the rows of a shard misses; their positions are not given to others."""
        for segment in [*self.segments.of(name)]:
            self._lose(segment)
        self._unsettled.pop(name, None)
        self.reader.forget(name)

    def _lose(self, segment: Segment) -> None:
        self.segments.lose(segment)
        if segment.is_indexed:
            self._index.remove(segment.first, segment.stop)
