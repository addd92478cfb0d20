import pickle
from dataclasses import replace
from pathlib import Path

import pytest

from bottleneck.cache import FeatureCache, VerifyReport
from bottleneck.errors import CacheError

from .rows import SPACE, assert_holds, filled, random_keys, rows_of

OTHER = replace(SPACE, weights="cd" * 32)


def test_spaces_are_those_with_rows_and_other_folders_are_left_alone(tmp_path):
    cache = FeatureCache(tmp_path)
    for space in (SPACE, OTHER):
        cache.space(space).append(rows_of(random_keys(2, 0)))
    cache.space(replace(SPACE, pooling="max"))
    (tmp_path / "notes").mkdir()
    (tmp_path / "0123456789abcdef").mkdir()

    assert set(cache.spaces()) == {SPACE, OTHER}


def test_absent_cache_is_empty(tmp_path):
    cache = FeatureCache(tmp_path / "absent")

    assert cache.spaces() == ()
    assert cache.verify() == VerifyReport(n_good=0, bad=(), newer=())
    assert not (tmp_path / "absent").exists()


def test_verify_covers_all_spaces(tmp_path):
    cache = FeatureCache(tmp_path)
    stores = [cache.space(space) for space in (SPACE, OTHER)]
    for store in stores:
        store.append(rows_of(random_keys(2, 0)))
        store.append(rows_of(random_keys(3, 1)))
    (bad,) = stores[1].folder.glob("shards/00001-*")
    bad.write_bytes(b"")

    report = cache.verify()

    assert report.n_good == 3
    assert [shard.path for shard in report.bad] == [bad]


def test_folder_named_after_another_space_is_an_error(tmp_path):
    store, _ = filled(tmp_path)
    store.folder.rename(tmp_path / OTHER.digest)

    with pytest.raises(CacheError, match="was the folder renamed"):
        FeatureCache(tmp_path).spaces()


def test_file_in_place_of_the_cache_is_an_error(tmp_path):
    (tmp_path / "file").touch()

    with pytest.raises(CacheError, match="Not a directory"):
        FeatureCache(tmp_path / "file").spaces()


def test_pickled_cache_reads_the_same_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    _, keys = filled(Path("cache"))
    pickled = pickle.dumps(FeatureCache("cache"))
    monkeypatch.chdir("/")

    assert_holds(pickle.loads(pickled).space(SPACE), keys)


def test_home_folder_may_be_written_as_tilde(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))

    assert FeatureCache("~/cache").cache_dir == tmp_path / "cache"
