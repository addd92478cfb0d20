"""The plug-in axis of this unit: what an image source is, and views of one."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, overload, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from bottleneck.images.content import Content, FileStat


@runtime_checkable
class ImageSource(Protocol):
    """Images in a fixed order, read one at a time, from several threads at once."""

    @property
    def ids(self) -> Sequence[str]:
        """What errors and reports call each image: its path, or ``image 17``."""
        ...

    def __len__(self) -> int: ...

    def read(self, row: int) -> Content:
        """Return the content of one image, or raise ImageReadError for anything that is wrong with that image."""
        ...

    def stat(self, row: int) -> FileStat | None:
        """Return what identifies the file of one image, or None when it is no file; ImageReadError when it is gone."""
        ...


class RowNames(Sequence[str]):
    """Names made on demand: ``image 17`` for row 17, or the names of another sequence at these rows."""

    def __init__(self, rows: Sequence[int] | NDArray[np.int64], names: Sequence[str] | None = None) -> None:
        self._rows = rows
        self._names = names

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> "RowNames": ...
    def __getitem__(self, index: int | slice) -> "str | RowNames":
        if isinstance(index, slice):
            return RowNames(self._rows[index], self._names)
        row = int(self._rows[index])
        return f"image {row}" if self._names is None else self._names[row]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class SubsetSource:
    """Some rows of another source, in the order given."""

    source: ImageSource
    rows: NDArray[np.int64]

    @property
    def ids(self) -> Sequence[str]:
        """The names that the images have in the source."""
        return RowNames(self.rows, self.source.ids)

    def __len__(self) -> int:
        return len(self.rows)

    def read(self, row: int) -> Content:
        """Return the content of one of the rows."""
        return self.source.read(int(self.rows[row]))

    def stat(self, row: int) -> FileStat | None:
        """Return what identifies the file of one of the rows."""
        return self.source.stat(int(self.rows[row]))


def subset(source: ImageSource, rows: Sequence[int] | NDArray[np.integer]) -> ImageSource:
    """Return a view of some rows of a source; row i of the view is row ``rows[i]`` of the source.

    Raises
    ------
    IndexError
        A row is outside the source, or ``rows`` are not integers (a boolean mask, for example).
    """
    chosen = np.asarray(rows)
    if chosen.size and (chosen.dtype.kind not in "iu" or chosen.min() < 0 or chosen.max() >= len(source)):
        raise IndexError(f"rows must be integers from 0 to {len(source) - 1}")
    chosen = chosen.astype(np.int64)
    if isinstance(source, SubsetSource):  # a fold of a fold stays one look-up deep
        return SubsetSource(source=source.source, rows=source.rows[chosen])
    return SubsetSource(source=source, rows=chosen)
