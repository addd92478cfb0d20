"""A cache that grows by no more than it may."""

from pathlib import Path

import numpy as np
import pytest

from bottleneck.cache import FeatureCache, FeatureRows, FeatureSpace, as_stored
from bottleneck.estimators.bounded import BoundedCache, shard_bytes

SPACE = FeatureSpace(weights="0" * 16, layers=(("penultimate", 64), ("stage1", 16)), pooling="mean", preprocess="{}")
ROW_BYTES = 2 * (64 + 16)


def rows_of(numbers: range, *, scale: float = 1.0) -> FeatureRows:
    """Return seeded rows with keys of their own."""
    rng = np.random.default_rng(0)
    keys = np.array([list(number.to_bytes(16, "big")) for number in numbers], dtype=np.uint8)
    layers = {name: (scale * rng.normal(size=(len(keys), width))).astype(np.float32) for name, width in SPACE.layers}
    return FeatureRows(keys=keys, layers=layers)


def bytes_in(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


@pytest.fixture
def bounded(tmp_path):
    """Return a function that opens the cache with a limit."""
    return lambda limit, n_rows=4_000: BoundedCache(tmp_path / "cache", limit=limit, n_rows=n_rows, row_bytes=ROW_BYTES)


@pytest.mark.parametrize("limit", [0, 1_000, 40_000, 100_000, 300_000, 3_000_000])
def test_whatever_is_put_in_the_folder_stays_within_the_limit(bounded, tmp_path, limit):
    cache = bounded(limit)
    store = cache.space(SPACE)
    stats = [(str(tmp_path / f"{i}.png"), 1, 1) for i in range(500)]

    cache.remember(stats, np.zeros((500, 16), np.uint8))
    store.write_note("rates", {"seconds": 1.0})
    for start in range(0, 3_000, 250):
        store.append(rows_of(range(start, start + 250)))

    assert bytes_in(tmp_path) <= limit
    assert (store.n_rows > 0) == (limit >= 100_000)


def test_rows_read_back_the_same_from_disk_and_from_memory(bounded):
    first, second = rows_of(range(300)), rows_of(range(300, 600), scale=1e5)
    limit = shard_bytes(first)
    store = bounded(limit).space(SPACE)

    assert (store.append(first), store.append(second)) == (300, 300)

    assert store.n_rows == 300
    order = np.random.default_rng(1).permutation(600)
    positions = store.find(np.concatenate([first.keys, second.keys])[order])
    for layer in ("penultimate", "stage1"):
        known = as_stored(np.concatenate([first.layers[layer], second.layers[layer]]))[order]
        np.testing.assert_array_equal(store.read(positions, layer), known)
        np.testing.assert_array_equal(np.concatenate(list(store.blocks(positions, layer, block_rows=50))), known)


def test_rows_that_others_have_written_are_found_and_the_rest_is_claimed_without_a_trace(bounded, tmp_path):
    FeatureCache(tmp_path / "cache").space(SPACE).append(rows_of(range(10)))
    before = bytes_in(tmp_path)
    store = bounded(0).space(SPACE)

    with store.claim(rows_of(range(20)).keys) as claim:
        assert claim.mine.tolist() == [False] * 10 + [True] * 10
    store.append(rows_of(range(10, 20)))

    assert (store.find(rows_of(range(20)).keys) >= 0).all()
    assert bytes_in(tmp_path) == before


def test_rows_in_memory_are_gone_when_they_are_let_go(bounded):
    cache = bounded(0)
    store = cache.space(SPACE)
    store.append(rows_of(range(5)))

    cache.forget()

    assert (store.find(rows_of(range(5)).keys) == -1).all()
    assert cache.space(SPACE) is store


def test_nothing_is_written_any_more_once_rows_are_kept_in_memory(bounded, tmp_path):
    cache = bounded(10**9)
    cache.keep_in_memory()

    cache.space(SPACE).append(rows_of(range(5)))
    cache.space(SPACE).write_note("rates", {"seconds": 1.0})

    assert not (tmp_path / "cache").exists()
