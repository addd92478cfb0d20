"""Where the row of a key is: sorted keys in memory, 24 bytes a row."""

import numpy as np
from numpy.typing import NDArray

from bottleneck.cache.keys import KEY_BYTES

MISS = -1
"""Position of a key that is not there."""


class KeyIndex:
    """Find the positions of keys. Of several rows with one key the newest is found; they are equal anyway."""

    def __init__(self) -> None:
        self._keys = np.empty(0, f"V{KEY_BYTES}")
        self._positions = np.empty(0, np.int64)

    def add(self, keys: NDArray[np.uint8], positions: NDArray[np.int64]) -> None:
        """Add rows; ``keys`` (n, 16)."""
        joined = np.concatenate([self._keys, _as_scalars(keys)])
        order = np.argsort(joined, kind="stable")  # a merge sort: fast on what is sorted already
        self._keys = joined[order]
        self._positions = np.concatenate([self._positions, positions])[order]

    def remove(self, first: int, stop: int) -> None:
        """Forget the positions from ``first`` up to ``stop``."""
        kept = (self._positions < first) | (self._positions >= stop)
        self._keys, self._positions = self._keys[kept], self._positions[kept]

    def find(self, keys: NDArray[np.uint8]) -> NDArray[np.int64]:
        """Return the position of each of ``keys`` (n, 16), ``MISS`` where there is none."""
        if len(self._keys) == 0:
            return np.full(len(keys), MISS, np.int64)
        wanted = _as_scalars(keys)
        candidates = np.maximum(np.searchsorted(self._keys, wanted, side="right") - 1, 0)
        return np.where(self._keys[candidates] == wanted, self._positions[candidates], MISS)


def _as_scalars(keys: NDArray[np.uint8]) -> NDArray[np.void]:
    return np.ascontiguousarray(keys).view(f"V{KEY_BYTES}").ravel()
