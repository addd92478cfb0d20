"""The features of one feature space on disk: find rows by key, read them, append shards."""

import hashlib
import json
import logging
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bottleneck.cache.files import cache_errors, remove_stale_partials, sha256_of, sync_folder, write_whole
from bottleneck.cache.format import Block, FeatureRows, compose_shard, keys_sha256, parse_rows, read_block, read_header
from bottleneck.cache.index import KeyIndex
from bottleneck.cache.keys import KEY_BYTES, FeatureSpace
from bottleneck.cache.layout import MANIFEST, SHARDS, SPACE_FILE, read_space, shard_names
from bottleneck.cache.manifest import ShardRecord, append_shard, next_number, read_manifest, shard_name
from bottleneck.cache.verify import inspect_shard
from bottleneck.errors import CacheWarning, CorruptShardError, InvalidInputError, listed

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Entry:
    """A shard and the position of its first row in this store."""

    record: ShardRecord
    first: int

    @property
    def stop(self) -> int:
        return self.first + self.record.n_rows


class SpaceStore:
    """All rows of one feature space.

    Rows are found by key and read by position. A position stays valid as long as the store lives, also in pickled
    copies of it (which reopen the files), but means nothing to another store. Any number of processes may read and
    append at once; within a process, one thread at a time.

    A shard that is damaged, missing or from a newer version is left out with a ``CacheWarning``: its keys are then
    misses. Checksums are compared before the first row of a shard is read in this process.

    Parameters
    ----------
    cache_dir
        The cache folder; the space has the folder named by its digest in there. Nothing is written before the first
        ``append``.
    space
        What the rows are the features of.
    """

    def __init__(self, cache_dir: Path, space: FeatureSpace) -> None:
        self.folder = cache_dir / space.digest
        self.space = space
        self._entries: dict[str, _Entry] = {}
        self._lost: set[str] = set()
        self._warned: set[str] = set()
        self._is_open = False
        self._is_swept = False
        self._next_number = 0
        self._start_index()

    def __getstate__(self) -> dict[str, object]:
        """Leave out what can be read again; entries stay, because positions count from them."""
        return {name: value for name, value in vars(self).items() if name not in ("_blocks", "_index", "_unindexed")}

    def __setstate__(self, state: dict[str, object]) -> None:
        vars(self).update(state)
        self._start_index()

    @property
    def n_rows(self) -> int:
        """Number of rows, rows stored twice counted twice."""
        return sum(entry.record.n_rows for entry in self._live())

    @property
    def n_bytes(self) -> int:
        """Bytes of the shards on disk."""
        return sum(entry.record.n_bytes for entry in self._live())

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
        self._index_new_shards()
        return self._index.find(keys)

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
        features = np.empty((len(positions), self.space.n_features(layer)), np.float32)
        order = np.argsort(positions, kind="stable")
        gone = []
        for entry, wanted in self._by_shard(positions, order):
            try:
                features[wanted] = self._read_shard(entry, layer, positions[wanted] - entry.first)
            except CorruptShardError as exc:
                self._lose(entry, str(exc))
                gone.append(entry.record.file)
        if gone:
            raise CorruptShardError(
                f"Rows in {self.folder} are gone since they were found; find their keys again. Shards:\n{listed(gone)}"
            )
        return features

    def append(self, rows: FeatureRows) -> None:
        """Store rows as one immutable shard, which appears whole or not at all.

        Raises
        ------
        InvalidInputError
            The rows do not fit the space, or hold values that are not finite.
        CacheError
            The folder cannot be written.
        """
        stored = parse_rows(rows, self.space)
        if len(stored.keys) == 0:
            return
        self._open()
        content = compose_shard(stored, self.space)
        sha256 = hashlib.sha256(content).hexdigest()
        with cache_errors(self.folder):
            self._create_folder()
            record = ShardRecord(
                file=shard_name(self._next_number, sha256),
                sha256=sha256,
                keys_sha256=keys_sha256(stored.keys),
                n_rows=len(stored.keys),
                n_bytes=len(content),
            )
            write_whole(self._path(record.file), content)
            append_shard(self.folder / MANIFEST, record)
        self._next_number += 1
        self._add(record)

    def refresh(self) -> None:
        """See the shards that other processes have written or dropped since.

        Raises
        ------
        CacheError
            The folder belongs to another space, or to a newer version of the library.
        """
        with cache_errors(self.folder):
            read_space(self.folder)
            manifest = read_manifest(self.folder / MANIFEST)
            names = shard_names(self.folder)
        self._is_open = True
        self._next_number = next_number({*manifest.shards, *manifest.dropped, *names, *self._entries})
        for name in manifest.dropped & self._entries.keys():
            self._forget(self._entries[name])
        for record in manifest.shards.values():
            if record.file not in self._entries:
                self._admit(record)
        for name in sorted(names - manifest.shards.keys() - manifest.dropped - self._entries.keys()):
            self._adopt(name)

    def write_note(self, name: str, note: dict[str, str | float]) -> None:
        """Keep a few facts beside the rows, such as how long they took; a later note of that name replaces it.

        Raises
        ------
        CacheError
            The folder cannot be written.
        """
        with cache_errors(self.folder):
            self._create_folder()
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

    def _path(self, name: str) -> Path:
        return self.folder / SHARDS / name

    def _live(self) -> list[_Entry]:
        self._open()
        return [entry for name, entry in self._entries.items() if name not in self._lost]

    def _create_folder(self) -> None:
        """Make the folder and its description, and clear once what dead processes left there."""
        (self.folder / SHARDS).mkdir(parents=True, exist_ok=True)
        if not (self.folder / SPACE_FILE).exists():
            write_whole(self.folder / SPACE_FILE, self.space.to_json().encode())
            sync_folder(self.folder.parent)
        if not self._is_swept:
            remove_stale_partials(self.folder)
            remove_stale_partials(self.folder / SHARDS)
            self._is_swept = True

    def _admit(self, record: ShardRecord) -> None:
        """Add a listed shard if there is a file of its size; what is in there is checked when it is read."""
        try:
            n_bytes = self._path(record.file).stat().st_size
        except OSError as exc:
            self._warn(record.file, f"cannot be found ({exc.strerror})")
            return
        if n_bytes == record.n_bytes:
            self._add(record)
        else:
            self._warn(record.file, f"has {n_bytes} bytes where {record.n_bytes} were written")

    def _add(self, record: ShardRecord) -> None:
        """Give the rows of a shard the next positions."""
        first = next(reversed(self._entries.values())).stop if self._entries else 0
        self._entries[record.file] = _Entry(record=record, first=first)
        self._unindexed.append(record.file)

    def _adopt(self, name: str) -> None:
        """Put a shard on the list whose writer died between renaming it and listing it."""
        try:
            record = inspect_shard(self._path(name), self.space)
        except CorruptShardError as exc:
            self._warn(name, str(exc))
            return
        try:
            append_shard(self.folder / MANIFEST, record)
        except OSError as exc:  # a folder that may only be read: the next process checks the shard again
            logger.debug("%s stays unlisted: %s", name, exc)
        self._add(record)

    def _start_index(self) -> None:
        self._blocks: dict[str, dict[str, Block]] = {}
        self._index = KeyIndex()
        self._unindexed = list(self._entries)

    def _index_new_shards(self) -> None:
        """Take the keys of shards that came since the last call into the index."""
        keys, positions = [], []
        for entry in (self._entries[name] for name in self._unindexed if name not in self._lost):
            try:
                keys.append(self._read_keys(entry))
            except CorruptShardError as exc:
                self._lose(entry, str(exc))
            else:
                positions.append(np.arange(entry.first, entry.stop))
        if keys:
            self._index.add(np.concatenate(keys), np.concatenate(positions))
        self._unindexed = []

    def _read_keys(self, entry: _Entry) -> NDArray[np.uint8]:
        header = read_header(self._path(entry.record.file), self.space, n_rows=entry.record.n_rows)
        if keys_sha256(header.keys) != entry.record.keys_sha256:
            raise CorruptShardError("does not have the keys it was written with")
        self._blocks[entry.record.file] = header.blocks
        return header.keys

    def _by_shard(
        self, positions: NDArray[np.int64], order: NDArray[np.int64]
    ) -> Iterator[tuple[_Entry, NDArray[np.int64]]]:
        """Yield each shard with the part of ``order`` (which sorts the positions) that lies in it."""
        if len(order) == 0:
            return
        entries = list(self._entries.values())
        lowest, highest = positions[order[0]], positions[order[-1]]
        if lowest < 0 or not entries or highest >= entries[-1].stop:
            raise InvalidInputError(f"positions must come from find. Got {lowest if lowest < 0 else highest}.")
        firsts = np.array([entry.first for entry in entries])
        shard_of = np.searchsorted(firsts, positions[order], side="right") - 1
        starts = np.flatnonzero(np.diff(shard_of, prepend=-1))
        for start, wanted in zip(starts, np.split(order, starts[1:]), strict=True):
            yield entries[shard_of[start]], wanted

    def _read_shard(self, entry: _Entry, layer: str, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Read ascending rows of one shard, or raise ``CorruptShardError``."""
        name = entry.record.file
        if name in self._lost:
            raise CorruptShardError("is gone")
        try:
            with self._path(name).open("rb", buffering=0) as file:
                if sha256_of(file) != entry.record.sha256:
                    raise CorruptShardError("does not have the checksum it was written with")
                if name not in self._blocks:
                    self._read_keys(entry)
                return read_block(file, self._blocks[name][layer], rows)
        except CorruptShardError:
            raise
        except FileNotFoundError as exc:
            raise CorruptShardError("is missing") from exc
        except OSError as exc:
            raise CorruptShardError(f"cannot be read ({exc.strerror})") from exc

    def _lose(self, entry: _Entry, reason: str) -> None:
        if entry.record.file not in self._lost:
            self._forget(entry)
            self._warn(entry.record.file, reason)

    def _forget(self, entry: _Entry) -> None:
        """Make the rows of a shard misses; their positions are not given to others."""
        self._lost.add(entry.record.file)
        self._index.remove(entry.first, entry.stop)
        self._blocks.pop(entry.record.file, None)

    def _warn(self, name: str, reason: str) -> None:
        if name not in self._warned:
            self._warned.add(name)
            warnings.warn(
                f"Shard {self._path(name)} {reason}. Its rows will be computed again. "
                "FeatureCache.repair() takes damaged shards out of the cache.",
                CacheWarning,
                stacklevel=4,
            )
