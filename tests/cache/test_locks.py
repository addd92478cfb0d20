import errno
import os
import sys

import numpy as np
import pytest

from bottleneck.cache.locks import CLAIMS, claimed_keys, held_claim, write_lock
from bottleneck.errors import CacheError

from .rows import random_keys
from .subprocesses import start_python

HOLDER = """
import sys, time
from pathlib import Path
from bottleneck.cache.locks import held_claim, write_lock
from rows import random_keys
folder = Path(sys.argv[1])
with write_lock(folder), held_claim(folder, random_keys(5, 0)):
    print("held", flush=True)
    time.sleep(60)
"""


def test_keys_are_claimed_as_long_as_the_claim_is_held(tmp_path):
    keys = random_keys(3, 0)

    with held_claim(tmp_path, keys):
        assert claimed_keys(tmp_path) == {bytes(key) for key in keys}

    assert claimed_keys(tmp_path) == set()
    assert list((tmp_path / CLAIMS).iterdir()) == []


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
def test_locks_of_a_killed_process_are_free_at_once_and_its_claim_is_removed(tmp_path):
    process = start_python("-c", HOLDER, tmp_path)
    assert process.stdout.readline() == "held\n"
    assert claimed_keys(tmp_path) == {bytes(key) for key in random_keys(5, 0)}
    process.kill()
    process.communicate()

    with write_lock(tmp_path):
        assert claimed_keys(tmp_path) == set()

    assert list((tmp_path / CLAIMS).iterdir()) == []


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
def test_lock_that_is_never_given_up_is_an_error_that_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr("bottleneck.cache.locks.LOCK_SECONDS", 0.1)
    process = start_python("-c", HOLDER, tmp_path)
    process.stdout.readline()

    with pytest.raises(CacheError, match="Another process has been writing"), write_lock(tmp_path):
        pass

    process.kill()
    process.communicate()


@pytest.mark.skipif(sys.platform == "win32", reason="flock is of Unix")
@pytest.mark.parametrize("code", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_file_system_without_locks_is_one_clear_error(tmp_path, monkeypatch, code):
    import fcntl

    def refuse(descriptor, operation):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", refuse)

    with pytest.raises(CacheError, match=r"has no file locks .* can be read"), write_lock(tmp_path):
        pass


def test_error_inside_the_lock_is_raised_as_it_is_and_frees_it(tmp_path):
    with pytest.raises(ZeroDivisionError), write_lock(tmp_path):
        raise ZeroDivisionError

    with write_lock(tmp_path):
        pass


def test_claim_of_nothing_claims_nothing(tmp_path):
    with held_claim(tmp_path, np.empty((0, 16), np.uint8)):
        assert claimed_keys(tmp_path) == set()
