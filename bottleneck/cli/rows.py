"""What `bottleneck predict` writes: one row an image, as CSV, JSON lines or Parquet."""

import csv
import json
import os
import secrets
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Literal, Protocol, get_args

import numpy as np
from numpy.typing import NDArray

from bottleneck.cache.files import PARTIAL, sync_folder
from bottleneck.errors import InvalidInputError, TransferError, did_you_mean
from bottleneck.optional import require

Format = Literal["csv", "jsonl", "parquet"]
FORMATS: tuple[str, ...] = get_args(Format)
READABLE = "ok"
UNREADABLE = "unreadable: "
GROUP_ROWS = 8192
"""Rows of a row group in Parquet: large enough to compress and to skip by, few enough to hold with 1,000 classes."""

Value = str | float | None
Row = tuple[Value, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Columns:
    """Which columns there are: path, status, the ``top_k`` most likely classes, and each class's probability."""

    classes: tuple[str, ...]
    top_k: int
    with_proba: bool

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the columns: the first class and probability without a number."""
        numbers = ("", *(f"_{rank}" for rank in range(2, self.top_k + 1)))
        best = (name + number for number in numbers for name in ("class", "probability"))
        return ("path", "status", *best, *(f"p({name})" for name in self.classes if self.with_proba))

    @property
    def types(self) -> tuple[type, ...]:
        """``str`` or ``float`` for each column."""
        n_proba = len(self.classes) if self.with_proba else 0
        return (str, str, *(str, float) * self.top_k, *(float,) * n_proba)

    def rows(self, paths: Sequence[str], proba: NDArray[np.float64], reasons: dict[int, str]) -> Iterator[Row]:
        """Yield the row of each path; ``proba`` (n, n_classes) has rows of NaN where ``reasons`` say why."""
        best = np.argsort(-proba, axis=1, kind="stable")[:, : self.top_k]
        n_empty = len(self.names) - 2
        for i, path in enumerate(paths):
            if i in reasons:
                yield (path, UNREADABLE + reasons[i], *(None,) * n_empty)
                continue
            top = (value for k in best[i] for value in (self.classes[k], float(proba[i, k])))
            yield (path, READABLE, *top, *(proba[i].tolist() if self.with_proba else ()))


def parse_format(wanted: str | None, out: Path | None) -> Format:
    """Return the format asked for, else the one that the file's name says, else CSV.

    Raises
    ------
    InvalidInputError
        There is no such format, or it cannot go where it should.
    """
    named = out.suffix.lower().lstrip(".") if out is not None else "csv"
    chosen = wanted or named
    if chosen not in FORMATS:
        option = "--format" if wanted else "The name after --out"
        allowed = "csv, jsonl or parquet" if wanted else "one that ends in .csv, .jsonl or .parquet, or have a --format"
        raise InvalidInputError(
            f"{option} must be {allowed}. Got {wanted or str(out)!r} instead. {did_you_mean(chosen, FORMATS)}".rstrip()
        )
    if chosen == "parquet" and out is None:
        raise InvalidInputError("Parquet is written to a file: name one with --out FILE.parquet.")
    return chosen  # type: ignore[return-value]  # it is one of them


class RowWriter(Protocol):
    """Writes rows in one format."""

    def write(self, rows: Iterator[Row]) -> None:
        """Write some rows, so that whoever reads along sees them."""
        ...

    def close(self) -> None:
        """Write what is still held back."""
        ...


@dataclass(frozen=True, slots=True)
class CsvWriter:
    """Comma-separated values with a header; probabilities with six digits."""

    stream: IO[str]
    columns: Columns

    def __post_init__(self) -> None:
        csv.writer(self.stream).writerow(self.columns.names)

    def write(self, rows: Iterator[Row]) -> None:
        """Write some rows; what is missing is empty."""
        csv.writer(self.stream).writerows(
            [f"{value:.6g}" if isinstance(value, float) else value for value in row] for row in rows
        )
        self.stream.flush()

    def close(self) -> None:
        """Nothing is held back."""


@dataclass(frozen=True, slots=True)
class JsonWriter:
    """One JSON object a line."""

    stream: IO[str]
    columns: Columns

    def write(self, rows: Iterator[Row]) -> None:
        """Write some rows; what is missing is null."""
        names = self.columns.names
        self.stream.writelines(json.dumps(dict(zip(names, row, strict=True))) + "\n" for row in rows)
        self.stream.flush()

    def close(self) -> None:
        """Nothing is held back."""


@dataclass(slots=True)
class ParquetWriter:
    """A Parquet file, row group by row group."""

    stream: IO[bytes]
    columns: Columns
    _waiting: list[Row] = field(default_factory=list, init=False)
    _file: Any = field(init=False)
    _schema: Any = field(init=False)

    def __post_init__(self) -> None:
        arrow, parquet = require("pyarrow", extra="parquet"), require("pyarrow.parquet", extra="parquet")
        types = {str: arrow.string(), float: arrow.float64()}
        fields = zip(self.columns.names, self.columns.types, strict=True)
        self._schema = arrow.schema([(name, types[kind]) for name, kind in fields])
        self._file = parquet.ParquetWriter(self.stream, self._schema)

    def write(self, rows: Iterator[Row]) -> None:
        """Hold rows back until there are enough for a row group."""
        for row in rows:
            self._waiting.append((_as_utf8(str(row[0])), *row[1:]))
            if len(self._waiting) == GROUP_ROWS:
                self._write_group()

    def close(self) -> None:
        """Write the last row group and the end of the file."""
        if self._waiting:
            self._write_group()
        self._file.close()

    def _write_group(self) -> None:
        arrow = require("pyarrow", extra="parquet")
        columns = zip(*self._waiting, strict=True)
        arrays = [arrow.array(values, kind) for values, kind in zip(columns, self._schema.types, strict=True)]
        self._file.write_table(arrow.Table.from_arrays(arrays, schema=self._schema))
        self._waiting.clear()


@contextmanager
def open_writer(kind: Format, out: Path | None, columns: Columns) -> Iterator[RowWriter]:
    """Yield a writer to a file, which appears whole or not at all, or to the standard output, row after row.

    Raises
    ------
    InvalidInputError
        The file cannot be written.
    """
    if out is None:
        yield _writer(kind, _standard_output(), columns)
        return
    with whole_file(out, text=kind != "parquet") as stream:
        writer = _writer(kind, stream, columns)
        try:
            yield writer
        finally:
            writer.close()


def _writer(kind: Format, stream: Any, columns: Columns) -> RowWriter:
    match kind:
        case "csv":
            return CsvWriter(stream, columns)
        case "jsonl":
            return JsonWriter(stream, columns)
        case "parquet":
            return ParquetWriter(stream, columns)


def _standard_output() -> IO[str]:
    if sys.stdout is None:
        raise InvalidInputError("The standard output is closed. Name a file with --out.")
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="surrogateescape")  # names of files need not be text
    return sys.stdout


@contextmanager
def whole_file(target: Path, *, text: bool) -> Iterator[IO[Any]]:
    """Yield a file that takes the target's name once everything is in it, and is gone if anything went wrong."""
    if target.exists() and not target.is_file():
        raise InvalidInputError(f"{target} is no file. Name the file to write after --out.")
    partial = target.with_name(f"{os.getpid()}-{secrets.token_hex(8)}{PARTIAL}")
    options: dict[str, Any] = {"encoding": "utf-8", "errors": "surrogateescape", "newline": ""} if text else {}
    try:
        with partial.open("x" if text else "xb", **options) as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        partial.replace(target)
        sync_folder(target.parent)
    except OSError as exc:
        if isinstance(exc, TransferError):
            raise
        raise InvalidInputError(
            f"{target} cannot be written: {exc.strerror or exc}. Name another file with --out."
        ) from exc
    finally:
        partial.unlink(missing_ok=True)


def _as_utf8(path: str) -> str:
    """Return a path as text that Parquet can hold; bytes that are no text become their codes."""
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
