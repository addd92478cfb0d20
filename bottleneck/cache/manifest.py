"""The list of the shards of one feature space: ``manifest.jsonl``, one line a shard, only ever appended to.

A line is ``{"format_version": 1, "file": ..., "sha256": ..., "keys_sha256": ..., "rows": ..., "bytes": ...}``. A line
with ``"dropped": true`` takes a shard off the list; of several lines on one file the last holds. The line of a shard
that holds the rows of older ones, one after the other, names them in ``"replaces"``.

Lines are appended under the lock of the space, each by one write. Lines that cannot be read (a power cut tore them)
are passed over: the name of a shard carries its checksum too, and the store puts complete shards back on the list.
When most lines are out of date, the file is written anew; readers notice, because a line they have read is not where
it was.
"""

import errno
import json
import logging
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from bottleneck.cache.files import sync_folder, write_whole
from bottleneck.errors import CacheError

MANIFEST_VERSION = 1
OUTDATED_LINES = 1000
"""A manifest is written anew when it has this many lines more than four times those it needs."""

logger = logging.getLogger(__name__)

_SHARD_NAME = re.compile(r"(\d{5,})-([0-9a-f]{32})\.h5")


@dataclass(frozen=True, kw_only=True, slots=True)
class ShardRecord:
    """One line of the manifest: a file, its checksum and that of its keys (read long before the rest), its size.

    ``replaces`` are the older shards whose rows this one holds, and how many rows each: first those of the first.
    """

    file: str
    sha256: str
    keys_sha256: str
    n_rows: int
    n_bytes: int
    replaces: tuple[tuple[str, int], ...] = field(default=(), compare=False)


@dataclass(frozen=True, kw_only=True, slots=True)
class DroppedShard:
    """A line of the manifest that takes a file off the list."""

    file: str


Line = ShardRecord | DroppedShard


@dataclass(frozen=True, kw_only=True, slots=True)
class News:
    """Lines of a manifest that were not read before, in their order; ``is_whole`` if they are all there are."""

    lines: tuple[Line, ...]
    is_whole: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Manifest:
    """The shards on the list, in the order they came, and the names of those taken off it."""

    shards: dict[str, ShardRecord]
    dropped: frozenset[str]


class ManifestReader:
    """Read a manifest once, and then only what has been appended to it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.n_lines = 0
        self._offset = 0
        self._last_line = b""

    def read_new(self) -> News:
        """Return the lines that came since the last call; all of them if the file is another one now.

        Raises
        ------
        CacheError
            A line was written by a newer version of the library.
        """
        try:
            with self.path.open("rb", buffering=0) as file:
                is_whole = not self._goes_on(file.fileno())
                if is_whole:
                    self._start_again()
                file.seek(self._offset)
                content = file.readall()
        except FileNotFoundError:  # lost, perhaps, but the shards it listed need not be: no news
            self._start_again()
            is_whole, content = False, b""
        return News(lines=tuple(self._take(content)), is_whole=is_whole)

    def _start_again(self) -> None:
        self.n_lines, self._offset, self._last_line = 0, 0, b""

    def _goes_on(self, descriptor: int) -> bool:
        """Say whether the last line that was read is still where it was."""
        if os.fstat(descriptor).st_size < self._offset:
            return False
        os.lseek(descriptor, self._offset - len(self._last_line), os.SEEK_SET)
        return os.read(descriptor, len(self._last_line)) == self._last_line

    def _take(self, content: bytes) -> Iterable[Line]:
        """Parse whole lines, and the last one even without its end if it can be read; else it is read again."""
        for line in content.splitlines(keepends=True):
            parsed = _parse_line(line, self.path)
            if parsed is None and not line.endswith(b"\n"):
                return
            self._offset += len(line)
            self._last_line = line
            self.n_lines += 1
            if parsed is not None:
                yield parsed
            elif line.strip():
                logger.debug("%s has a torn line: %r", self.path, line)


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
    for line in ManifestReader(path).read_new().lines:
        match line:
            case ShardRecord(file=name):
                shards[name] = line
                dropped.discard(name)
            case DroppedShard(file=name):
                shards.pop(name, None)
                dropped.add(name)
    return Manifest(shards=shards, dropped=frozenset(dropped))


def unreadable_lines(path: Path) -> list[int]:
    """Return the numbers, from 1, of the lines of a manifest that say nothing: torn, overwritten, or contradictory.

    Raises
    ------
    CacheError
        A line was written by a newer version of the library.
    """
    try:
        lines = path.read_bytes().splitlines()
    except FileNotFoundError:
        return []
    return [number for number, line in enumerate(lines, 1) if line.strip() and _parse_line(line, path) is None]


def append_shard(path: Path, record: ShardRecord) -> None:
    """Put a shard on the list, and take those that it replaces off it."""
    _append(path, [record, *(DroppedShard(file=name) for name, _ in record.replaces)])


def append_dropped(path: Path, name: str) -> None:
    """Take a shard off the list."""
    _append(path, [DroppedShard(file=name)])


def write_manifest(path: Path, manifest: Manifest) -> None:
    """Write the list anew, without the lines that later ones have made void."""
    dropped = [DroppedShard(file=name) for name in sorted(manifest.dropped)]
    lines: list[Line] = [*manifest.shards.values(), *dropped]
    write_whole(path, b"".join(map(_as_line, lines)))


def _as_line(line: Line) -> bytes:
    match line:
        case ShardRecord():
            checksums = {"sha256": line.sha256, "keys_sha256": line.keys_sha256}
            entry: dict[str, object] = {"file": line.file, **checksums, "rows": line.n_rows, "bytes": line.n_bytes}
            if line.replaces:
                entry["replaces"] = line.replaces
        case DroppedShard():
            entry = {"file": line.file, "dropped": True}
    return json.dumps({"format_version": MANIFEST_VERSION, **entry}).encode() + b"\n"


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
            replaces=tuple((str(old), int(n_rows)) for old, n_rows in entry.get("replaces", ())),
        )
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError):
        return None
    return record if record.n_rows > 0 and name_fits(name, record.sha256) else None


def _append(path: Path, lines: Iterable[Line]) -> None:
    content = b"".join(map(_as_line, lines))
    created = not path.exists()
    # Unbuffered, so that the lines are one write; "a" puts them at the end wherever other processes have moved that.
    with path.open("a+b", buffering=0) as file:
        if (end := file.seek(0, os.SEEK_END)) > 0:
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":  # do not continue a torn line
                content = b"\n" + content
        if file.write(content) != len(content):
            file.truncate(end)  # a full disk leaves no torn line
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        os.fsync(file.fileno())
    if created:
        sync_folder(path.parent)
