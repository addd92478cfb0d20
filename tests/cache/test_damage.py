"""What happens to rows when files of the cache are damaged, lost, swapped or from the future."""

import hashlib
import json
import pickle
import random
import re
import shutil
import warnings
from contextlib import suppress
from dataclasses import replace

import h5py
import numpy as np
import pytest

from bottleneck.cache import FeatureCache, as_stored
from bottleneck.cache.manifest import append_dropped, shard_name
from bottleneck.errors import CacheError, CacheWarning, CorruptShardError

from .rows import ROWS_PER_SHARD, SPACE, assert_holds, features_of, filled, rows_of, shard_paths


def flip_in_data(store, path):
    content = bytearray(path.read_bytes())
    content[-3] ^= 4
    path.write_bytes(content)


def flip_in_header(store, path):
    content = bytearray(path.read_bytes())
    content[1] ^= 4
    path.write_bytes(content)


def truncate(store, path):
    path.write_bytes(path.read_bytes()[:-100])


def empty(store, path):
    path.write_bytes(b"")


def remove(store, path):
    path.unlink()


def put_the_next_shard_in_its_place(store, path):
    shutil.copy(shard_paths(store)[2], path)


def put_a_folder_in_its_place(store, path):
    path.unlink()
    path.mkdir()


def fill_with_text(store, path):
    path.write_text("features " * 1000)


DAMAGES = [
    flip_in_data,
    flip_in_header,
    truncate,
    empty,
    remove,
    put_the_next_shard_in_its_place,
    put_a_folder_in_its_place,
    fill_with_text,
]


def keys_still_held(store, keys):
    """Read whatever can be had, asking again as long as shards vanish; check it and return which keys it is."""
    for _ in range(4):
        positions = store.find(keys)
        try:
            got = store.read(positions[positions >= 0], "penultimate")
        except CorruptShardError:
            continue
        np.testing.assert_array_equal(got, as_stored(features_of(keys))[positions >= 0])
        return positions >= 0
    raise AssertionError("rows keep vanishing")


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("found_before", [True, False])
def test_rows_of_a_damaged_shard_become_misses_with_a_warning_that_names_it(tmp_path, damage, found_before):
    store, keys = filled(tmp_path)
    damaged = shard_paths(store)[1]
    if found_before:
        store.find(keys)
    else:
        store = FeatureCache(tmp_path).space(SPACE)
    damage(store, damaged)

    with pytest.warns(CacheWarning, match=re.escape(str(damaged))) as caught:
        held = keys_still_held(store, keys)

    assert len(caught) == 1
    assert held.reshape(3, ROWS_PER_SHARD).all(axis=1).tolist() == [True, False, True]
    assert store.n_rows == 2 * ROWS_PER_SHARD


@pytest.mark.parametrize("damage", DAMAGES)
def test_rows_computed_again_take_the_place_of_damaged_ones_at_once(tmp_path, damage):
    store, keys = filled(tmp_path)
    damage(store, shard_paths(store)[1])
    with pytest.warns(CacheWarning):
        held = keys_still_held(store, keys)

    store.append(rows_of(keys[~held]))

    assert_holds(store, keys)


@pytest.mark.filterwarnings("ignore::bottleneck.errors.CacheWarning")
def test_read_of_rows_that_vanished_says_to_find_again(tmp_path):
    store, keys = filled(tmp_path)
    positions = store.find(keys)
    flip_in_data(store, shard_paths(store)[0])
    remove(store, shard_paths(store)[2])

    with pytest.raises(CorruptShardError, match=r"find their keys again(.|\n)*00000-(.|\n)*00002-"):
        store.read(positions, "stage1")
    with pytest.raises(CorruptShardError):
        store.read(positions, "stage1")

    assert (store.find(keys) >= 0).sum() == ROWS_PER_SHARD


@pytest.mark.filterwarnings("ignore::bottleneck.errors.CacheWarning")
def test_pickled_store_misses_what_it_could_not_read(tmp_path):
    store, keys = filled(tmp_path)
    positions = store.find(keys)
    copy = pickle.loads(pickle.dumps(store))
    flip_in_data(store, shard_paths(store)[1])

    with pytest.raises(CorruptShardError):
        copy.read(positions, "penultimate")

    assert keys_still_held(copy, keys).sum() == 2 * ROWS_PER_SHARD


