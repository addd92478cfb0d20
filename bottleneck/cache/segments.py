"""Which rows of which shard the positions of a store are."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bottleneck.errors import InvalidInputError

NOWHERE = ""
"""The file of positions whose rows are gone."""


@dataclass(kw_only=True, slots=True)
class Segment:
    """Consecutive positions that are consecutive rows of one shard.

    Compaction moves rows to another shard: ``file`` and ``row`` change then, the positions do not. ``keys_sha256`` is
    the checksum of the keys that the positions were given to, empty as long as nobody has been told of them;
    ``is_settled`` says that the rows in ``file`` have been seen to have these keys, ``is_indexed`` that the index of
    this process has them.
    """

    first: int
    n_rows: int
    file: str
    row: int
    keys_sha256: str = ""
    is_settled: bool = False
    is_indexed: bool = False

    @property
    def stop(self) -> int:
        """The position after the last."""
        return self.first + self.n_rows


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Located:
    """Where some of the positions asked for are: ``rows`` (ascending) of ``file`` belong at ``wanted``."""

    file: str
    wanted: NDArray[np.int64]
    rows: NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Table:
    """The segments as columns."""

    files: list[str]
    file: NDArray[np.int64]
    first: NDArray[np.int64]
    row: NDArray[np.int64]


class Segments:
    """All positions ever given by a store, in order."""

    def __init__(self) -> None:
        self._all: list[Segment] = []
        self._of: dict[str, list[Segment]] = {}
        self._columns: _Table | None = None

    @property
    def n_rows(self) -> int:
        """Number of rows that are somewhere."""
        return sum(segment.n_rows for segments in self._of.values() for segment in segments)

    @property
    def files(self) -> list[str]:
        """The shards that rows are in."""
        return list(self._of)

    def of(self, file: str) -> list[Segment]:
        """Return the segments of a shard."""
        return self._of.get(file, [])

    def cover(self, file: str, n_rows: int) -> None:
        """Give new positions to the rows of a shard that have none."""
        row = 0
        for start, stop in [
            *sorted((known.row, known.row + known.n_rows) for known in self.of(file)),
            (n_rows, n_rows),
        ]:
            if start > row:
                first = self._all[-1].stop if self._all else 0
                segment = Segment(first=first, n_rows=start - row, file=file, row=row)
                self._all.append(segment)
                self._of.setdefault(file, []).append(segment)
                self._columns = None
            row = max(row, stop)

    def move(self, file: str, to: str, offset: int) -> None:
        """Say that the rows of a shard are in another one now, from row ``offset``."""
        moved = self._of.pop(file, [])
        for segment in moved:
            segment.file, segment.row, segment.is_settled = to, segment.row + offset, False
        if moved:
            self._of.setdefault(to, []).extend(moved)
            self._columns = None

    def lose(self, segment: Segment) -> None:
        """Say that rows are gone; their positions are not given to others."""
        remaining = self._of[segment.file]
        remaining.remove(segment)
        if not remaining:
            del self._of[segment.file]
        segment.file = NOWHERE
        self._columns = None

    def locate(self, positions: NDArray[np.int64]) -> list[Located]:
        """Return where positions are, shard by shard.

        Raises
        ------
        InvalidInputError
            A position was never given.
        """
        if len(positions) == 0:
            return []
        lowest, highest = int(positions.min()), int(positions.max())
        if lowest < 0 or not self._all or highest >= self._all[-1].stop:
            raise InvalidInputError(f"positions must come from find. Got {lowest if lowest < 0 else highest}.")
        table = self._table()
        segment = np.searchsorted(table.first, positions, side="right") - 1
        rows = positions - table.first[segment] + table.row[segment]
        file = table.file[segment]
        order = np.lexsort((rows, file))
        starts = np.flatnonzero(np.diff(file[order], prepend=-1))
        return [
            Located(file=table.files[file[wanted[0]]], wanted=wanted, rows=rows[wanted])
            for wanted in np.split(order, starts[1:])
        ]

    def _table(self) -> _Table:
        if self._columns is None:
            numbers: dict[str, int] = {}
            file = [numbers.setdefault(segment.file, len(numbers)) for segment in self._all]
            self._columns = _Table(
                files=list(numbers),
                file=np.array(file, np.int64),
                first=np.array([segment.first for segment in self._all], np.int64),
                row=np.array([segment.row for segment in self._all], np.int64),
            )
        return self._columns
