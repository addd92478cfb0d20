"""Remember the key of a file by (path, size, modification time), so that a warm run reads no image.

One SQLite database for a cache folder: it survives kill -9 and takes several processes at once. It only saves time,
so whatever is wrong with it is a ``CacheWarning`` and the files are read again; a damaged one is set aside.

An entry is trusted as git trusts its index. A file that changed within two seconds of being read is not remembered:
it could change again without its time telling. Every entry carries a checksum, because SQLite keeps none.
"""

import hashlib
import os
import secrets
import sqlite3
import warnings
from collections.abc import Iterator, Sequence
from contextlib import closing
from itertools import compress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bottleneck.cache.files import SETTLED_NS
from bottleneck.cache.keys import KEY_BYTES
from bottleneck.errors import CacheWarning

FileStat = tuple[str, int, int]
"""Path, size in bytes, modification time in nanoseconds."""

BATCH = 2000
"""Paths in one query: measured, more are no faster. SQLite takes at least 32,766 parameters since 3.32."""

ROOTED = "/"
"""What absolute paths begin with, save on Windows."""

NO_KEY = bytes(KEY_BYTES)
BUSY_SECONDS = 30.0
TRANSIENT = frozenset(
    {
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_PROTOCOL,
    }
)
"""Errors that say nothing against the content of the database."""

CREATE = (
    "CREATE TABLE IF NOT EXISTS files (path BLOB PRIMARY KEY, size INTEGER NOT NULL, mtime_ns INTEGER NOT NULL, "
    "key BLOB NOT NULL, checksum BLOB NOT NULL) WITHOUT ROWID"
)


class StatIndex:
    """Keys of files by path, size and modification time.

    ``path`` is the database; its name carries the format version, so another format is another file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def recall(self, stats: Sequence[FileStat]) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """Return the keys (n, 16), zeros where unknown, and which are known (n,)."""
        nothing = np.zeros((len(stats), KEY_BYTES), np.uint8), np.zeros(len(stats), bool)
        if len(stats) == 0 or not self.path.exists():
            return nothing
        try:
            with closing(self._connect()) as database:
                keys = [key for batch in _batches(stats) for key in _look_up(database, list(_absolute(batch)))]
        except sqlite3.Error as exc:
            self._give_up(exc)
            return nothing
        joined = b"".join([key or NO_KEY for key in keys])
        known = np.array([key is not None for key in keys], bool)
        return np.frombuffer(bytearray(joined), np.uint8).reshape(-1, KEY_BYTES), known

    def remember(self, stats: Sequence[FileStat], keys: NDArray[np.uint8], *, read_after_ns: int) -> None:
        """Remember the keys of files that were all read after the given time of ``time.time_ns``."""
        settled = [mtime_ns + SETTLED_NS < read_after_ns for _, _, mtime_ns in stats]
        if not any(settled):
            return
        entries = (
            (path, size, mtime_ns, key, _checksum(path, size, mtime_ns, key))
            for (path, size, mtime_ns), key in compress(zip(_absolute(stats), map(bytes, keys), strict=True), settled)
        )
        try:
            with closing(self._connect()) as database, database:
                database.executemany("INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?)", entries)
        except sqlite3.Error as exc:
            self._give_up(exc)

    def _connect(self) -> sqlite3.Connection:
        database = sqlite3.connect(self.path, timeout=BUSY_SECONDS)
        try:
            database.execute(CREATE)
        except sqlite3.Error:
            database.close()
            raise
        return database

    def _give_up(self, exc: sqlite3.Error) -> None:
        """Warn, and set a damaged database aside so that the next call starts a new one."""
        # The lowest byte of SQLite's extended codes is the kind of error; our own finding has none.
        kind = getattr(exc, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & 0xFF
        outcome = "Files will be read again" if kind in TRANSIENT else self._set_aside()
        warnings.warn(f"The index of files {self.path} cannot be used: {exc}. {outcome}.", CacheWarning, stacklevel=4)

    def _set_aside(self) -> str:
        aside = f"{self.path.name}.damaged-{secrets.token_hex(4)}"
        try:
            self.path.replace(self.path.with_name(aside))
        except OSError as exc:
            return f"It cannot be set aside either ({exc.strerror}); files will be read again"
        return f"It was set aside as {aside}, and a new one will be made"


def _batches(stats: Sequence[FileStat]) -> Iterator[Sequence[FileStat]]:
    return (stats[start : start + BATCH] for start in range(0, len(stats), BATCH))


def _absolute(stats: Sequence[FileStat]) -> Iterator[tuple[bytes, int, int]]:
    """Make paths absolute, and bytes because a file name may be any bytes."""
    here = os.getcwd()  # noqa: PTH109 - one lookup for all paths
    for path, size, mtime_ns in stats:
        rooted = path if path.startswith(ROOTED) else os.path.join(here, path)  # noqa: PTH118
        yield os.fsencode(rooted), size, mtime_ns


def _look_up(database: sqlite3.Connection, asked: list[tuple[bytes, int, int]]) -> list[bytes | None]:
    """Return the key of each file, None where it is unknown or the file has changed."""
    paths = sorted({path for path, _, _ in asked})  # neighbours share the pages of the database
    query = f"SELECT path, size, mtime_ns, key, checksum FROM files WHERE path IN ({','.join('?' * len(paths))})"
    entries = {entry[0]: entry for entry in database.execute(query, paths)}
    keys: list[bytes | None] = []
    for stat in asked:
        entry = entries.get(stat[0])
        if entry is None or entry[:3] != stat:
            keys.append(None)
            continue
        key, checksum = entry[3:]
        if not isinstance(key, bytes) or checksum != _checksum(*stat, key):
            raise sqlite3.DatabaseError("an entry does not have the checksum it was written with")
        keys.append(key)
    return keys


def _checksum(path: bytes, size: int, mtime_ns: int, key: bytes) -> bytes:
    return hashlib.blake2b(b"%d %d %b%b" % (size, mtime_ns, key, path), digest_size=8).digest()
