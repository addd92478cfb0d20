import os
import pickle
import shutil
import subprocess
import sys
import warnings
from dataclasses import replace

import numpy as np
import pytest

from bottleneck.cache import FeatureCache, as_stored
from bottleneck.errors import CacheError, CorruptShardError, InvalidInputError

from .rows import (
    LAYERS,
    ROWS_PER_SHARD,
    SPACE,
    assert_holds,
    features_of,
    filled,
    random_keys,
    rows_of,
    shard_paths,
)
from .subprocesses import finish, start_python


def test_nothing_is_written_before_the_first_append(tmp_path):
    store = FeatureCache(tmp_path / "cache").space(SPACE)

    assert store.find(random_keys(3, 0)).tolist() == [-1, -1, -1]
    assert (store.n_rows, store.n_bytes) == (0, 0)
    store.append(rows_of(random_keys(0, 0)))

    assert list(tmp_path.iterdir()) == []


def test_counts_are_those_of_the_files(tmp_path):
    store, keys = filled(tmp_path)

    assert store.n_rows == len(keys)
    assert store.n_bytes == sum(path.stat().st_size for path in shard_paths(store))


@pytest.mark.parametrize("layer", [layer for layer, _ in LAYERS])
def test_any_rows_in_any_order_with_repeats_read_like_indexing(tmp_path, layer):
    _, keys = filled(tmp_path, n_shards=5)
    store = FeatureCache(tmp_path).space(SPACE)
    expected = as_stored(features_of(keys, layer))
    draw = np.random.default_rng(0)

    for n_wanted in (0, 1, 5, 40, 200):
        wanted = draw.integers(0, len(keys), n_wanted)
        np.testing.assert_array_equal(store.read(store.find(keys[wanted]), layer), expected[wanted])


def test_unknown_keys_are_misses_among_hits(tmp_path):
    store, keys = filled(tmp_path)
    asked = np.concatenate([random_keys(2, 99), keys[:1], random_keys(2, 98)])

    assert (store.find(asked) >= 0).tolist() == [False, False, True, False, False]


def test_row_that_overflows_leaves_its_neighbours_in_the_shard_alone(tmp_path):
    store = FeatureCache(tmp_path).space(SPACE)
    rows = rows_of(random_keys(ROWS_PER_SHARD, 0))
    rows.layers["penultimate"][3, 0] = 1e6

    store.append(rows)

    got = store.read(store.find(rows.keys), "penultimate")
    np.testing.assert_array_equal(got, as_stored(rows.layers["penultimate"]))
    assert got[3, 0] == 1e6


def test_no_row_is_ever_stored_twice(tmp_path):
    store, keys = filled(tmp_path)
    other = FeatureCache(tmp_path).space(SPACE)
    other.find(keys)
    new = random_keys(3, 9)

    assert store.append(rows_of(np.concatenate([keys[5:15], new, new]))) == 3
    assert other.append(rows_of(np.concatenate([new, keys]))) == 0  # which did not know of the new ones

    assert store.n_rows == len(keys) + 3
    assert FeatureCache(tmp_path).space(SPACE).n_rows == len(keys) + 3
    assert_holds(other, np.concatenate([keys, new]))


@pytest.mark.parametrize("layer", [layer for layer, _ in LAYERS])
@pytest.mark.parametrize("block_rows", [1, 5, 8, 100])
def test_blocks_are_the_rows_in_the_order_asked_for(tmp_path, layer, block_rows):
    store, keys = filled(tmp_path, n_shards=4)
    expected = as_stored(features_of(keys, layer))
    orders = [np.arange(32), np.random.default_rng(0).permutation(32), np.arange(32)[::-1], np.arange(3, 20)]

    for order in orders:
        blocks = list(store.blocks(store.find(keys[order]), layer, block_rows=block_rows))

        assert [len(block) for block in blocks[:-1]] == [block_rows] * (len(blocks) - 1)
        np.testing.assert_array_equal(np.concatenate(blocks), expected[order])


def test_blocks_of_a_compacted_space_are_mapped_not_read(tmp_path):
    store, keys = filled(tmp_path, n_shards=4)
    store.compact()
    compacted = FeatureCache(tmp_path).space(SPACE)

    blocks = list(compacted.blocks(compacted.find(keys), "penultimate", block_rows=10))

    assert all(isinstance(block, np.memmap) and block.dtype == np.float16 for block in blocks)
    assert not blocks[0].flags.writeable


