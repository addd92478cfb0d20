"""Images that are files: one source of paths, which touches no file before it is asked to."""

import os
import stat as modes
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bottleneck.images.content import FileStat, ImageReadError
from bottleneck.images.remote import is_url, read_url, stat_url


@dataclass(frozen=True, kw_only=True, slots=True)
class FileSource:
    """Image files by path or address; the path is the id."""

    ids: Sequence[str]

    def __len__(self) -> int:
        return len(self.ids)

    def read(self, row: int) -> bytes:
        """Return the bytes of the file."""
        return read_file(self.ids[row])

    def stat(self, row: int) -> FileStat | None:
        """Return the path, size and time of the file."""
        return stat_file(self.ids[row])


def read_file(path: str) -> bytes:
    """Return the bytes of a file, or raise ImageReadError."""
    if is_url(path):
        return read_url(path)
    _regular_file(path)  # opening a pipe or a device would wait for ever
    try:
        with open(path, "rb", buffering=0) as file:  # noqa: PTH123 (a Path costs as much as the reading)
            return file.readall()
    except OSError as exc:
        raise ImageReadError(_reason(path, exc)) from exc


def stat_file(path: str) -> FileStat | None:
    """Return what identifies a file, or raise ImageReadError when it is missing or no regular file."""
    if is_url(path):
        return stat_url(path)
    found = _regular_file(path)
    is_plain = os.sep == "/" and path.startswith("/") and "/." not in path and "//" not in path  # abspath costs more
    absolute = path if is_plain else os.path.abspath(path)  # noqa: PTH100 (same)
    return FileStat(absolute, found.st_size, found.st_mtime_ns)


def _regular_file(path: str) -> os.stat_result:
    try:
        found = os.stat(path)  # noqa: PTH116 (a Path costs more than the call, and there may be millions)
    except (OSError, ValueError) as exc:
        raise ImageReadError(_reason(path, exc)) from exc
    if modes.S_ISDIR(found.st_mode):
        raise ImageReadError("this is a folder, not an image file")
    if not modes.S_ISREG(found.st_mode):
        raise ImageReadError("this is a pipe, a socket or a device, not an image file")
    return found


def _reason(path: str, exc: OSError | ValueError) -> str:
    """Say in plain words why a path cannot be read."""
    match exc:
        case FileNotFoundError() if Path(path).is_symlink():
            return f"broken symbolic link to {Path(path).readlink()}"
        case FileNotFoundError():
            return "no such file"
        case PermissionError():
            return "permission denied"
        case OSError():
            return f"the system cannot read it: {exc.strerror}"
        case _:
            return f"this is no path: {exc}"
