import dataclasses
import json
import random
from contextlib import suppress

import pytest

from bottleneck.cache.manifest import (
    DroppedShard,
    Manifest,
    ManifestReader,
    ShardRecord,
    append_dropped,
    append_shard,
    read_manifest,
    shard_name,
    unreadable_lines,
    write_manifest,
)
from bottleneck.errors import CacheError


def record(number):
    sha256 = f"{number:x}" * 64
    return ShardRecord(
        file=shard_name(number, sha256), sha256=sha256, keys_sha256=sha256, n_rows=number + 1, n_bytes=1000
    )


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "manifest.jsonl"
    for number in range(3):
        append_shard(path, record(number))
    return path


def test_shards_are_listed_in_the_order_they_came(path):
    assert list(read_manifest(path).shards.values()) == [record(0), record(1), record(2)]


def test_absent_manifest_lists_nothing(tmp_path):
    assert read_manifest(tmp_path / "manifest.jsonl").shards == {}


@pytest.mark.parametrize("left", [1, 40, 100])
def test_torn_last_line_is_passed_over_and_does_not_spoil_the_next(path, left):
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:2]) + lines[2][:left])

    assert list(read_manifest(path).shards) == [record(0).file, record(1).file]

    append_shard(path, record(3))

    assert list(read_manifest(path).shards.values()) == [record(0), record(1), record(3)]


def test_last_line_on_a_shard_holds(path):
    append_dropped(path, record(1).file)

    manifest = read_manifest(path)
    assert list(manifest.shards) == [record(0).file, record(2).file]
    assert manifest.dropped == {record(1).file}

    append_shard(path, record(1))

    manifest = read_manifest(path)
    assert list(manifest.shards) == [record(0).file, record(2).file, record(1).file]
    assert manifest.dropped == frozenset()


def test_lines_of_a_newer_version_are_refused_with_the_reason(path):
    with path.open("a") as file:
        file.write(json.dumps({"format_version": 2, "file": "x"}) + "\n")

    with pytest.raises(CacheError, match=r"manifest.jsonl has lines of format version 2.*upgrade"):
        read_manifest(path)


def test_name_that_does_not_fit_the_checksum_is_passed_over(path):
    with path.open("a") as file:
        entry = {"format_version": 1, "file": f"../{record(4).file}", "sha256": "4" * 64, "rows": 1, "bytes": 1}
        file.write(json.dumps(entry) + "\n")

    assert len(read_manifest(path).shards) == 3


def test_damage_never_invents_a_checksum(path):
    content = path.read_bytes()
    checksums = {record(number).file.partition("-")[2] for number in range(3)}
    draw = random.Random(0)
    for _ in range(200):
        damaged = bytearray(content)
        damaged[draw.randrange(len(damaged))] ^= 1 << draw.randrange(8)
        path.write_bytes(damaged)
        with suppress(CacheError):  # a flip may make it the manifest of a newer version
            assert {name.partition("-")[2] for name in read_manifest(path).shards} <= checksums


def test_reader_returns_each_line_once_however_it_is_written(path):
    reader = ManifestReader(path)
    assert list(reader.read_new().lines) == [record(0), record(1), record(2)]
    assert reader.read_new().lines == ()

    append_shard(path, record(3))
    append_dropped(path, record(0).file)

    assert list(reader.read_new().lines) == [record(3), DroppedShard(file=record(0).file)]


@pytest.mark.parametrize("cut", [1, 40, 150])
def test_reader_waits_for_the_rest_of_a_line_in_the_making(path, cut):
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:2]) + lines[2][:cut])
    reader = ManifestReader(path)

    assert list(reader.read_new().lines) == [record(0), record(1)]
    with path.open("ab") as file:
        file.write(lines[2][cut:])

    assert list(reader.read_new().lines) == [record(2)]


def test_reader_notices_a_manifest_written_anew(path):
    reader = ManifestReader(path)
    reader.read_new()
    append_dropped(path, record(1).file)
    write_manifest(path, read_manifest(path))
    append_shard(path, record(3))

    news = reader.read_new()

    assert news.is_whole
    assert news.lines == (record(0), record(2), DroppedShard(file=record(1).file), record(3))
    assert not reader.read_new().is_whole


def test_shard_that_replaces_others_takes_them_off_the_list(path):
    whole = dataclasses.replace(record(5), replaces=((record(0).file, 1), (record(2).file, 3)))
    append_shard(path, whole)

    manifest = read_manifest(path)

    assert list(manifest.shards) == [record(1).file, whole.file]
    assert manifest.shards[whole.file].replaces == whole.replaces
    assert manifest.dropped == {record(0).file, record(2).file}
    assert manifest == Manifest(shards=manifest.shards, dropped=manifest.dropped)


def test_unreadable_lines_are_numbered(path):
    assert unreadable_lines(path) == []

    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([lines[0], b"\n", lines[1][:40], b"\n", bytes(20), b"\n", lines[2][:-9]]))

    assert unreadable_lines(path) == [3, 4, 5]
    assert unreadable_lines(path.with_name("absent")) == []


def test_lines_of_a_newer_version_are_not_called_unreadable(path):
    path.write_text(json.dumps({"format_version": 2, "file": "x"}) + "\n")

    with pytest.raises(CacheError, match="upgrade"):
        unreadable_lines(path)
