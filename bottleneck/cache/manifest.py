"""The list of the shards of one feature space: ``manifest.jsonl``, one line a shard, only ever appended to.

A line is ``{"format_version": 1, "file": ..., "sha256": ..., "keys_sha256": ..., "rows": ..., "bytes": ...}``. A line
with ``"dropped": true`` takes a shard off the list; of several lines on one file the last holds. A line is appended by
one write in append mode, so that two processes never mix theirs. Lines that cannot be read (a power cut tore them) are
passed over: the name of a shard carries its checksum too, and the store puts complete shards back on the list.
"""

import errno
import json
import logging
import os
import re
from dataclasses import dataclass
from pathlib import Path

from bottleneck.cache.files import sync_folder
from bottleneck.errors import CacheError

MANIFEST_VERSION = 1

logger = logging.getLogger(__name__)

_SHARD_NAME = re.compile(r"(\d{5,})-([0-9a-f]{32})\.h5")


@dataclass(frozen=True, kw_only=True, slots=True)
class ShardRecord:
    """One line of the manifest: a file, its checksum and that of its keys (read long before the rest), its size."""

    file: str
    sha256: str
    keys_sha256: str
    n_rows: int
    n_bytes: int


@dataclass(frozen=True, kw_only=True, slots=True)
class DroppedShard:
    """A line of the manifest that takes a file off the list."""

    file: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Manifest:
    """The shards on the list, in the order they came, and the names of those taken off it."""

    shards: dict[str, ShardRecord]
    dropped: frozenset[str]


def shard_name(number: int, sha256: str) -> str:
    """Return the file name of a shard: a number for people and half of its checksum."""
    return f"{number:05d}-{sha256[:32]}.h5"


def is_shard_name(name: str) -> bool:
    """Whether a file name has the form that ``shard_name`` gives."""
    return _SHARD_NAME.fullmatch(name) is not None


def name_fits(name: str, sha256: str) -> bool:
    """Whether a shard of this name has this checksum."""
    match = _SHARD_NAME.fullmatch(name)
    return match is not None and sha256.startswith(match[2])


def next_number(names: set[str]) -> int:
    """Return a number above those of all given shards."""
    numbers = [int(match[1]) for name in names if (match := _SHARD_NAME.fullmatch(name))]
    return max(numbers, default=-1) + 1


def read_manifest(path: Path) -> Manifest:
    """Read a manifest; an absent one is empty.

    Raises
    ------
    CacheError
        A line was written by a newer version of the library.
    """
    shards: dict[str, ShardRecord] = {}
    dropped: set[str] = set()
    for line in path.read_bytes().splitlines() if path.exists() else []:
        match _parse_line(line, path):
            case ShardRecord() as record:
                shards[record.file] = record
                dropped.discard(record.file)
            case DroppedShard(file=name):
                shards.pop(name, None)
                dropped.add(name)
            case None:
                logger.debug("%s has a torn line: %r", path, line)
    return Manifest(shards=shards, dropped=frozenset(dropped))


def append_shard(path: Path, record: ShardRecord) -> None:
    """Put a shard on the list."""
    checksums = {"sha256": record.sha256, "keys_sha256": record.keys_sha256}
    _append(path, {"file": record.file, **checksums, "rows": record.n_rows, "bytes": record.n_bytes})


def append_dropped(path: Path, name: str) -> None:
    """Take a shard off the list."""
    _append(path, {"file": name, "dropped": True})


def _parse_line(line: bytes, path: Path) -> ShardRecord | DroppedShard | None:
    """Return what a line says, or None for one that was torn."""
    try:
        entry = json.loads(line)
        version, name = int(entry["format_version"]), str(entry["file"])
        if version > MANIFEST_VERSION:
            raise CacheError(
                f"{path} has lines of format version {version}, and this version of bottleneck-features reads up to "
                f"{MANIFEST_VERSION}: upgrade it, or choose another cache_dir."
            )
        if entry.get("dropped") is True:
            return DroppedShard(file=name)
        record = ShardRecord(
            file=name,
            sha256=str(entry["sha256"]),
            keys_sha256=str(entry["keys_sha256"]),
            n_rows=int(entry["rows"]),
            n_bytes=int(entry["bytes"]),
        )
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError):
        return None
    return record if record.n_rows > 0 and name_fits(name, record.sha256) else None


def _append(path: Path, entry: dict[str, object]) -> None:
    line = json.dumps({"format_version": MANIFEST_VERSION, **entry}).encode() + b"\n"
    created = not path.exists()
    # Unbuffered, so that the line is one write; "a" puts it at the end wherever other processes have moved that.
    with path.open("a+b", buffering=0) as file:
        if file.seek(0, os.SEEK_END) > 0:
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":  # do not continue a torn line
                line = b"\n" + line
        if file.write(line) != len(line):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        os.fsync(file.fileno())
    if created:
        sync_folder(path.parent)
