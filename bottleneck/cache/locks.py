"""Who may write to a feature space, and who is at work on which rows: locks of the operating system.

Two kinds, both ``flock`` (on Windows ``LockFile``) through ``filelock``. Such a lock vanishes with the process that
holds it, however it died, so nothing has to be guessed from ages or process numbers:

- ``write.lock``: held for the moment in which a shard and its line are written, or a claim is made. The file stays.
- ``claims/<owner>.lock``: held while its owner extracts the rows whose keys are in ``claims/<owner>.keys``. Whoever
  finds that he can lock it knows that the owner is gone, and removes both.

Claims only save work, never the truth: a row is looked up once more, under the write lock, before it is stored.

What is relied on: locks that exclude each other between all processes that write. Local file systems have them, and
so have NFS (from version 4, or 3 with a lock daemon; Linux turns flock into a lock on the server), SMB, Lustre
(mounted with ``flock``), BeeGFS and GPFS. Where a mount keeps locks to each machine (NFS with ``nolock``, Lustre with
``localflock``), writers on one machine still exclude each other; two machines may then store a row twice or
compute it twice, which costs space or time and nothing else: a shard appears whole under a name of its own, and the
manifest is appended to in single writes. Where there are no locks at all, reading works and writing is refused.
"""

import errno
import logging
import os
import secrets
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from bottleneck.cache.keys import KEY_BYTES
from bottleneck.errors import CacheError

WRITE_LOCK = "write.lock"
CLAIMS = "claims"
LOCK_SECONDS = 600.0
"""Longer than anything is written under the lock: whoever still holds it has been stopped."""
POLL_SECONDS = 0.01
NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Claim:
    """What became of asking for rows: both bool, one for each key asked for.

    Attributes
    ----------
    mine
        Missing, and nobody else's: to be extracted by whoever asked.
    others
        Missing, and being extracted by another process.
    """

    mine: NDArray[np.bool_]
    others: NDArray[np.bool_]


@contextmanager
def write_lock(folder: Path) -> Iterator[None]:
    """Exclude all other writers of a feature space.

    Raises
    ------
    CacheError
        The file system has no locks, or another process has held the lock for ``LOCK_SECONDS``.
    OSError
        The lock cannot be made there.
    """
    lock = _lock(folder / WRITE_LOCK)
    try:
        lock.acquire(timeout=LOCK_SECONDS, poll_interval=POLL_SECONDS)
    except Timeout as exc:
        raise CacheError(
            f"Another process has been writing to {folder} for {LOCK_SECONDS:.0f} s: it seems to be stopped. End it "
            "and run again, or choose another cache_dir."
        ) from exc
    except OSError as exc:
        if exc.errno in NO_LOCKS:
            raise CacheError(
                f"The file system of {folder} has no file locks ({exc.strerror}), so nothing can be written there; "
                "what is there can be read. Choose a cache_dir on another file system."
            ) from exc
        raise
    try:
        yield
    finally:
        lock.release()


@contextmanager
def held_claim(folder: Path, keys: NDArray[np.uint8]) -> Iterator[None]:
    """Let other processes know that the rows of these keys (n, 16) are being extracted.

    Entered under the write lock, left without it.
    """
    claims = folder / CLAIMS
    claims.mkdir(exist_ok=True)
    # The name is for people; that the owner lives is told by the lock, on whatever machine.
    path = claims / f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}.lock"
    path.with_suffix(".keys").write_bytes(keys.tobytes())
    lock = _lock(path)
    lock.acquire(blocking=False)
    try:
        yield
    finally:
        _remove(path)
        lock.release()


def claimed_keys(folder: Path) -> set[bytes]:
    """Return the keys that living processes are at work on, and clear away the claims of dead ones.

    To be called under the write lock.
    """
    claimed: set[bytes] = set()
    for path in sorted((folder / CLAIMS).glob("*.lock")):
        lock = _lock(path)
        try:
            lock.acquire(blocking=False)
        except Timeout:
            claimed |= _read_keys(path)
            continue
        logger.info("the claim %s of a process that is gone is void", path.name)
        _remove(path)
        lock.release()
    return claimed


def _lock(path: Path) -> FileLock:
    # A generator may be closed by another thread than the one that started it; and a lock that falls back to a mere
    # file would outlive its process.
    return FileLock(path, thread_local=False, fallback_to_soft=False)


def _read_keys(path: Path) -> set[bytes]:
    try:
        content = path.with_suffix(".keys").read_bytes()
    except FileNotFoundError:  # it has just been given up
        return set()
    return {content[start : start + KEY_BYTES] for start in range(0, len(content), KEY_BYTES)}


def _remove(path: Path) -> None:
    for part in (path.with_suffix(".keys"), path):
        try:
            part.unlink(missing_ok=True)
        except OSError as exc:  # Windows keeps a file that is open; whoever looks next removes it
            logger.debug("%s stays: %s", part, exc)