def test_blocks_of_a_damaged_shard_are_refused(tmp_path):
    store, keys = filled(tmp_path, n_shards=1)
    positions = store.find(keys)
    (path,) = shard_paths(store)
    content = bytearray(path.read_bytes())
    content[-3] ^= 4
    path.write_bytes(content)

    with pytest.raises(CorruptShardError), pytest.warns(UserWarning, match="checksum"):
        list(store.blocks(positions, "penultimate", block_rows=8))


def test_missing_rows_are_claimed_by_one_store_at_a_time(tmp_path):
    store, keys = filled(tmp_path)
    other = FeatureCache(tmp_path).space(SPACE)
    new = random_keys(6, 3)
    asked = np.concatenate([keys[:2], new])

    with store.claim(asked[:6]) as first, other.claim(asked) as second:
        assert (first.mine.tolist(), first.others.any()) == ([False] * 2 + [True] * 4, False)
        assert second.mine.tolist() == [False] * 6 + [True] * 2
        assert second.others.tolist() == [False] * 2 + [True] * 4 + [False] * 2
        with other.claim(asked, heed_others=False) as impatient:
            assert impatient.mine.tolist() == [False] * 2 + [True] * 6
        store.append(rows_of(asked[2:6]))
    with other.claim(asked) as third:
        assert third.mine.tolist() == [False] * 6 + [True] * 2
        assert not third.others.any()


def test_folder_that_disappears_while_it_is_used_is_not_made_again(tmp_path):
    store, _ = filled(tmp_path / "cache")
    shutil.rmtree(tmp_path / "cache")

    with pytest.raises(CacheError, match="has disappeared while it was used"):
        store.append(rows_of(random_keys(3, 5)))

    assert list(tmp_path.iterdir()) == []


def test_other_stores_see_new_rows_after_refresh(tmp_path):
    store, keys = filled(tmp_path, n_shards=1)
    other = FeatureCache(tmp_path).space(SPACE)
    assert_holds(other, keys)
    new = random_keys(4, 1)
    store.append(rows_of(new))

    assert (other.find(new) == -1).all()

    other.refresh()

    assert_holds(other, np.concatenate([new, keys]))


def test_spaces_do_not_share_rows(tmp_path):
    _, keys = filled(tmp_path)
    other = FeatureCache(tmp_path).space(replace(SPACE, precision="bfloat16"))

    assert (other.find(keys) == -1).all()


def test_positions_stay_valid_in_pickled_stores_whatever_others_append(tmp_path):
    store, keys = filled(tmp_path)
    ours = random_keys(4, 7)
    other = FeatureCache(tmp_path).space(SPACE)
    other.append(rows_of(random_keys(6, 8)))
    store.append(rows_of(ours))  # after the other's shard in the manifest, before it in the store

    copy = pickle.loads(pickle.dumps(store))

    asked = np.concatenate([ours, keys])
    got = copy.read(store.find(asked), "penultimate")
    np.testing.assert_array_equal(got, as_stored(features_of(asked)))
    assert_holds(copy, asked)
    copy.refresh()
    assert_holds(copy, np.concatenate([asked, random_keys(6, 8)]))


def test_pickled_store_of_an_empty_folder_can_append(tmp_path):
    copy = pickle.loads(pickle.dumps(FeatureCache(tmp_path).space(SPACE)))

    copy.append(rows_of(random_keys(3, 0)))

    assert_holds(copy, random_keys(3, 0))


@pytest.mark.parametrize("position", [-1, 24, 10**12])
def test_positions_that_find_did_not_give_are_refused(tmp_path, position):
    store, _ = filled(tmp_path)

    with pytest.raises(InvalidInputError, match=f"positions must come from find. Got {position}"):
        store.read(np.array([0, position]), "penultimate")


def test_unknown_layer_is_refused(tmp_path):
    store, keys = filled(tmp_path)

    with pytest.raises(InvalidInputError, match="no layer 'stage2'"):
        store.read(store.find(keys), "stage2")


def test_keys_of_another_form_are_refused(tmp_path):
    with pytest.raises(InvalidInputError, match=r"keys must be uint8 \(n, 16\)"):
        FeatureCache(tmp_path).space(SPACE).find(np.zeros((3, 16), np.int64))


def test_refused_rows_leave_no_trace(tmp_path):
    rows = rows_of(random_keys(3, 0))
    rows.layers["penultimate"][1, 1] = np.inf

    with pytest.raises(InvalidInputError, match=r"in 1 rows: 1\."):
        FeatureCache(tmp_path / "cache").space(SPACE).append(rows)

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("where", ["file", "file/below"])
def test_file_in_the_way_is_one_clear_error(tmp_path, where):
    (tmp_path / "file").touch()
    store = FeatureCache(tmp_path / where).space(SPACE)

    with pytest.raises(CacheError, match=r"The cache folder .* cannot be used: .*choose another cache_dir"):
        store.append(rows_of(random_keys(3, 0)))

    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may write anywhere")
