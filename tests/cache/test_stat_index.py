import os
import random
import sqlite3
import sys
import time

import numpy as np
import pytest

from bottleneck.cache import FeatureCache
from bottleneck.cache.stat_index import StatIndex
from bottleneck.errors import CacheError, CacheWarning

from .rows import random_keys
from .subprocesses import finish, kill_after, start_python

LONG_AGO = 10**18
NOW = LONG_AGO + 10**12


def stats_of(n, *, folder="/data/photos"):
    return [(f"{folder}/{number:06d}.jpg", 1000 + number, LONG_AGO + number) for number in range(n)]


@pytest.fixture
def index(tmp_path):
    return StatIndex(tmp_path / "files.sqlite3")


def test_remembered_files_are_recalled_in_any_order_among_unknown_ones(index):
    stats, keys = stats_of(1200), random_keys(1200, 0)
    index.remember(stats, keys, read_after_ns=NOW)
    order = np.random.default_rng(0).permutation(1200)
    asked = [stats[row] for row in order] + stats_of(3, folder="/elsewhere")

    got, known = index.recall(asked)

    assert (got.dtype, got.shape, known.dtype) == (np.uint8, (1203, 16), bool)
    assert known.tolist() == [True] * 1200 + [False] * 3
    np.testing.assert_array_equal(got[:1200], keys[order])
    assert not got[1200:].any()


@pytest.mark.parametrize("change", [(0, 1, 0), (0, 0, 1), (0, 0, -1)])
def test_changed_file_is_unknown_until_it_is_remembered_again(index, change):
    (path, size, mtime_ns), keys = stats_of(1)[0], random_keys(2, 0)
    index.remember([(path, size, mtime_ns)], keys[:1], read_after_ns=NOW)
    changed = [(path, size + change[1], mtime_ns + change[2])]

    assert not index.recall(changed)[1].any()

    index.remember(changed, keys[1:], read_after_ns=NOW)

    assert index.recall(changed)[0].tolist() == keys[1:].tolist()
    assert not index.recall([(path, size, mtime_ns)])[1].any()


@pytest.mark.parametrize("age_ns", [-(10**9), 0, 1_999_999_999])
def test_file_that_changed_just_before_it_was_read_is_not_trusted(index, age_ns):
    index.remember(stats_of(1), random_keys(1, 0), read_after_ns=LONG_AGO + age_ns)

    assert not index.recall(stats_of(1))[1].any()


def test_cache_assumes_that_files_were_read_after_it_was_made(tmp_path):
    made = time.time_ns()
    cache = FeatureCache(tmp_path)
    stats = [("/old.jpg", 1, made - 3 * 10**9), ("/new.jpg", 1, made - 10**9)]

    cache.remember(stats, random_keys(2, 0))

    assert cache.recall(stats)[1].tolist() == [True, False]

    cache.remember(stats, random_keys(2, 0), read_after_ns=made + 2 * 10**9)

    assert cache.recall(stats)[1].tolist() == [True, True]


def test_relative_paths_are_told_apart_by_the_working_folder(index, tmp_path, monkeypatch):
    stats = [("a.jpg", 5, LONG_AGO)]
    monkeypatch.chdir(tmp_path)
    index.remember(stats, random_keys(1, 0), read_after_ns=NOW)

    assert index.recall(stats)[1].all()
    assert index.recall([(str(tmp_path / "a.jpg"), 5, LONG_AGO)])[1].all()

    monkeypatch.chdir(tmp_path.parent)

    assert not index.recall(stats)[1].any()


def test_file_names_may_be_any_bytes(index):
    stats = [(os.fsdecode(b"/data/\xff\xfe.jpg"), 5, LONG_AGO), ("/data/ü 'quoted'.jpg", 5, LONG_AGO)]

    index.remember(stats, random_keys(2, 0), read_after_ns=NOW)

    assert index.recall(stats)[1].all()