@pytest.mark.filterwarnings("ignore::bottleneck.errors.CacheWarning")
def test_bit_flips_anywhere_never_give_wrong_features(tmp_path):
    store, keys = filled(tmp_path)
    path = shard_paths(store)[1]
    content = path.read_bytes()
    draw = random.Random(0)
    for _ in range(60):
        damaged = bytearray(content)
        damaged[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
        path.write_bytes(damaged)

        held = keys_still_held(FeatureCache(tmp_path).space(SPACE), keys)

        assert held.reshape(3, ROWS_PER_SHARD).all(axis=1).tolist() == [True, False, True]


@pytest.mark.filterwarnings("ignore::bottleneck.errors.CacheWarning")
def test_damage_to_the_manifest_never_gives_wrong_features(tmp_path):
    store, keys = filled(tmp_path)
    path = store.folder / "manifest.jsonl"
    content = path.read_bytes()
    draw = random.Random(0)
    for trial in range(50):
        damaged = bytearray(content)
        damaged[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
        path.write_bytes(damaged if trial % 4 else damaged[: draw.randrange(len(content))])
        with suppress(CacheError):  # a flip may make it the manifest of a newer version
            assert keys_still_held(FeatureCache(tmp_path).space(SPACE), keys).sum() >= 2 * ROWS_PER_SHARD


@pytest.mark.parametrize("listed", [True, False])
def test_renamed_shard_is_not_trusted_under_its_new_name(tmp_path, listed):
    store, keys = filled(tmp_path)
    first, second, _ = shard_paths(store)
    name = second.name if listed else shard_name(7, "ab" * 32)
    first.replace(first.with_name(name))

    with pytest.warns(CacheWarning):
        held = keys_still_held(FeatureCache(tmp_path).space(SPACE), keys)

    assert held.reshape(3, ROWS_PER_SHARD).all(axis=1).tolist() == [False, not listed, True]


def change_attribute(path, name, value):
    """Change an attribute of a shard and give it the name that another writer would have given it."""
    append_dropped(path.parents[1] / "manifest.jsonl", path.name)
    with h5py.File(path, "r+") as file:
        file.attrs[name] = value
    changed = path.with_name(shard_name(1, hashlib.sha256(path.read_bytes()).hexdigest()))
    return path.replace(changed)


def test_shard_of_a_newer_version_is_left_out_but_never_repaired_away(tmp_path):
    store, keys = filled(tmp_path)
    newer = change_attribute(shard_paths(store)[1], "format_version", 2)

    with pytest.warns(CacheWarning, match=r"has format version 2.*reads up to 1"):
        held = keys_still_held(FeatureCache(tmp_path).space(SPACE), keys)

    assert held.sum() == 2 * ROWS_PER_SHARD
    report = FeatureCache(tmp_path).repair()
    assert report.newer == (newer,)
    assert newer.exists()


def test_shard_of_another_space_is_left_out(tmp_path):
    store, keys = filled(tmp_path)
    change_attribute(shard_paths(store)[1], "space", "0" * 16)

    with pytest.warns(CacheWarning, match="belongs to the feature space 0000"):
        held = keys_still_held(FeatureCache(tmp_path).space(SPACE), keys)

    assert held.sum() == 2 * ROWS_PER_SHARD


def test_folder_of_another_space_is_an_error(tmp_path):
    store, keys = filled(tmp_path)
    other = replace(SPACE, pooling="max")
    store.folder.rename(tmp_path / other.digest)

    with pytest.raises(CacheError, match=f"describes the feature space {SPACE.digest}"):
        FeatureCache(tmp_path).space(other).find(keys)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"format_version": 1}'])
def test_damaged_description_is_an_error_that_names_the_file(tmp_path, content):
    store, keys = filled(tmp_path)
    (store.folder / "space.json").write_text(content)

    with pytest.raises(CacheError, match=r"space.json cannot be used: it does not describe"):
        FeatureCache(tmp_path).space(SPACE).find(keys)


@pytest.mark.parametrize("file", ["space.json", "manifest.jsonl"])
def test_folder_of_a_newer_version_is_an_error_that_says_so(tmp_path, file):
    store, keys = filled(tmp_path)
    path = store.folder / file
    path.write_text(path.read_text().replace('"format_version": 1', '"format_version": 2'))

    with pytest.raises(CacheError, match=rf"{file}.* format version 2.*upgrade"):
        FeatureCache(tmp_path).space(SPACE).find(keys)


def test_verify_names_every_bad_shard_and_repair_drops_them_for_good(tmp_path):
    store, keys = filled(tmp_path, n_shards=5)
    paths = shard_paths(store)
    flip_in_data(store, paths[0])
    remove(store, paths[2])
    truncate(store, paths[3])
    cache = FeatureCache(tmp_path)

    report = cache.verify()

    assert report.n_good == 2
    assert [(shard.path, shard.reason) for shard in report.bad] == [
        (paths[0], "does not have the checksum in its name"),
        (paths[2], "is missing"),
        (paths[3], "does not have the checksum in its name"),
    ]
    assert cache.repair() == report
    assert cache.verify().bad == ()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        held = keys_still_held(cache.space(SPACE), keys)
    assert held.reshape(5, ROWS_PER_SHARD).all(axis=1).tolist() == [False, True, False, False, True]


def test_swapped_shards_are_told_apart_from_damaged_ones(tmp_path):
    store, _ = filled(tmp_path)
    first, second, _ = shard_paths(store)
    aside = first.rename(first.with_name("aside"))
    second.rename(first)
    aside.rename(second)

    reasons = {bad.path: bad.reason for bad in FeatureCache(tmp_path).verify().bad}

    assert reasons == {
        first: f"does not have the checksum in its name: it is {second.name}",
        second: f"does not have the checksum in its name: it is {first.name}",
    }


def test_open_store_learns_of_a_repair_without_a_warning(tmp_path):
    store, keys = filled(tmp_path)
    store.find(keys)
    flip_in_data(store, shard_paths(store)[1])
    FeatureCache(tmp_path).repair()

    store.refresh()

    assert (store.find(keys) >= 0).sum() == 2 * ROWS_PER_SHARD


def tear_the_second_line(lines):
    return [lines[0], lines[1][:50], *lines[2:]]


def zero_the_second_line(lines):
    return [lines[0], bytes(len(lines[1])), *lines[2:]]


def exchange_the_checksums(lines):
    first, second = (json.loads(line) for line in lines[:2])
    first["sha256"], second["sha256"] = second["sha256"], first["sha256"]
    return [json.dumps(first).encode(), json.dumps(second).encode(), *lines[2:]]


def delete_the_second_line(lines):
    return [lines[0], *lines[2:]]


def delete_all_lines(lines):
    return []


def count_one_row_more(lines):
    return [lines[0].replace(b'"rows": 8', b'"rows": 9'), *lines[1:]]


@pytest.mark.parametrize(
    ("damage", "faults"),
    [
        (tear_the_second_line, ["line 2 cannot be read", "does not list 00001-"]),
        (zero_the_second_line, ["line 2 cannot be read", "does not list 00001-"]),
        (
            exchange_the_checksums,
            ["line 1 cannot be read", "line 2 cannot be read", "does not list 00000-", "does not list 00001-"],
        ),
        (delete_the_second_line, ["does not list 00001-"]),
        (delete_all_lines, ["does not list 00000-", "does not list 00001-"]),
        (count_one_row_more, ["says something else of 00000-"]),
    ],
)
def test_verify_names_what_is_wrong_with_the_list_and_repair_mends_it_without_losing_a_row(tmp_path, damage, faults):
    store, keys = filled(tmp_path)
    path = store.folder / "manifest.jsonl"
    path.write_bytes(b"".join(line + b"\n" for line in damage(path.read_bytes().splitlines())))
    cache = FeatureCache(tmp_path)

    report = cache.verify()

    assert report.n_good == 3
    assert report.n_bad_rows == 0
    assert {bad.path for bad in report.bad} == {path}
    assert [re.match(fault, bad.reason) is not None for fault, bad in zip(faults, report.bad, strict=True)]
    assert cache.repair() == report
    assert cache.verify().bad == ()
    assert len(shard_paths(store)) == 3
    assert len(path.read_bytes().splitlines()) == 3
    assert_holds(cache.space(SPACE), keys)


def test_damaged_shards_and_a_damaged_list_are_repaired_together(tmp_path):
    store, keys = filled(tmp_path)
    path = store.folder / "manifest.jsonl"
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[1:]))
    first, damaged, _ = shard_paths(store)
    flip_in_data(store, damaged)
    cache = FeatureCache(tmp_path)

    named = {bad.path.name: bad.reason for bad in cache.repair().bad}

    assert named == {
        "manifest.jsonl": f"does not list {first.name}",
        damaged.name: "does not have the checksum in its name",
    }
    assert cache.verify().bad == ()
    assert (cache.space(SPACE).find(keys) >= 0).sum() == 2 * ROWS_PER_SHARD