def test_read_only_cache_can_be_read(tmp_path):
    store, keys = filled(tmp_path)
    for folder in (store.folder / "shards", store.folder, tmp_path):
        folder.chmod(0o500)

    assert_holds(FeatureCache(tmp_path).space(SPACE), keys)
    with pytest.raises(CacheError, match="Permission denied"):
        store.append(rows_of(random_keys(3, 0)))


FULL_DISK = """
import resource, sys
from bottleneck.cache import FeatureCache, FeatureRows
from bottleneck.errors import CacheError
from rows import SPACE, random_keys, rows_of
store = FeatureCache(sys.argv[1]).space(SPACE)
store.append(rows_of(random_keys(8, 0)))
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
try:
    store.append(rows_of(random_keys(1000, 1)))
except CacheError as exc:
    print(exc)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs a limit on the size of files")
def test_write_that_fails_halfway_leaves_nothing_visible(tmp_path):
    (message,) = finish(start_python("-c", FULL_DISK, tmp_path))

    assert "cannot be used: File too large" in message
    store = FeatureCache(tmp_path).space(SPACE)
    assert_holds(store, random_keys(8, 0))
    assert len(list((store.folder / "shards").iterdir())) == 1
    assert (store.find(random_keys(1000, 1)) == -1).all()


GROWTH = """
import resource, sys
from dataclasses import replace
import numpy as np
from bottleneck.cache import FeatureCache, FeatureRows
from rows import SPACE, random_keys
store = FeatureCache(sys.argv[1]).space(replace(SPACE, layers=(("penultimate", 512),)))
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for number in range(60):
    store.append(FeatureRows(keys=random_keys(2000, number), layers={"penultimate": np.ones((2000, 512), np.float32)}))
    if number == 20:  # some have been merged
        before = peak()
print(peak() - before, store.n_bytes // 1024)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs getrusage")
def test_memory_does_not_grow_with_the_number_of_shards(tmp_path):
    (output,) = finish(start_python("-c", GROWTH, tmp_path))
    growth, written = map(int, output.split())

    unit = 1024 if sys.platform == "darwin" else 1
    assert growth / unit < 0.1 * written


SMALL_DISK = """
import sys
from bottleneck.cache import FeatureCache
from bottleneck.errors import CacheError
from rows import SPACE, random_keys, rows_of
store = FeatureCache(sys.argv[1]).space(SPACE)
stored = 0
try:
    while True:
        store.append(rows_of(random_keys(500, stored)))
        stored += 1
except CacheError as exc:
    print(stored, exc)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs tmpfs")
def test_full_disk_is_one_clear_error_and_keeps_finished_shards(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=600k", "tmpfs", str(disk)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("may not mount a file system")
    try:
        (output,) = finish(start_python("-c", SMALL_DISK, disk))
        stored, message = int(output.split()[0]), output

        assert "No space left on device" in message
        assert "Make room" in message
        assert stored > 2
        assert_holds(FeatureCache(disk).space(SPACE), np.concatenate([random_keys(500, i) for i in range(stored)]))
        assert FeatureCache(disk).verify().bad == ()
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_temporary_files_of_dead_processes_are_ignored_and_old_ones_removed(tmp_path):
    store, keys = filled(tmp_path)
    left = store.folder / "shards" / "4711-0123456789abcdef.partial"
    left.write_bytes(b"half a shard")

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert_holds(FeatureCache(tmp_path).space(SPACE), keys)
    os.utime(left, (1e9, 1e9))
    FeatureCache(tmp_path).space(SPACE).append(rows_of(random_keys(1, 1)))

    assert not left.exists()


def test_rows_are_found_right_after_each_append(tmp_path):
    store = FeatureCache(tmp_path).space(SPACE)
    keys = random_keys(60, 0)
    for number, key in enumerate(keys):  # find between appends: the index is brought up to date each time
        assert store.find(key[None]).tolist() == [-1]
        store.append(rows_of(key[None]))
        assert store.find(keys[: number + 1]).tolist() == list(range(number + 1))  # also where shards are merged


def test_note_is_kept_beside_the_rows_and_a_damaged_one_is_no_note(tmp_path):
    store = FeatureCache(tmp_path).space(SPACE)
    assert store.read_note("rates") is None

    store.write_note("rates", {"device": "cpu", "seconds": 0.5})

    assert FeatureCache(tmp_path).space(SPACE).read_note("rates") == {"device": "cpu", "seconds": 0.5}
    assert store.n_rows == 0
    (store.folder / "rates.json").write_text("{")
    assert store.read_note("rates") is None
