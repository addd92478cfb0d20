"""Features that come in blocks of rows, because they are too many for memory."""

import mmap
from collections.abc import Iterator
from typing import Any, Literal, Protocol, TypeGuard, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from bottleneck.errors import InvalidInputError
from bottleneck.heads.normalize import RowNormalization, normalize_rows
from bottleneck.memory import available_memory

Floats = NDArray[np.floating[Any]]
MemoryLimit = Literal["auto"] | int | float

BLOCK_ROWS = 2048

BYTES_PER_NUMBER = 24
"""What a fit in memory holds for each number of the features at its peak: as given, normalised, and for the path."""

MEMORY_SHARE = 0.5
"""Share of the available memory that a fit may take with ``memory_limit="auto"``."""


@runtime_checkable
class FeatureBlocks(Protocol):
    """Features (n_samples, n_features) as consecutive blocks of rows, which can be gone through many times."""

    @property
    def n_samples(self) -> int:
        """Number of rows in all blocks."""
        ...

    @property
    def n_features(self) -> int:
        """Number of columns of every block."""
        ...

    def __iter__(self) -> Iterator[Floats]:
        """Yield arrays (n, n_features) of half, single or double precision, in the order of the rows."""
        ...


class ArrayBlocks:
    """The blocks of an array or a memory map; of a map no more than a block stays in memory."""

    def __init__(self, array: Floats, *, n_rows: int = BLOCK_ROWS) -> None:
        self.array = array
        self.n_rows = n_rows
        self.n_samples, self.n_features = array.shape

    def __iter__(self) -> Iterator[Floats]:
        """Yield views of consecutive rows."""
        mapped = _mapping(self.array)
        for start in range(0, self.n_samples, self.n_rows):
            yield self.array[start : start + self.n_rows]
            if mapped is not None:
                mapped.madvise(mmap.MADV_DONTNEED)


def is_blocks(values: object) -> TypeGuard[FeatureBlocks]:
    """Say whether something is features in blocks, and no array."""
    return not isinstance(values, np.ndarray) and isinstance(values, FeatureBlocks)


def streamed(X: Any, memory_limit: MemoryLimit) -> FeatureBlocks | None:
    """Return the blocks to go through if the fit of ``X`` would not fit in memory, else None."""
    if is_blocks(X):
        blocks: FeatureBlocks = X
    elif isinstance(X, np.ndarray) and X.ndim == 2 and X.dtype.kind == "f":
        blocks = ArrayBlocks(X)
    else:
        return None
    limit = MEMORY_SHARE * available_memory() if isinstance(memory_limit, str) else memory_limit
    return blocks if needs_streaming(blocks.n_samples, blocks.n_features, limit=limit) else None


def needs_streaming(n_samples: int, n_features: int, *, limit: float) -> bool:
    """Say whether a fit in memory would need more than ``limit`` bytes."""
    return BYTES_PER_NUMBER * n_samples * n_features > limit


def load_blocks(blocks: FeatureBlocks) -> Floats:
    """Return all blocks as one array."""
    return np.concatenate(list(blocks))


class BlockReader:
    """Goes through blocks again and again, checks their shape, and counts how often."""

    def __init__(self, blocks: FeatureBlocks) -> None:
        self.blocks = blocks
        self.n_passes = 0

    @property
    def n_samples(self) -> int:
        """Number of rows."""
        return self.blocks.n_samples

    @property
    def n_features(self) -> int:
        """Number of columns."""
        return self.blocks.n_features

    def read(self, rows: RowNormalization = "none", *, n_rows: int = BLOCK_ROWS) -> Iterator[tuple[slice, Floats]]:
        """Yield where each block of at most ``n_rows`` belongs, and its rows, in single precision or better.

        Raises
        ------
        InvalidInputError
            The blocks have another shape than they said, or (looked for the first time) features are missing.
        """
        first_time = self.n_passes == 0
        self.n_passes += 1
        start = 0
        for block in self.blocks:
            if block.ndim != 2 or block.shape[1] != self.n_features:
                raise InvalidInputError(
                    f"Every block needs {self.n_features} columns. One has the shape {block.shape}."
                )
            if first_time and not np.isfinite(block).all():
                raise InvalidInputError("Features must not be missing or infinite. Some are NaN or infinity.")
            for first in range(0, len(block), n_rows):
                part = block[first : first + n_rows]
                part = part.astype(np.float32) if part.dtype == np.float16 else part
                yield slice(start, start + len(part)), normalize_rows(part, rows)
                start += len(part)
        if start != self.n_samples:
            raise InvalidInputError(f"The blocks have {start} rows in all, but their n_samples is {self.n_samples}.")


class RowsOfBlocks:
    """Rows of blocks by their number, read when they are asked for, as from an array."""

    def __init__(self, reader: BlockReader, rows: NDArray[np.intp]) -> None:
        self.reader = reader
        self.rows = rows
        self.shape = (len(rows), reader.n_features)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, positions: NDArray[np.intp]) -> Floats:
        wanted = self.rows[positions]
        order = np.argsort(wanted, kind="stable")
        ordered = wanted[order]
        parts = [
            block[ordered[np.searchsorted(ordered, at.start) : np.searchsorted(ordered, at.stop)] - at.start]
            for at, block in self.reader.read()
        ]
        gathered = np.concatenate(parts)
        result = np.empty_like(gathered)
        result[order] = gathered
        return result


def _mapping(array: Any) -> mmap.mmap | None:
    """Return the map behind a memory map, if letting go of its pages loses nothing."""
    if not isinstance(array, np.memmap) or array.mode == "c":
        return None
    while isinstance(array, np.ndarray):
        array = array.base
    return array if isinstance(array, mmap.mmap) else None
