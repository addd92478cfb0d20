"""Where the row of a key is: sorted hashes in memory, 24 bytes a row, whatever the order in which rows came.

Keys are random already (they are hashes of content), but a key is folded into one 64-bit number all the same, so that
keys made by hand cannot slow the index down. The fold and the second half of the key together are the whole key:
nothing is lost, and comparing both compares all 16 bytes.

Rows come shard by shard. Sorting everything again for each would cost the square of their number, so the index is a
few sorted runs, each at least twice the size of the next up to a limit, as in a log-structured merge tree (O'Neil et
al. 1996): a row is merged a number of times that grows with the logarithm of the number of rows.
"""

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from bottleneck.cache.keys import KEY_BYTES

Scalar = TypeVar("Scalar", bound=np.generic)

MISS = -1
"""Position of a key that is not there."""

MIXER = np.uint64(0x9E3779B97F4A7C15)
"""Odd, hence invertible modulo 2**64: the golden ratio's digits (Knuth, Sorting and Searching, 6.4)."""

LARGEST_RUN = 1 << 18
"""Merging needs the memory of both runs once more, so it ends here: 6 MiB, and a look-up among ten million keys still
searches fewer than forty runs."""


def first_of_each(keys: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Return, in ascending order, the rows of ``keys`` (n, 16) whose key is in no earlier one."""
    halves = np.ascontiguousarray(keys).view(np.uint64)
    order = np.lexsort((halves[:, 1], halves[:, 0]))  # stable: of equal keys the first comes first
    is_new = np.ones(len(order), bool)
    is_new[1:] = (np.diff(halves[order], axis=0) != 0).any(axis=1)
    return np.sort(order[is_new])


@dataclass(frozen=True, kw_only=True, slots=True)
class _Run:
    """Rows in the order of their folds; equal folds in the order in which they came."""

    folds: NDArray[np.uint64]
    halves: NDArray[np.uint64]
    positions: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.folds)

    def find(self, folds: NDArray[np.uint64], halves: NDArray[np.uint64]) -> NDArray[np.int64]:
        """Return the newest position of each key, ``MISS`` where there is none."""
        found = np.full(len(folds), MISS, np.int64)
        candidates = np.searchsorted(self.folds, folds, side="right") - 1
        open_ = np.flatnonzero(candidates >= 0)
        while len(open_):  # once, unless different keys have one fold
            at = candidates[open_]
            same_fold = self.folds[at] == folds[open_]
            hit = same_fold & (self.halves[at] == halves[open_])
            found[open_[hit]] = self.positions[at[hit]]
            candidates[open_] -= 1
            open_ = open_[same_fold & ~hit & (at > 0)]
        return found

    def without(self, first: int, stop: int) -> "_Run":
        """Return the run without the positions from ``first`` up to ``stop``."""
        kept = (self.positions < first) | (self.positions >= stop)
        return _Run(folds=self.folds[kept], halves=self.halves[kept], positions=self.positions[kept])


class KeyIndex:
    """Find the positions of keys. Of several rows with one key the newest is found; they are equal anyway."""

    def __init__(self) -> None:
        self._runs: list[_Run] = []

    def __len__(self) -> int:
        return sum(map(len, self._runs))

    def add(self, keys: NDArray[np.uint8], positions: NDArray[np.int64]) -> None:
        """Add rows; ``keys`` (n, 16)."""
        if len(keys) == 0:
            return
        folds, halves = _fold(keys)
        self._runs.append(_sorted_run(folds, halves, np.asarray(positions, np.int64)))
        while len(self._runs) > 1 and _are_merged(len(self._runs[-2]), len(self._runs[-1])):
            newer, older = self._runs.pop(), self._runs.pop()
            self._runs.append(_merged(older, newer))

    def remove(self, first: int, stop: int) -> None:
        """Forget the positions from ``first`` up to ``stop``."""
        self._runs = [kept for run in self._runs if len(kept := run.without(first, stop))]

    def find(self, keys: NDArray[np.uint8]) -> NDArray[np.int64]:
        """Return the position of each of ``keys`` (n, 16), ``MISS`` where there is none."""
        folds, halves = _fold(keys)
        order = np.argsort(folds)  # neighbours share the cache lines of the search
        folds, halves = folds[order], halves[order]
        found = np.full(len(keys), MISS, np.int64)
        for run in self._runs:  # from old to new, so that the newest is what stays
            hits = run.find(folds, halves)
            found = np.where(hits == MISS, found, hits)
        answer = np.empty(len(keys), np.int64)
        answer[order] = found
        return answer


def _are_merged(n_older: int, n_newer: int) -> bool:
    return n_older < 2 * n_newer and n_older + n_newer <= LARGEST_RUN


def _fold(keys: NDArray[np.uint8]) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """Return the fold of each key (n, 16) and its second half."""
    words = np.ascontiguousarray(keys).reshape(-1, KEY_BYTES).view("<u8")
    return words[:, 0] ^ (words[:, 1] * MIXER), words[:, 1].copy()


def _sorted_run(folds: NDArray[np.uint64], halves: NDArray[np.uint64], positions: NDArray[np.int64]) -> _Run:
    order = np.argsort(folds, kind="stable")
    return _Run(folds=folds[order], halves=halves[order], positions=positions[order])


def _merged(older: _Run, newer: _Run) -> _Run:
    """Merge two runs without sorting: each row goes where its fold belongs, newer ones behind older equals."""
    places = np.searchsorted(older.folds, newer.folds, side="right") + np.arange(len(newer))
    is_newer = np.zeros(len(older) + len(newer), bool)
    is_newer[places] = True

    def interleave(left: NDArray[Scalar], right: NDArray[Scalar]) -> NDArray[Scalar]:
        joined = np.empty(len(is_newer), left.dtype)
        joined[is_newer], joined[~is_newer] = right, left
        return joined

    return _Run(
        folds=interleave(older.folds, newer.folds),
        halves=interleave(older.halves, newer.halves),
        positions=interleave(older.positions, newer.positions),
    )
