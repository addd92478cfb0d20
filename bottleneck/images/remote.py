"""Images at addresses such as s3://bucket/cat.jpg: the only door to fsspec, which is optional."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from types import ModuleType
from typing import Any

from bottleneck.errors import InvalidInputError
from bottleneck.images.content import FileStat, ImageReadError
from bottleneck.optional import require

MODIFIED = ("mtime", "LastModified", "last_modified", "updated", "modified", "created")
"""What file systems of fsspec call the time of the last change, the likeliest first."""


def is_url(path: str) -> bool:
    """Say whether a path is an address: s3://bucket/cat.jpg, memory://cat.jpg."""
    return "://" in path


def read_url(url: str) -> bytes:
    """Return the bytes at an address, or raise ImageReadError."""
    with _reasons(url):
        files, path = _fsspec().url_to_fs(url)
        content: bytes = files.cat_file(path)
        return content


def stat_url(url: str) -> FileStat | None:
    """Return what identifies the file at an address, or None where its store keeps no time of change."""
    with _reasons(url):
        files, path = _fsspec().url_to_fs(url)
        found: dict[str, Any] = files.info(path)
    if found.get("type") == "directory":
        raise ImageReadError("this is a folder, not an image file")
    changed = next((found[name] for name in MODIFIED if found.get(name) is not None), None)
    changed = changed.timestamp() if isinstance(changed, datetime) else changed
    if not isinstance(changed, int | float) or not isinstance(found.get("size"), int):
        return None
    # Rooted, so that the index of known files does not look for it in the working folder.
    return FileStat(f"/{url}", found["size"], int(changed * 1e9))


def is_remote_folder(url: str) -> bool:
    """Say whether an address has files below it; InvalidInputError when its store cannot be asked."""
    try:
        files, path = _fsspec().url_to_fs(url)
        return bool(files.isdir(path))
    except (OSError, ValueError, ImportError) as exc:
        raise InvalidInputError(f"X is the address {url!r}, which cannot be reached: {exc}") from exc


def list_urls(url: str) -> list[str]:
    """Return the addresses of all files below one, in the order of their names."""
    files, path = _fsspec().url_to_fs(url)
    return [str(files.unstrip_protocol(found)) for found in sorted(files.find(path))]


@contextmanager
def open_binary(path: str) -> Iterator[Any]:
    """Open a file or the file at an address, to read bytes from any place in it.

    Raises
    ------
    InvalidInputError
        It cannot be opened.
    """
    try:
        if is_url(path):
            with _fsspec().open(path, "rb") as file:
                yield file
        else:
            with open(path, "rb") as file:  # noqa: PTH123 (as above, with a path that may be an address)
                yield file
    except (FileNotFoundError, PermissionError, IsADirectoryError) as exc:
        raise InvalidInputError(f"{path} cannot be read: {exc.strerror or exc}.") from exc


def _fsspec() -> ModuleType:
    require("fsspec", extra="remote")
    return require("fsspec.core", extra="remote")


@contextmanager
def _reasons(url: str) -> Iterator[None]:
    """Say in plain words why an address cannot be read."""
    try:
        yield
    except FileNotFoundError as exc:
        raise ImageReadError("no such file") from exc
    except PermissionError as exc:
        raise ImageReadError("permission denied") from exc
    except OSError as exc:
        said = os.strerror(exc.errno) if exc.errno else str(exc)
        raise ImageReadError(f"the store cannot read it: {said}") from exc
    except ValueError as exc:  # a protocol that fsspec does not know
        raise ImageReadError(f"this address cannot be read: {exc}") from exc
    except ImportError as exc:
        raise ImageReadError(f"a package for this kind of address is missing: {exc}") from exc
