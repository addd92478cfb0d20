"""Which shards are merged, and that merging them loses and moves nothing."""

import os
import pickle
import random
import shutil
import signal
import sys
import warnings

import numpy as np
import pytest

from bottleneck.cache import FeatureCache, as_stored
from bottleneck.cache.compact import COMPACT_BYTES, FANOUT, MERGED_BYTES, SMALL_BYTES, piled_up, worth_merging
from bottleneck.cache.manifest import ShardRecord
from bottleneck.cache.merging import merge_elsewhere
from bottleneck.errors import CacheWarning, CorruptShardError, InvalidInputError

from .rows import ROWS_PER_SHARD, SPACE, assert_holds, features_of, filled, random_keys, rows_of, shard_paths
from .subprocesses import kill_after, start_python


def records(*sizes):
    """Return records of (rows, bytes)."""
    return [
        ShardRecord(file=str(i), sha256="", keys_sha256="", n_rows=rows, n_bytes=n_bytes)
        for i, (rows, n_bytes) in enumerate(sizes)
    ]


def test_shards_of_one_size_are_merged_once_there_are_enough():
    assert piled_up(records(*[(1, 100)] * (FANOUT - 1), (FANOUT, 100))) == []

    few_and_one = records(*[(1, 100)] * (FANOUT - 1), (FANOUT, 100), (2, 100))
    assert [record.file for record in piled_up(few_and_one)] == [*map(str, range(FANOUT - 1)), str(FANOUT)]


def test_large_shards_are_left_alone_and_an_append_writes_little():
    assert piled_up(records(*[(4096, 100)] * 20)) == []
    assert piled_up(records(*[(1, SMALL_BYTES)] * 20)) == []
    assert sum(record.n_bytes for record in piled_up(records(*[(9, SMALL_BYTES - 1)] * 50))) <= MERGED_BYTES


def test_compaction_takes_neighbours_up_to_a_size_and_ends():
    half = COMPACT_BYTES // 2
    assert worth_merging(records((5, half), (5, half))) == []
    assert worth_merging(records((5, 10))) == []

    groups = worth_merging(records((5, half), (5, 10), (5, half - 1), (5, half), *[(5, half - 1)] * 4, (5, 12)))

    assert [[record.file for record in group] for group in groups] == [["1", "2"], ["4", "5"], ["6", "7"]]


def test_one_row_at_a_time_leaves_few_shards_and_all_rows(tmp_path):
    keys = random_keys(100, 0)
    store = FeatureCache(tmp_path).space(SPACE)
    for key in keys:
        store.append(rows_of(key[None]))

    assert len(shard_paths(store)) < 3 * FANOUT
    assert_holds(store, keys)
    assert_holds(FeatureCache(tmp_path).space(SPACE), keys)
    assert FeatureCache(tmp_path).verify().bad == ()


def test_compact_writes_one_contiguous_shard_and_every_row_is_found(tmp_path):
    store, keys = filled(tmp_path, n_shards=5)

    report = FeatureCache(tmp_path).compact()

    assert (report.shards_before, report.shards_after, len(shard_paths(store))) == (5, 1, 1)
    assert report.n_bytes == shard_paths(store)[0].stat().st_size
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert_holds(FeatureCache(tmp_path).space(SPACE), keys)
    assert FeatureCache(tmp_path).verify().n_good == 1
    assert FeatureCache(tmp_path).compact().shards_before == 1


def test_positions_found_before_a_compaction_stay_valid_in_every_store(tmp_path):
    store, keys = filled(tmp_path, n_shards=4)
    other = FeatureCache(tmp_path).space(SPACE)
    copy = pickle.loads(pickle.dumps(store))
    order = np.random.default_rng(0).permutation(len(keys))
    positions, theirs = store.find(keys), other.find(keys)
    more = random_keys(ROWS_PER_SHARD, 7)
    FeatureCache(tmp_path).space(SPACE).append(rows_of(more))

    FeatureCache(tmp_path).compact()
    third = FeatureCache(tmp_path).space(SPACE)
    third.append(rows_of(random_keys(1, 8)))
    third.compact()

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for held, found in ((store, positions), (other, theirs), (copy, positions)):
            got = held.read(found[order], "penultimate")
            np.testing.assert_array_equal(got, as_stored(features_of(keys))[order])
            assert_holds(held, np.concatenate([keys, more]))


