"""Consecutive rows of a source as a source of their own, which is sent to another process: without the other rows."""

import os

from bottleneck.images.arrays import ArraySource
from bottleneck.images.files import FileSource
from bottleneck.images.items import ItemSource
from bottleneck.images.manifest import ManifestSource
from bottleneck.images.remote import is_url
from bottleneck.images.source import ImageSource, SubsetSource, subset


def part_of(source: ImageSource, rows: range) -> ImageSource:
    """Return consecutive rows of a source; row i of the part is row ``rows[i]`` of the source.

    Files have absolute paths in it, so that they are found from another working folder, or another machine.
    """
    here = slice(rows.start, rows.stop)
    match source:
        case FileSource():
            return FileSource(ids=[_absolute(path) for path in source.ids[here]])
        case ManifestSource():
            return source.part(rows)
        case ItemSource():
            return ItemSource(items=source.items[here], ids=source.ids[here])
        case ArraySource():
            return ArraySource(array=source.array[here], shape=source.shape)
        case SubsetSource(source=FileSource() as files):
            return FileSource(ids=[_absolute(files.ids[row]) for row in source.rows[here].tolist()])
    return subset(source, rows)


def _absolute(path: str) -> str:
    return path if path.startswith("/") or is_url(path) else os.path.abspath(path)  # noqa: PTH100 (a Path costs more)
