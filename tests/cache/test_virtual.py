"""The file for other tools shows every row of every shard, and what is gone as NaN."""

import subprocess
import sys

import h5py
import numpy as np
import pytest

from bottleneck.cache import FeatureCache, FeatureRows, as_stored
from bottleneck.errors import CacheError, CacheWarning
from tests.cache.rows import LAYERS, ROWS_PER_SHARD, features_of, filled, random_keys, rows_of, shard_paths


def shown(path) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    with h5py.File(path) as file:
        return file["keys"][:], {layer: file[layer][:] for layer, _ in LAYERS}


def test_every_row_is_shown_beside_its_key(tmp_path):
    _, keys = filled(tmp_path)

    (written,) = FeatureCache(tmp_path).write_virtual()

    shown_keys, layers = shown(written.path)
    assert (written.n_rows, written.n_shards) == (len(keys), 3)
    np.testing.assert_array_equal(shown_keys, keys)
    for layer, _ in LAYERS:
        assert layers[layer].dtype == np.float32
        np.testing.assert_array_equal(layers[layer], as_stored(features_of(keys, layer)))


def test_shard_that_overflows_float16_is_shown_exactly(tmp_path):
    store, _ = filled(tmp_path, n_shards=1)
    keys = random_keys(2, seed=9)
    large = {layer: features_of(keys, layer) * np.float32(1e6) for layer, _ in LAYERS}
    store.append(FeatureRows(keys=keys, layers=large))

    (written,) = FeatureCache(tmp_path).write_virtual()

    np.testing.assert_array_equal(shown(written.path)[1]["stage1"][-2:], large["stage1"])


def test_folder_can_be_moved_and_read_from_anywhere(tmp_path, monkeypatch):
    _, keys = filled(tmp_path / "cache")
    (written,) = FeatureCache(tmp_path / "cache").write_virtual()
    (tmp_path / "cache").rename(tmp_path / "moved")
    monkeypatch.chdir("/")

    np.testing.assert_array_equal(shown(tmp_path / "moved" / written.path.relative_to(tmp_path / "cache"))[0], keys)


def test_rows_of_a_shard_that_is_gone_are_nan(tmp_path):
    store, _ = filled(tmp_path)
    (written,) = FeatureCache(tmp_path).write_virtual()

    shard_paths(store)[1].unlink()

    features = shown(written.path)[1]["penultimate"]
    gone = np.isnan(features).any(axis=1)
    assert np.flatnonzero(gone).tolist() == list(range(ROWS_PER_SHARD, 2 * ROWS_PER_SHARD))


def test_writing_again_follows_what_came_and_what_was_merged(tmp_path):
    store, keys = filled(tmp_path)
    cache = FeatureCache(tmp_path)
    cache.write_virtual()
    more = random_keys(3, seed=5)
    store.append(rows_of(more))
    store.compact()

    (written,) = cache.write_virtual()

    assert written.n_shards == 1
    assert {bytes(key) for key in shown(written.path)[0]} == {bytes(key) for key in np.concatenate([keys, more])}
    assert cache.verify().bad == ()


def test_damaged_shard_is_left_out_with_a_warning(tmp_path):
    store, keys = filled(tmp_path)
    shard_paths(store)[0].write_bytes(b"no shard")

    with pytest.warns(CacheWarning):
        (written,) = FeatureCache(tmp_path).write_virtual()

    assert written.n_shards == 2
    np.testing.assert_array_equal(shown(written.path)[0], keys[ROWS_PER_SHARD:])


def test_empty_cache_has_nothing_to_show(tmp_path):
    assert FeatureCache(tmp_path).write_virtual() == ()


def test_folder_that_cannot_be_written_is_an_error(tmp_path):
    store, _ = filled(tmp_path)
    (store.folder / "features.h5").mkdir()

    with pytest.raises(CacheError, match="cannot be used"):
        FeatureCache(tmp_path).write_virtual()


def test_reading_it_needs_nothing_of_this_library(tmp_path):
    filled(tmp_path)
    (written,) = FeatureCache(tmp_path).write_virtual()
    code = (
        "import sys, h5py; file = h5py.File(sys.argv[1]); assert file['penultimate'].shape == (24, 24);"
        "assert 'bottleneck' not in sys.modules"
    )

    subprocess.run([sys.executable, "-c", code, str(written.path)], check=True)
