"""Images listed in a table: a Parquet or CSV file with a column of paths, read by row range and never held whole.

Paths that are not absolute are looked for beside the table. Of a table of any length a source keeps 8 bytes a block
of ``BLOCK_ROWS`` rows, and the paths of the blocks that were read last.
"""

import csv
import io
import posixpath
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any, overload

from bottleneck.errors import InvalidInputError
from bottleneck.images.content import FileStat
from bottleneck.images.files import read_file, stat_file
from bottleneck.images.remote import is_url, open_binary
from bottleneck.optional import require

TABLES = (".parquet", ".csv")
COLUMNS = ("path", "image", "image_path", "file", "filename", "file_name", "url")
"""Names of the column with the paths, the likeliest first; a table of one column may call it anything."""
BLOCK_ROWS = 4096
"""Rows of a CSV that are read together."""
KEPT_BLOCKS = 4
"""Blocks whose paths stay in memory: the rows of a pass follow each other, in a few threads."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Blocks:
    """Where the rows of a table are: block k holds the rows from ``first[k]`` on.

    It begins at byte ``start[k]`` of a CSV and ends at ``stop[k]``; of a Parquet file both are its row group.
    """

    first: tuple[int, ...]
    start: tuple[int, ...]
    stop: tuple[int, ...]


class ManifestSource:
    """Rows of a table of paths; the path is the id. Pickled, it is the table's path and where its blocks are."""

    def __init__(self, path: str, columns: tuple[str, ...], blocks: Blocks, rows: range) -> None:
        self.path = path
        self.columns = columns
        self.rows = rows
        self._blocks = blocks
        self._paths = _BlockCache()

    def __len__(self) -> int:
        return len(self.rows)

    def __getstate__(self) -> dict[str, object]:
        return {**vars(self), "_paths": _BlockCache()}

    @property
    def ids(self) -> Sequence[str]:
        """The paths, read when they are asked for."""
        return _ManifestNames(self)

    def read(self, row: int) -> bytes:
        """Return the bytes of a file."""
        return read_file(self.name(row))

    def stat(self, row: int) -> FileStat | None:
        """Return the path, size and time of a file."""
        return stat_file(self.name(row))

    def name(self, row: int) -> str:
        """Return the path of one row."""
        wanted = self.rows[row]
        block = bisect_right(self._blocks.first, wanted) - 1
        return self._paths_of(block)[wanted - self._blocks.first[block]]

    def part(self, rows: range) -> "ManifestSource":
        """Return consecutive rows as a source that knows no blocks but its own."""
        chosen = self.rows[rows.start : rows.stop]
        first = bisect_right(self._blocks.first, chosen.start) - 1
        last = bisect_right(self._blocks.first, max(chosen.start, chosen.stop - 1)) - 1
        own = slice(first, last + 1)
        blocks = Blocks(first=self._blocks.first[own], start=self._blocks.start[own], stop=self._blocks.stop[own])
        return ManifestSource(self.path, self.columns, blocks, chosen)

    def _paths_of(self, block: int) -> list[str]:
        with self._paths.lock:  # threads that need the same block wait for the one that reads it
            if block not in self._paths.kept:
                beside = self.path.rpartition("/")[0]
                self._paths.kept[block] = [_beside(beside, name) for name in self._read_block(block)]
                if len(self._paths.kept) > KEPT_BLOCKS:
                    self._paths.kept.popitem(last=False)
            self._paths.kept.move_to_end(block)
            return self._paths.kept[block]

    def _read_block(self, block: int) -> list[str]:
        column = _column(self.columns, self.path)
        start, stop = self._blocks.start[block], self._blocks.stop[block]
        with open_binary(self.path) as file:
            if _is_parquet(self.path):
                return _parquet_block(file, self.path, column, start)
            return _csv_block(file, self.path, self.columns.index(column), start, stop)


@dataclass(slots=True)
class _BlockCache:
    """The paths of the blocks that were read last."""

    kept: OrderedDict[int, list[str]] = field(default_factory=OrderedDict)
    lock: Any = field(default_factory=Lock)

    def __reduce__(self) -> tuple[type, tuple[()]]:
        return _BlockCache, ()


class _ManifestNames(Sequence[str]):
    def __init__(self, source: ManifestSource) -> None:
        self._source = source

    def __len__(self) -> int:
        return len(self._source)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self._source.name(row) for row in range(len(self._source))[index]]
        return self._source.name(range(len(self._source))[index])


