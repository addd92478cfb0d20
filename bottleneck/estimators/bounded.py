"""A cache that grows by no more than it may: rows for which there is no room are kept in memory, for one call."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bottleneck.cache import FeatureCache, FeatureRows, FeatureSpace, SpaceStore, as_stored
from bottleneck.cache.format import LARGEST_FLOAT16
from bottleneck.cache.locks import Claim
from bottleneck.cache.stat_index import FileStat
from bottleneck.planner import CACHE_BYTES, KEY_BYTES, ROW_BYTES, SHARD_BYTES, SHARD_ROWS

IN_MEMORY = 2**62
"""Positions from here on are rows that are kept in memory."""
NOTE_BYTES = 4096
"""A note and, where it is the first file there, the description of its folder: blocks of a disk."""
INDEX_BYTES, ENTRY_BYTES = 16_384, 120
"""The empty index of files, and what an entry takes beside its path, which is there twice."""


class Room:
    """Bytes that may still be written."""

    def __init__(self, n_bytes: int) -> None:
        self.left = n_bytes

    def take(self, n_bytes: int) -> bool:
        """Say whether there is room for so much, and take it if there is."""
        if n_bytes > self.left:
            return False
        self.left -= n_bytes
        return True


class BoundedCache(FeatureCache):
    """A cache folder that one call adds at most ``limit`` bytes to, by what is written at most for so many rows.

    Notes and the index of files never take the room that the rows need. Small shards are not merged: for a moment
    that takes as much again.
    """

    def __init__(self, cache_dir: Path, *, limit: int, n_rows: int, row_bytes: int) -> None:
        super().__init__(cache_dir)
        rows = n_rows * (row_bytes + KEY_BYTES) + -(-n_rows // SHARD_ROWS) * SHARD_BYTES
        beside = n_rows * (ROW_BYTES - KEY_BYTES) + CACHE_BYTES
        self.for_rows = Room(min(limit, rows))
        self.for_notes = Room(min(limit - self.for_rows.left, beside))
        self._stores: dict[str, BoundedStore] = {}

    def space(self, space: FeatureSpace) -> SpaceStore:
        """Return the store of one feature space, the same one each time."""
        return self._stores.setdefault(
            space.digest, BoundedStore(self.cache_dir, space, for_rows=self.for_rows, for_notes=self.for_notes)
        )

    def remember(self, stats: Sequence[FileStat], keys: NDArray[np.uint8], *, read_after_ns: int | None = None) -> None:
        """Remember the content keys of files if there is room for that."""
        entries = sum(2 * len(str(path)) + ENTRY_BYTES for path, _, _ in stats)
        if self.for_notes.take(INDEX_BYTES + entries):
            super().remember(stats, keys, read_after_ns=read_after_ns)

    def keep_in_memory(self) -> None:
        """Write no further rows, nor anything else."""
        self.for_rows.left = self.for_notes.left = 0

    def forget(self) -> None:
        """Let go of the rows in memory."""
        for store in self._stores.values():
            store.held.forget()


class BoundedStore(SpaceStore):
    """A store that writes while there is room, and then keeps rows in memory."""

    merges_shards = False

    def __init__(self, cache_dir: Path, space: FeatureSpace, *, for_rows: Room, for_notes: Room) -> None:
        super().__init__(cache_dir, space)
        self.held = HeldRows(space)
        self._for_rows = for_rows
        self._for_notes = for_notes

    def find(self, keys: NDArray[np.uint8]) -> NDArray[np.int64]:
        """Return the position of each key, on the disk or in memory, -1 where there is no row."""
        positions = super().find(keys)
        missing = np.flatnonzero(positions < 0)
        positions[missing] = self.held.find(keys[missing])
        return positions

    def read(self, positions: NDArray[np.int64], layer: str) -> NDArray[np.float32]:
        """Return rows of one layer, in the order asked for."""
        held = positions >= IN_MEMORY
        if not held.any():
            return super().read(positions, layer)
        features = np.empty((len(positions), self.space.n_features(layer)), np.float32)
        features[~held] = super().read(positions[~held], layer)
        features[held] = self.held.read(positions[held], layer)
        return features

    def blocks(
        self, positions: NDArray[np.int64], layer: str, *, block_rows: int
    ) -> Iterator[NDArray[np.float16 | np.float32]]:
        """Yield rows of one layer in the order asked for, ``block_rows`` at a time."""
        for start in range(0, len(positions), block_rows):
            wanted = positions[start : start + block_rows]
            if (wanted >= IN_MEMORY).any():
                yield self.read(wanted, layer)
            else:
                yield from super().blocks(wanted, layer, block_rows=block_rows)

    def append(self, rows: FeatureRows) -> int:
        """Store rows on the disk if there is room, else in memory."""
        if self._for_rows.take(shard_bytes(rows)):
            return super().append(rows)
        return self.held.add(rows)

    @contextmanager
    def claim(self, keys: NDArray[np.uint8], *, heed_others: bool = True) -> Iterator[Claim]:
        """Say which keys are missing; others are kept off them only where they would find the rows afterwards."""
        if self._for_rows.left > 0:
            with super().claim(keys, heed_others=heed_others) as claim:
                yield claim
        else:
            missing = self.find(keys) < 0
            yield Claim(mine=missing, others=np.zeros_like(missing))

    def write_note(self, name: str, note: dict[str, str | float]) -> None:
        """Keep a few facts beside the rows if there is room for that: notes are never needed."""
        if self._for_notes.take(NOTE_BYTES):
            super().write_note(name, note)


class HeldRows:
    """Rows of one feature space in memory, as they would come back from the disk."""

    def __init__(self, space: FeatureSpace) -> None:
        self._space = space
        self.forget()

    def find(self, keys: NDArray[np.uint8]) -> NDArray[np.int64]:
        """Return the position of each key, -1 where there is no row."""
        return np.array([self._places.get(bytes(key), -1) for key in keys], dtype=np.int64)

    def read(self, positions: NDArray[np.int64], layer: str) -> NDArray[np.float32]:
        """Return rows of one layer, in the order asked for."""
        starts = np.cumsum([0, *map(len, self._parts[layer])])
        features = np.empty((len(positions), self._space.n_features(layer)), np.float32)
        for start, part in zip(starts, self._parts[layer], strict=False):
            here = np.flatnonzero((positions - IN_MEMORY >= start) & (positions - IN_MEMORY < start + len(part)))
            features[here] = part[positions[here] - IN_MEMORY - start]
        return features

    def add(self, rows: FeatureRows) -> int:
        """Keep rows; return how many."""
        first = IN_MEMORY + self._n_rows
        self._places.update({bytes(key): first + i for i, key in enumerate(rows.keys)})
        for layer, features in rows.layers.items():
            self._parts[layer].append(as_stored(features))
        self._n_rows += len(rows.keys)
        return len(rows.keys)

    def forget(self) -> None:
        """Let go of all rows."""
        self._n_rows = 0
        self._places: dict[bytes, int] = {}
        self._parts: dict[str, list[NDArray[np.float32]]] = {layer: [] for layer, _ in self._space.layers}


def shard_bytes(rows: FeatureRows) -> int:
    """Return what rows take on the disk at most."""
    values = sum(
        features.size * (2 if np.abs(features).max(initial=0) <= LARGEST_FLOAT16 else 4)
        for features in rows.layers.values()
    )
    return int(values) + KEY_BYTES * len(rows.keys) + SHARD_BYTES
