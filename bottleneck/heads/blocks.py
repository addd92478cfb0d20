"""Features that come in blocks of rows, because they are too many for memory; and who goes through them."""

import mmap
from collections.abc import Callable, Iterator
from typing import Any, Literal, Protocol, TypeGuard, TypeVar, runtime_checkable

import numpy as np
from joblib import delayed
from numpy.typing import NDArray

from bottleneck.errors import InvalidInputError, wrong_parameter
from bottleneck.heads.normalize import RowNormalization, normalize_rows
from bottleneck.heads.threads import one_thread
from bottleneck.memory import available_memory
from bottleneck.workers import results_in_order, runs_here

Floats = NDArray[np.floating[Any]]
MemoryLimit = Literal["auto"] | int | float
T = TypeVar("T")

BLOCK_ROWS = 2048

SPAN_BYTES = 2**26
"""Features, in single precision, of the rows that are one task: a tenth of a second or more, beside which handing it
out costs nothing, and few enough that four workers share 100,000 rows of a thousand features evenly."""

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


@runtime_checkable
class RowBlocks(FeatureBlocks, Protocol):
    """Blocks of which some rows can be had without going through the others: by workers, each of which takes its own.

    Pickled for them, rows should be where they are to be found rather than the features themselves.
    """

    def take(self, rows: Any) -> "RowBlocks":
        """Return the rows of a slice, or of an array of indices in its order, as blocks again."""
        ...


class ArrayBlocks:
    """The blocks of an array or a memory map; of a map no more than a block stays in memory, and none is pickled."""

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

    def take(self, rows: Any) -> "ArrayBlocks":
        """Return some rows: views for a slice."""
        return ArrayBlocks(self.array[rows], n_rows=self.n_rows)

    def __reduce__(self) -> tuple[Any, ...]:
        place = _place(self.array)
        return (ArrayBlocks, (self.array,)) if place is None else (_mapped_blocks, place)


def _mapped_blocks(path: str, dtype: Any, offset: int, shape: tuple[int, int]) -> ArrayBlocks:
    return ArrayBlocks(np.memmap(path, dtype=dtype, mode="r", offset=offset, shape=shape))


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


def parse_workers(blocks: FeatureBlocks, n_jobs: int | None, *, owner: str) -> int | None:
    """Refuse several workers for blocks that can only be gone through in order."""
    if n_jobs in (None, 1) or isinstance(blocks, RowBlocks):
        return n_jobs
    hint = "Give them a method take(rows) that returns some of their rows as blocks."
    raise wrong_parameter(owner, "n_jobs", "None or 1 for blocks that only come in order", n_jobs, hint)


class BlockReader:
    """Goes through blocks again and again, alone or with workers, checks their shape, and counts how often.

    ``n_jobs`` None is this process with all its cores, or what ``joblib.parallel_config`` says; a number is that many
    workers of one core each.
    """

    def __init__(self, blocks: FeatureBlocks, *, n_jobs: int | None = None) -> None:
        self.blocks = blocks
        self.n_jobs = n_jobs
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

    def first_row(self, rows: RowNormalization = "none") -> Floats | None:
        """Return the first row (d,), None if there is none."""
        first = self.blocks.take(slice(0, 1)) if isinstance(self.blocks, RowBlocks) else self.blocks
        for block in first:
            if len(block):
                row = block[:1].astype(np.float32) if block.dtype == np.float16 else block[:1]
                return normalize_rows(row, rows).copy().reshape(-1)
        return None

    def spans(self) -> list[slice]:
        """Cut the rows into tasks, by the features alone, so that sums do not depend on who does them."""
        if not isinstance(self.blocks, RowBlocks):
            return [slice(0, self.n_samples)]
        n_rows = max(1, SPAN_BYTES // (4 * self.n_features) // BLOCK_ROWS) * BLOCK_ROWS
        return [slice(start, min(start + n_rows, self.n_samples)) for start in range(0, self.n_samples, n_rows)]

    def map(self, function: Callable[..., T], *by_row: NDArray[Any], shared: tuple[Any, ...] = ()) -> Iterator[T]:
        """Yield ``function(reader, *rows, *shared)`` for each span in order: a reader and arrays of its rows only.

        One pass. What is yielded has to be added up in the order it comes.
        """
        spans, n_passes = self.spans(), self.n_passes
        self.n_passes += 1

        def arguments(span: slice) -> tuple[Any, ...]:
            part = BlockReader(self.blocks.take(span) if isinstance(self.blocks, RowBlocks) else self.blocks)
            part.n_passes = n_passes
            return function, part, tuple(rows[span] for rows in by_row), *shared

        if self.n_jobs is None and runs_here(None):
            yield from (_call(*arguments(span)) for span in spans)
        elif not isinstance(self.blocks, RowBlocks) or runs_here(self.n_jobs):
            yield from (_call_on_one_core(*arguments(span)) for span in spans)
        else:
            tasks = (delayed(_call_on_one_core)(*arguments(span)) for span in spans)
            with one_thread():  # here, too: workers may be threads of this process
                yield from results_in_order(tasks, n_jobs=self.n_jobs)


def _call(function: Callable[..., T], part: BlockReader, rows: tuple[NDArray[Any], ...], *shared: Any) -> T:
    return function(part, *rows, *shared)


def _call_on_one_core(function: Callable[..., T], part: BlockReader, rows: tuple[Any, ...], *shared: Any) -> T:
    with one_thread():
        return function(part, *rows, *shared)


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
        if isinstance(self.reader.blocks, RowBlocks):
            parts = [block for _, block in BlockReader(self.reader.blocks.take(ordered)).read()]
        else:
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


def _place(array: Any) -> tuple[str, Any, int, tuple[int, ...]] | None:
    """Return where in which file the rows of a memory map are, if they are consecutive there and unchanged here."""
    if _mapping(array) is None or array.filename is None or not array.flags.c_contiguous:
        return None
    whole = array
    while isinstance(whole.base, np.memmap):
        whole = whole.base
    return str(array.filename), array.dtype, whole.offset + array.ctypes.data - whole.ctypes.data, array.shape
