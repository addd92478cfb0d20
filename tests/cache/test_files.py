import os
import time

import pytest

from bottleneck.cache.files import STALE_SECONDS, cache_errors, remove_stale_partials, sha256_of, write_whole
from bottleneck.errors import CacheError


def opened_sha256(path):
    with path.open("rb", buffering=0) as file:
        return sha256_of(file)


def test_file_replaces_an_older_one_and_leaves_no_temporary(tmp_path):
    path = tmp_path / "x.json"

    write_whole(path, b"one")
    with path.open("rb") as reader:
        write_whole(path, b"two")

        assert reader.read() == b"one"  # whoever has the old file open keeps all of it
    assert path.read_bytes() == b"two"
    assert list(tmp_path.iterdir()) == [path]


def test_failed_write_leaves_nothing_visible(tmp_path):
    target = tmp_path / "x"
    (target / "in the way").mkdir(parents=True)

    with pytest.raises(OSError):
        write_whole(target, b"content")

    assert list(tmp_path.iterdir()) == [target]


def test_only_old_temporary_files_are_removed(tmp_path):
    old, young, shard = tmp_path / "1-a.partial", tmp_path / "2-b.partial", tmp_path / "00000-a.h5"
    for path in (old, young, shard):
        path.touch()
    long_ago = time.time() - STALE_SECONDS - 1
    for path in (old, shard):
        os.utime(path, (long_ago, long_ago))

    remove_stale_partials(tmp_path)

    assert sorted(tmp_path.iterdir()) == [shard, young]


def test_change_right_after_hashing_is_noticed(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(b"one")
    status = path.stat()
    before = opened_sha256(path)

    path.write_bytes(b"two")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))  # as if within one tick of the clock

    assert opened_sha256(path) != before


def test_settled_file_is_hashed_once(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(b"one")
    os.utime(path, (1e9, 1e9))
    before = opened_sha256(path)

    path.write_bytes(b"two")
    os.utime(path, (1e9, 1e9))

    assert opened_sha256(path) == before  # only size, time and inode were looked at


def test_trouble_with_a_folder_is_one_clear_sentence(tmp_path):
    (tmp_path / "file").touch()

    folder = tmp_path / "file" / "sub"

    with pytest.raises(CacheError, match=r"folder .*sub cannot be used: Not a directory"), cache_errors(folder):
        folder.mkdir()
