"""Files that appear whole or not at all, and the hash of a file."""

import errno
import hashlib
import logging
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path

from bottleneck.errors import CacheError

PARTIAL = ".partial"
STALE_SECONDS = 24 * 3600
"""A temporary file this old belongs to a process that died: a shard is written in seconds. Age is asked rather than
whether the process lives, because process numbers mean nothing across machines and containers."""

SETTLED_NS = 2_000_000_000
"""A file that changed less than this ago may change again without its modification time telling: clocks of file
systems are coarse, up to two seconds on FAT. See "racy-git" in Documentation/technical of git's sources."""

logger = logging.getLogger(__name__)

_hashed: dict[tuple[int, int, int, int], str] = {}


@contextmanager
def cache_errors(folder: Path) -> Iterator[None]:
    """Turn what the operating system says about a cache folder into one clear ``CacheError``."""
    try:
        yield
    except CacheError:
        raise
    except OSError as exc:
        raise CacheError(
            f"The cache folder {folder} cannot be used: {exc.strerror or exc} ({exc.filename or folder}). "
            "Make room or change the permissions there, or choose another cache_dir."
        ) from exc


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that ``path`` is either absent or complete and on the disk, whatever happens meanwhile."""
    publish(write_partial(path.parent, content), path)


def write_partial(folder: Path, content: bytes, *, token: str = "") -> Path:
    """Write a file under a temporary name, with ``token`` in it, and return where it is, complete and on the disk."""
    partial = folder / f"{os.getpid()}-{token}{secrets.token_hex(8)}{PARTIAL}"
    try:
        with partial.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if partial.read_bytes() != content:
            raise OSError(errno.EIO, "what was written reads back differently", str(partial))
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    return partial


def publish(partial: Path, path: Path) -> None:
    """Give a file that was written under a temporary name its own."""
    try:
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    sync_folder(path.parent)


def remove_partials(folder: Path, token: str) -> None:
    """Remove the temporary files with ``token`` in their names."""
    for partial in folder.glob(f"*{token}*{PARTIAL}"):
        partial.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Put the names in a folder on the disk."""
    if os.name == "nt":  # Windows cannot open a folder, and orders renames itself
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_stale_partials(folder: Path) -> None:
    """Remove temporary files that dead processes left behind more than a day ago."""
    for partial in folder.glob(f"*{PARTIAL}"):
        try:
            if time.time() - partial.stat().st_mtime > STALE_SECONDS:
                partial.unlink()
        except OSError as exc:  # another process was faster, or the file is another user's
            logger.debug("%s stays: %s", partial, exc)


def sha256_of(file: FileIO) -> str:
    """Return the SHA-256 of an open file, from memory if this process has hashed it and it has not changed since."""
    status = os.fstat(file.fileno())
    identity = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
    if identity in _hashed:
        return _hashed[identity]
    age = time.time_ns() - status.st_mtime_ns
    digest = fresh_sha256_of(file)
    if not 0 <= age < SETTLED_NS:  # a file from the future tells of another machine's clock, not of a recent change
        _hashed[identity] = digest
    return digest


def fresh_sha256_of(file: FileIO) -> str:
    """Return the SHA-256 of an open file, read now."""
    file.seek(0)
    return hashlib.file_digest(file, "sha256").hexdigest()
