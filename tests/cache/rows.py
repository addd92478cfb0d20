"""Rows whose features follow from their keys, so that any row can be checked on its own.

As a script, ``python rows.py CACHE_DIR SEED N_SHARDS`` appends shards and prints the number of each when it is done.
"""

import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bottleneck.cache import FeatureCache, FeatureRows, FeatureSpace, SpaceStore, as_stored

LAYERS = (("penultimate", 24), ("stage1", 5))
SPACE = FeatureSpace(weights="ab" * 32, layers=LAYERS, pooling="mean", preprocess='{"crop": [224, 224]}')
ROWS_PER_SHARD = 8


def random_keys(n: int, seed: int) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (n, 16), dtype=np.uint8)


def features_of(keys: NDArray[np.uint8], layer: str = "penultimate") -> NDArray[np.float32]:
    """Return float32 features in [-1, 1) with more digits than float16 holds."""
    columns = np.arange(1, 2 * dict(LAYERS)[layer], 2, dtype=np.uint64)
    mixed = np.ascontiguousarray(keys).view("<u8")[:, :1] * columns
    return ((mixed >> np.uint64(40)).astype(np.float64) / 2**23 - 1).astype(np.float32)


def rows_of(keys: NDArray[np.uint8]) -> FeatureRows:
    return FeatureRows(keys=keys, layers={layer: features_of(keys, layer) for layer, _ in LAYERS})


def filled(cache_dir: Path, *, n_shards: int = 3, seed: int = 0) -> tuple[SpaceStore, NDArray[np.uint8]]:
    """Return a store of some shards and all its keys, in the order they were appended."""
    store = FeatureCache(cache_dir).space(SPACE)
    keys = random_keys(n_shards * ROWS_PER_SHARD, seed)
    for part in np.split(keys, n_shards):
        store.append(rows_of(part))
    return store, keys


def shard_paths(store: SpaceStore) -> list[Path]:
    return sorted((store.folder / "shards").glob("*.h5"))


def assert_holds(store: SpaceStore, keys: NDArray[np.uint8]) -> None:
    """Check that all keys are found and have the features they should."""
    positions = store.find(keys)
    assert (positions >= 0).all()
    for layer, _ in LAYERS:
        np.testing.assert_array_equal(store.read(positions, layer), as_stored(features_of(keys, layer)))


if __name__ == "__main__":
    cache_dir, seed, n_shards = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    store = FeatureCache(cache_dir).space(SPACE)
    for number in range(n_shards):
        store.append(rows_of(random_keys(ROWS_PER_SHARD, seed + number)))
        print(number, flush=True)  # noqa: T201 - tells the test how far it is
