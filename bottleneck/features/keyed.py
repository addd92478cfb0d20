"""Rows of a source with their content keys, and why some have none."""

import time
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from bottleneck.cache import FeatureCache
from bottleneck.errors import ImageFailure
from bottleneck.images import FileStat, ImageReadError, ImageSource, content_keys


@dataclass(kw_only=True, slots=True)
class KeyedRows:
    """Consecutive rows of a source.

    ``keys[i]`` (16 bytes) belongs to ``rows[i]`` unless ``reasons`` says why it could not be read. Both change while
    images are decoded: a file may turn out broken, or another than when it was looked up.
    """

    source: ImageSource
    rows: NDArray[np.int64]
    cache: FeatureCache
    workers: int
    keys: NDArray[np.uint8] = field(init=False)
    reasons: dict[int, str] = field(init=False, default_factory=dict)

    def resolve(self) -> None:
        """Find each row's key: from the index of known files, else by reading the content."""
        read_after_ns = time.time_ns()
        self.keys = np.zeros((len(self.rows), 16), dtype=np.uint8)
        stats = {i: stat for i in range(len(self.rows)) if (stat := self._stat(i)) is not None}
        known = np.zeros(len(self.rows), dtype=bool)
        if stats:
            self.keys[list(stats)], known[list(stats)] = self.cache.recall(_as_tuples(stats.values()))
        unknown = self.readable()[~known[self.readable()]]
        self._hash_contents(unknown)
        fresh = {i: stats[i] for i in unknown.tolist() if i in stats and i not in self.reasons}
        if fresh:
            self.cache.remember(_as_tuples(fresh.values()), self.keys[list(fresh)], read_after_ns=read_after_ns)

    def readable(self) -> NDArray[np.int64]:
        """Return the indices of the rows that have failed in no way so far."""
        return np.array([i for i in range(len(self.rows)) if i not in self.reasons], dtype=np.int64)

    def failures(self) -> tuple[ImageFailure, ...]:
        """Return the rows that could not be read, in order."""
        ids = self.source.ids
        return tuple(
            ImageFailure(row=int(self.rows[i]), id=ids[int(self.rows[i])], reason=reason)
            for i, reason in sorted(self.reasons.items())
        )

    def index_of(self, row: int) -> int:
        """Return the index of a row of the source among these consecutive rows."""
        return row - int(self.rows[0])

    def is_unchanged(self, i: int) -> bool:
        """Say whether the content of a row can still be read and has the key it was looked up with."""
        keys, failures = content_keys(self.source, self.rows[[i]], workers=0)
        return not failures and bool((keys[0] == self.keys[i]).all())

    def _stat(self, i: int) -> FileStat | None:
        try:
            return self.source.stat(int(self.rows[i]))
        except ImageReadError as exc:
            self.reasons[i] = exc.reason
            return None

    def _hash_contents(self, wanted: NDArray[np.int64]) -> None:
        self.keys[wanted], failures = content_keys(self.source, self.rows[wanted], workers=self.workers)
        for failure in failures:
            self.reasons[self.index_of(failure.row)] = failure.reason


def _as_tuples(stats: Iterable[FileStat]) -> list[tuple[str, int, int]]:
    return [(stat.path, stat.size, stat.mtime_ns) for stat in stats]