def test_damaged_shard_stays_for_repair_and_the_others_are_merged(tmp_path):
    store, keys = filled(tmp_path, n_shards=4)
    content = bytearray(shard_paths(store)[1].read_bytes())
    content[-3] ^= 4
    shard_paths(store)[1].write_bytes(content)

    with pytest.warns(UserWarning, match="does not have the checksum"):
        FeatureCache(tmp_path).compact()

    assert [bad.n_rows for bad in FeatureCache(tmp_path).repair().bad] == [ROWS_PER_SHARD]
    kept = np.delete(keys, range(ROWS_PER_SHARD, 2 * ROWS_PER_SHARD), axis=0)
    assert_holds(FeatureCache(tmp_path).space(SPACE), kept)


@pytest.mark.filterwarnings("ignore::bottleneck.errors.CacheWarning")
def test_damage_to_what_the_manifest_says_of_moved_rows_never_gives_wrong_features(tmp_path):
    store, keys = filled(tmp_path, n_shards=3)
    positions = store.find(keys)
    frozen = pickle.dumps(store)
    names = [shard.name for shard in shard_paths(store)]
    FeatureCache(tmp_path).compact()
    path = store.folder / "manifest.jsonl"
    text = path.read_text()
    first, second = (f'"{name}", 8]' for name in names[:2])
    exchanged = text.replace(first, "?").replace(second, first).replace("?", second)
    for damaged in (exchanged, text.replace(first, first.replace(" 8]", " 9]")), text.replace(first, '"x", 8]')):
        assert damaged != text
        path.write_text(damaged)
        copy = pickle.loads(frozen)

        try:
            got = copy.read(positions, "penultimate")
        except OSError:
            found = copy.find(keys)
            assert (found >= 0).all()
            got = copy.read(found, "penultimate")

        np.testing.assert_array_equal(got, as_stored(features_of(keys)))