def test_nothing_is_written_by_asking_or_by_remembering_nothing(index, tmp_path):
    assert not index.recall(stats_of(3))[1].any()
    assert index.recall([])[0].shape == (0, 16)
    index.remember([], random_keys(0, 0), read_after_ns=NOW)

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [b"no database at all " * 100, None])
def test_damaged_index_is_set_aside_with_a_warning_and_made_again(index, tmp_path, content):
    stats, keys = stats_of(2000), random_keys(2000, 0)
    index.remember(stats, keys, read_after_ns=NOW)
    whole = index.path.read_bytes()
    index.path.write_bytes(content or whole[:2000] + b"\xff" * (len(whole) - 2000))

    with pytest.warns(CacheWarning, match=r"files.sqlite3 cannot be used: .* set aside as files.sqlite3.damaged-"):
        assert not index.recall(stats)[1].any()

    assert [path.name[:21] for path in tmp_path.iterdir()] == ["files.sqlite3.damaged"]
    index.remember(stats, keys, read_after_ns=NOW)
    assert index.recall(stats)[1].all()


@pytest.mark.filterwarnings("ignore::bottleneck.errors.CacheWarning")
def test_damage_anywhere_never_gives_a_wrong_key(index):
    stats, keys = stats_of(300), random_keys(300, 0)
    index.remember(stats, keys, read_after_ns=NOW)
    content = index.path.read_bytes()
    draw = random.Random(0)
    for trial in range(150):
        damaged = bytearray(content)
        for _ in range(1 + trial % 10):
            damaged[draw.randrange(len(damaged))] ^= 1 << draw.randrange(8)
        index.path.write_bytes(damaged if trial % 5 else damaged[: draw.randrange(len(damaged))])

        got, known = index.recall(stats)

        np.testing.assert_array_equal(got[known], keys[known])


def test_index_cut_to_nothing_is_a_new_one(index):
    index.path.write_bytes(b"")

    index.remember(stats_of(2), random_keys(2, 0), read_after_ns=NOW)

    assert index.recall(stats_of(2))[1].all()


def test_locked_index_costs_a_warning_and_no_work(index, monkeypatch):
    monkeypatch.setattr("bottleneck.cache.stat_index.BUSY_SECONDS", 0.05)
    stats, keys = stats_of(5), random_keys(5, 0)
    index.remember(stats, keys, read_after_ns=NOW)
    other = sqlite3.connect(index.path, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")

    with pytest.warns(CacheWarning, match="database is locked. Files will be read again"):
        assert not index.recall(stats)[1].any()
    with pytest.warns(CacheWarning, match="database is locked"):
        index.remember(stats, keys, read_after_ns=NOW)

    other.execute("ROLLBACK")
    other.close()
    assert index.recall(stats)[1].all()


def test_folder_that_cannot_be_made_is_an_error(tmp_path):
    (tmp_path / "file").touch()
    cache = FeatureCache(tmp_path / "file" / "cache")

    with pytest.raises(CacheError, match="cannot be used: Not a directory"):
        cache.remember(stats_of(1), random_keys(1, 0))


REMEMBER = """
from pathlib import Path
import sys
import numpy as np
from bottleneck.cache.stat_index import StatIndex
index, first, n = StatIndex(Path(sys.argv[1])), int(sys.argv[2]), int(sys.argv[3])
for number in range(first, first + n):
    stats = [(f"/{number}/{item}.jpg", 7, 10**18) for item in range(20)]
    keys = np.full((20, 16), number % 251, np.uint8)
    index.remember(stats, keys, read_after_ns=2 * 10**18)
    print(number, flush=True)
"""


def start_remembering(path, *, first, n):
    return start_python("-c", REMEMBER, path, first, n)


def assert_recalls(index, numbers):
    stats = [(f"/{number}/{item}.jpg", 7, 10**18) for number in numbers for item in range(20)]
    keys, known = index.recall(stats)
    assert known.all()
    assert keys[:, 0].tolist() == [number % 251 for number in numbers for _ in range(20)]


def test_processes_that_remember_at_once_lose_nothing(index):
    processes = [start_remembering(index.path, first=1000 * number, n=25) for number in range(3)]
    finish(*processes)

    assert_recalls(index, [1000 * number + step for number in range(3) for step in range(25)])


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
def test_kill_at_any_moment_keeps_what_was_remembered(index):
    draw = random.Random(0)
    for round_ in range(4):
        process = start_remembering(index.path, first=10_000 * round_, n=5000)
        numbers = [int(line) for line in kill_after(process, draw.uniform(0, 0.1))]

        assert_recalls(index, numbers)
