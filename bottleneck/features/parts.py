"""How a job is cut into parts, one task each: decided from counts and a measured rate."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from bottleneck.errors import wrong_parameter
from bottleneck.features.chunks import CHUNK_ROWS

MOST_PART_ROWS = 4 * CHUNK_ROWS
"""Rows of the largest part."""
PART_SECONDS = 60.0
"""How long a part should take: long beside what handing it out costs, short beside a job."""
PART_BYTES = 128 * 1024 * 1024
"""Stored features of a part at most: a worker that writes it as one shard holds a few times as much."""
PARTS_A_WORKER = 4
"""Enough parts that a slow one does not leave the other workers idle for long."""


@dataclass(frozen=True, kw_only=True, slots=True)
class JobSize:
    """What is known about a job before it starts.

    Attributes
    ----------
    n_rows, n_workers : int
    batch_size : int
        Parts are whole batches, so that an image shares its batch with the same images however the job is cut.
    row_bytes : int
        Stored features of a row.
    """

    n_rows: int
    n_workers: int
    batch_size: int
    row_bytes: int


def rows_of_part(job: JobSize, rate: float | None) -> int:
    """Return how many rows the next part should have.

    ``rate`` is the rows a second of one worker, None before any has been measured.
    """
    wanted = CHUNK_ROWS if rate is None else min(MOST_PART_ROWS, int(rate * PART_SECONDS))
    wanted = max(1, min(wanted, PART_BYTES // job.row_bytes) // CHUNK_ROWS) * CHUNK_ROWS
    n_parts = PARTS_A_WORKER * job.n_workers
    if job.n_rows >= n_parts * wanted:
        return wanted
    if job.n_rows >= n_parts * CHUNK_ROWS:
        return job.n_rows // n_parts // CHUNK_ROWS * CHUNK_ROWS
    return min(CHUNK_ROWS, -(-job.n_rows // (n_parts * job.batch_size)) * job.batch_size)


def cut(rows: range, size: Callable[[], int]) -> Iterator[range]:
    """Yield consecutive parts, each of the size asked for when it is next; small ones end where a chunk does."""
    start = rows.start
    while start < rows.stop:
        n_rows = size()
        if n_rows < CHUNK_ROWS:
            n_rows = min(n_rows, CHUNK_ROWS - (start - rows.start) % CHUNK_ROWS)
        yield range(start, min(start + n_rows, rows.stop))
        start += n_rows


def rows_of_shard(n_rows: int, shard: tuple[int, int], batch_size: int) -> range:
    """Return the rows of the i-th of n jobs that share a source: whole chunks, or whole batches of a small source.

    Raises
    ------
    InvalidInputError
        Not two numbers, or i is not from 1 to n.
    """
    match shard:
        case (int(i), int(n)) if 1 <= i <= n:
            unit = CHUNK_ROWS if n_rows >= n * CHUNK_ROWS else batch_size
            n_units = -(-n_rows // unit)
            first, last = ((i - 1) * n_units // n, i * n_units // n)
            return range(min(first * unit, n_rows), min(last * unit, n_rows))
    raise wrong_parameter("cache_features", "shard", "(i, n) with i from 1 to n", shard)


class Pace:
    """Rows a second of one worker, as the last parts were done; the larger parts count for more."""

    def __init__(self) -> None:
        self.rate: float | None = None

    def note(self, n_rows: int, seconds: float) -> None:
        """Record a part that went through the network."""
        if n_rows and seconds > 0:
            now = n_rows / seconds
            self.rate = now if self.rate is None else (self.rate + now) / 2
