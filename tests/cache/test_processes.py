"""Processes that are killed, and processes that append at once."""

import json
import os
import random
import sys
import warnings

import numpy as np
import pytest

from bottleneck.cache import FeatureCache

from .rows import ROWS_PER_SHARD, SPACE, assert_holds, filled, random_keys, shard_paths
from .subprocesses import finish, kill_after, start_python


def start_appending(cache_dir, *, seed, n_shards):
    return start_python("-m", "rows", cache_dir, seed, n_shards)


def keys_of(*, seed, n_shards):
    return np.concatenate(
        [random_keys(ROWS_PER_SHARD, seed + number) for number in range(n_shards)] or [random_keys(0, 0)]
    )


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
def test_kill_at_any_moment_loses_at_most_the_shard_in_the_making(tmp_path):
    draw = random.Random(0)
    n_finished = 0
    for round_ in range(10):
        seed = 10_000 * round_
        process = start_appending(tmp_path, seed=seed, n_shards=5000)
        n_shards = len(kill_after(process, draw.uniform(0, 0.1)))
        n_finished += n_shards

        with warnings.catch_warnings():
            warnings.simplefilter("error")
            store = FeatureCache(tmp_path).space(SPACE)
            assert_holds(store, keys_of(seed=seed, n_shards=n_shards))
            unfinished = store.find(keys_of(seed=seed + n_shards, n_shards=2)).reshape(2, ROWS_PER_SHARD) >= 0
            assert not unfinished[1].any()
            assert unfinished[0].all() or not unfinished[0].any()

    assert FeatureCache(tmp_path).verify().bad == ()
    n_rows = FeatureCache(tmp_path).space(SPACE).n_rows
    assert n_finished * ROWS_PER_SHARD <= n_rows <= (n_finished + 10) * ROWS_PER_SHARD


def test_processes_that_append_at_once_keep_all_rows(tmp_path):
    processes = [start_appending(tmp_path, seed=10_000 * number, n_shards=40) for number in range(3)]
    finish(*processes)

    store = FeatureCache(tmp_path).space(SPACE)
    for number in range(3):
        assert_holds(store, keys_of(seed=10_000 * number, n_shards=40))
    assert store.n_rows == 3 * 40 * ROWS_PER_SHARD
    for line in (store.folder / "manifest.jsonl").read_text().splitlines():
        assert json.loads(line)["format_version"] == 1  # no line is torn or empty
    assert FeatureCache(tmp_path).verify().bad == ()


def test_processes_that_append_the_same_rows_store_each_once(tmp_path):
    processes = [start_appending(tmp_path, seed=0, n_shards=40) for _ in range(3)]
    finish(*processes)

    store = FeatureCache(tmp_path).space(SPACE)
    assert_holds(store, keys_of(seed=0, n_shards=40))
    assert store.n_rows == 40 * ROWS_PER_SHARD


@pytest.mark.parametrize("kept", [0, 30])
def test_complete_shard_that_was_never_listed_is_adopted(tmp_path, kept):
    store, keys = filled(tmp_path)
    path = store.folder / "manifest.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:2]) + lines[2][:kept])

    assert_holds(FeatureCache(tmp_path).space(SPACE), keys)

    assert {json.loads(line)["file"] for line in path.read_text().splitlines() if line.endswith("}")} == {
        shard.name for shard in shard_paths(store)
    }


def test_lost_manifest_is_made_again_from_the_shards(tmp_path):
    store, keys = filled(tmp_path)
    (store.folder / "manifest.jsonl").unlink()

    assert_holds(FeatureCache(tmp_path).space(SPACE), keys)

    assert len((store.folder / "manifest.jsonl").read_text().splitlines()) == 3


def test_shard_cut_short_before_it_was_listed_is_left_out(tmp_path):
    store, keys = filled(tmp_path)
    (store.folder / "manifest.jsonl").unlink()
    last = shard_paths(store)[-1]
    os.truncate(last, 100)
    reopened = FeatureCache(tmp_path).space(SPACE)

    with pytest.warns(UserWarning, match="does not have the checksum in its name"):
        reopened.refresh()

    assert_holds(reopened, keys[: 2 * ROWS_PER_SHARD])
    assert (reopened.find(keys[2 * ROWS_PER_SHARD :]) == -1).all()