def files_in(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_workers_write_the_very_files_that_one_process_writes(tmp_path, monkeypatch):
    _, keys = filled(tmp_path / "one", n_shards=20)
    monkeypatch.setattr("bottleneck.cache.compact.COMPACT_BYTES", 3 * 8 * 1024)
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    events = []

    serial = FeatureCache(tmp_path / "one").compact()
    parallel = FeatureCache(tmp_path / "two").compact(n_jobs=2, progress=events.append)

    assert serial == parallel
    assert 1 < parallel.shards_after < 20
    assert files_in(tmp_path / "one") == files_in(tmp_path / "two")
    assert_holds(FeatureCache(tmp_path / "two").space(SPACE), keys)
    assert events[-1].done == events[-1].total


def test_number_of_workers_that_is_none_is_refused(tmp_path):
    filled(tmp_path)

    for method in (FeatureCache(tmp_path).compact, FeatureCache(tmp_path).verify):
        with pytest.raises(InvalidInputError, match=r"'n_jobs' parameter of (compact|verify)"):
            method(n_jobs=0)


def test_damage_is_the_same_news_with_workers(tmp_path, monkeypatch):
    store, _ = filled(tmp_path, n_shards=7)
    monkeypatch.setattr("bottleneck.cache.compact.COMPACT_BYTES", 3 * 8 * 1024)
    damaged = shard_paths(store)[1]
    damaged.write_bytes(damaged.read_bytes()[:-3] + b"???")

    with pytest.warns(CacheWarning, match=damaged.name):
        FeatureCache(tmp_path).compact(n_jobs=2)

    assert FeatureCache(tmp_path).verify(n_jobs=2).n_bad_rows == ROWS_PER_SHARD
    assert damaged.exists()


def test_merge_of_shards_that_went_meanwhile_is_given_up(tmp_path):
    store, keys = filled(tmp_path)
    other = FeatureCache(tmp_path).space(SPACE)
    merge = merge_elsewhere(store.folder, SPACE, [*store._catalog.live()], "token")
    assert [path.suffix for path in (store.folder / "shards").iterdir()].count(".partial") == 1

    other.compact()
    with store._writer.exclusively():
        store._writer.take_in(merge)

    assert len(list((store.folder / "shards").iterdir())) == 1
    assert_holds(store, keys)
    assert FeatureCache(tmp_path).verify().bad == ()


STOPPED = """
import sys
import bottleneck.cache.compact
from bottleneck.cache import FeatureCache
bottleneck.cache.compact.COMPACT_BYTES = 3 * 8 * 1024
method = getattr(FeatureCache(sys.argv[1]), sys.argv[2])
try:
    method(n_jobs=2, progress=lambda event: print(event.done, flush=True))
except KeyboardInterrupt:
    print("stopped")
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs process groups")
@pytest.mark.parametrize("method", ["compact", pytest.param("verify", marks=pytest.mark.slow)])
def test_interrupt_ends_all_workers_and_leaves_nothing_half_done(tmp_path, method):
    store, keys = filled(tmp_path, n_shards=7)
    for seed in range(1, 20):
        more = random_keys(7 * 4097, seed)[: 4097 if method == "verify" else 8]
        store.append(rows_of(more))
        keys = np.concatenate([keys, more])
    process = start_python("-c", STOPPED, tmp_path, method, in_own_group=True)
    process.stdout.readline()

    os.killpg(process.pid, signal.SIGINT)
    output, errors = process.communicate(timeout=60)

    assert (process.returncode, output.splitlines()[-1], errors) == (0, "stopped", "")
    assert not list(tmp_path.rglob("*.partial"))
    assert_holds(FeatureCache(tmp_path).space(SPACE), keys)
    assert FeatureCache(tmp_path).verify().bad == ()


COMPACTING = """
import sys
from bottleneck.cache import FeatureCache
from rows import SPACE, random_keys, rows_of
store = FeatureCache(sys.argv[1]).space(SPACE)
for number in range(100_000):
    store.append(rows_of(random_keys(3, int(sys.argv[2]) + number)))
    if number % 3 == 0:
        store.compact()
    print(number, flush=True)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
def test_kill_at_any_moment_of_a_compaction_loses_nothing(tmp_path):
    draw = random.Random(0)
    expected = []
    for round_ in range(8):
        process = start_python("-c", COMPACTING, tmp_path, 100_000 * round_)
        n_done = len(kill_after(process, draw.uniform(0, 0.15)))
        expected += [random_keys(3, 100_000 * round_ + number) for number in range(n_done)]

        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert_holds(FeatureCache(tmp_path).space(SPACE), np.concatenate(expected))

    assert FeatureCache(tmp_path).verify().bad == ()
    report = FeatureCache(tmp_path).compact()
    assert report.shards_after == 1
    assert len(list(tmp_path.rglob("*.h5"))) == 1  # what killed compactions had left is cleared away
    n_rows = FeatureCache(tmp_path).space(SPACE).n_rows
    assert len(np.concatenate(expected)) <= n_rows <= len(np.concatenate(expected)) + 3 * 8


def test_manifest_does_not_grow_with_every_row_ever_appended(tmp_path, monkeypatch):
    monkeypatch.setattr("bottleneck.cache.writing.OUTDATED_LINES", 20)
    store = FeatureCache(tmp_path).space(SPACE)
    watching = FeatureCache(tmp_path).space(SPACE)
    keys = random_keys(120, 0)
    for i, key in enumerate(keys):
        store.append(rows_of(key[None]))
        if i % 10 == 0:
            watching.refresh()
            assert_holds(watching, keys[: i + 1])

    assert len((store.folder / "manifest.jsonl").read_text().splitlines()) < 20 + 4 * 3 * FANOUT
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for reader in (store, watching, FeatureCache(tmp_path).space(SPACE)):
            reader.refresh()
            assert_holds(reader, keys)


@pytest.fixture
def orphaned(tmp_path):
    """Return the cache, keys and merged shard that a process leaves when it dies before it can list that shard."""
    store, keys = filled(tmp_path / "cache")
    shutil.copytree(store.folder, tmp_path / "before")
    store.compact()
    (merged,) = shard_paths(store)
    content = merged.read_bytes()
    shutil.rmtree(store.folder)
    shutil.move(tmp_path / "before", store.folder)
    merged.write_bytes(content)
    return FeatureCache(tmp_path / "cache"), keys, merged


def test_merged_shard_that_was_never_listed_is_removed_and_no_row_is_there_twice(orphaned):
    cache, keys, merged = orphaned
    assert cache.verify().bad == ()  # a killed process damages nothing

    store = cache.space(SPACE)

    assert store.n_rows == len(keys)
    assert_holds(store, keys)
    assert not merged.exists()
    store.compact()
    assert cache.space(SPACE).n_rows == len(keys)
    assert_holds(cache.space(SPACE), keys)
    assert cache.verify().bad == ()


def test_merged_shard_that_was_never_listed_is_passed_over_where_nothing_can_be_written(orphaned):
    cache, keys, merged = orphaned
    lock = cache.cache_dir / SPACE.digest / "write.lock"
    lock.unlink(missing_ok=True)
    lock.mkdir()

    store = cache.space(SPACE)

    assert store.n_rows == len(keys)
    assert_holds(store, keys)
    assert merged.exists()


def test_merged_shard_that_was_never_listed_is_kept_if_an_old_one_is_gone(orphaned):
    cache, keys, merged = orphaned
    gone = sorted(merged.parent.glob("*.h5"))[0]
    gone.unlink()

    with pytest.warns(CacheWarning, match=gone.name):
        assert_holds(cache.space(SPACE), keys)

    assert merged.exists()


def with_copies(tmp_path):
    """Return a store that has the second of three shards' rows again in a fourth, and all keys."""
    store, keys = filled(tmp_path / "cache")
    other = FeatureCache(tmp_path / "other").space(SPACE)
    new = random_keys(4, 9)
    other.append(rows_of(np.concatenate([keys[ROWS_PER_SHARD : 2 * ROWS_PER_SHARD], new])))
    (copy,) = shard_paths(other)
    shutil.copy(copy, store.folder / "shards" / copy.name.replace("00000-", "00007-"))
    return FeatureCache(tmp_path / "cache").space(SPACE), np.concatenate([keys, new])


def test_compaction_keeps_one_row_a_key(tmp_path):
    store, keys = with_copies(tmp_path)
    assert store.n_rows == len(keys) + ROWS_PER_SHARD

    store.compact()

    assert store.n_rows == len(keys)
    assert_holds(store, keys)
    assert_holds(FeatureCache(tmp_path / "cache").space(SPACE), keys)
    assert len(shard_paths(store)) == 1
    assert FeatureCache(tmp_path / "cache").verify().bad == ()


def test_positions_of_other_rows_stay_valid_where_copies_are_left_out(tmp_path):
    store, keys = with_copies(tmp_path)
    reader = FeatureCache(tmp_path / "cache").space(SPACE)
    positions = reader.find(keys)
    store.compact()
    unique = [*range(ROWS_PER_SHARD), *range(2 * ROWS_PER_SHARD, 3 * ROWS_PER_SHARD)]

    reader.refresh()
    got = reader.read(positions[unique], "penultimate")

    np.testing.assert_array_equal(got, as_stored(features_of(keys[unique])))
    with pytest.raises(CorruptShardError, match="find their keys again"):
        reader.read(positions, "penultimate")
    assert_holds(reader, keys)