def is_manifest(path: str) -> bool:
    """Say whether a path names a table of paths, by its ending."""
    return path.lower().endswith(TABLES)


def manifest_source(path: str) -> ManifestSource:
    """Return the source over a table of paths: one pass over a CSV to find its rows, none over a Parquet file.

    Raises
    ------
    InvalidInputError
        The table cannot be read, has no rows, or no column that holds paths.
    MissingDependencyError
        A Parquet file without pyarrow, or an address without fsspec.
    """
    path = path if is_url(path) else str(Path(path).absolute())
    with open_binary(path) as file:
        if _is_parquet(path):
            names, blocks, n_rows = _parquet_layout(file, path)
        else:
            names, blocks, n_rows = _csv_layout(file, path)
    if not n_rows:
        raise InvalidInputError(f"The table {path} has no rows.")
    _column(names, path)
    return ManifestSource(path, tuple(names), blocks, range(n_rows))


def _is_parquet(path: str) -> bool:
    return path.lower().endswith(".parquet")


def _column(names: Sequence[str], path: str) -> str:
    for name in (*COLUMNS, *(names if len(names) == 1 else ())):
        if name in names:
            return name
    raise InvalidInputError(
        f"The table {path} has no column of paths. Call it {', '.join(map(repr, COLUMNS[:-1]))} or {COLUMNS[-1]!r}. "
        f"Got {', '.join(map(repr, names))}."
    )


def _beside(folder: str, name: str) -> str:
    return name if name.startswith("/") or is_url(name) else posixpath.join(folder, name)


def _csv_layout(file: Any, path: str) -> tuple[list[str], Blocks, int]:
    """Return the names of the columns, where every block lies, and the number of rows."""
    rows = _row_ends(file)
    header_end = end = next(rows, 0)
    firsts, starts, n_rows = [0], [end], 0
    for row_end in rows:
        if n_rows and n_rows % BLOCK_ROWS == 0:
            firsts.append(n_rows)
            starts.append(end)
        n_rows, end = n_rows + 1, row_end
    file.seek(0)
    names = next(_csv_rows(file.read(header_end), path), [])
    return names, Blocks(first=tuple(firsts), start=tuple(starts), stop=(*starts[1:], end)), n_rows


def _row_ends(file: Any) -> Iterator[int]:
    """Yield the byte after each row that is not empty; a quoted field may hold line ends."""
    end, quotes = 0, 0
    for line in file:
        end += len(line)
        quotes += line.count(b'"')
        if quotes % 2 == 0 and line.strip():
            yield end


def _csv_block(file: Any, path: str, position: int, start: int, stop: int) -> list[str]:
    file.seek(start)
    rows = _csv_rows(file.read(stop - start), path)
    # A row that is too short names no file, and is reported as one that cannot be read.
    return [row[position] if position < len(row) else "" for row in rows if row]


def _csv_rows(content: bytes, path: str) -> Iterator[list[str]]:
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        raise InvalidInputError(f"The table {path} is not UTF-8 text: {exc.reason}.") from exc
    return csv.reader(io.StringIO(text, newline=""))


def _parquet_layout(file: Any, path: str) -> tuple[list[str], Blocks, int]:
    """Return the names of the columns, the row groups, and the number of rows."""
    table = _parquet(file, path)
    firsts, n_rows, groups = [0], 0, table.metadata.num_row_groups
    for group in range(groups):
        n_rows += table.metadata.row_group(group).num_rows
        firsts.append(n_rows)
    starts = tuple(range(groups))
    return table.schema_arrow.names, Blocks(first=tuple(firsts[:-1]), start=starts, stop=starts), n_rows


def _parquet_block(file: Any, path: str, column: str, group: int) -> list[str]:
    names = _parquet(file, path).read_row_group(group, columns=[column])[column].to_pylist()
    return ["" if name is None else str(name) for name in names]


def _parquet(file: Any, path: str) -> Any:
    parquet = require("pyarrow.parquet", extra="manifest")
    invalid = require("pyarrow", extra="manifest").ArrowInvalid
    try:
        return parquet.ParquetFile(file)
    except invalid as exc:
        raise InvalidInputError(f"{path} is no Parquet file: {exc}.") from exc
