"""How a job is cut: every row once, whole batches, parts of a measured length."""

import pytest

from bottleneck.errors import InvalidInputError
from bottleneck.features.chunks import CHUNK_ROWS
from bottleneck.features.parts import JobSize, Pace, cut, rows_of_part, rows_of_shard


def size(n_rows: int, n_workers: int = 4, batch_size: int = 64, row_bytes: int = 4096) -> JobSize:
    return JobSize(n_rows=n_rows, n_workers=n_workers, batch_size=batch_size, row_bytes=row_bytes)


@pytest.mark.parametrize(
    ("rate", "rows"), [(None, 4096), (5.0, 4096), (100.0, 4096), (150.0, 8192), (200.0, 8192), (5000.0, 16384)]
)
def test_part_of_a_large_job_takes_about_a_minute_within_4096_to_16384_rows(rate, rows):
    assert rows_of_part(size(10_000_000), rate) == rows


def test_wide_features_make_smaller_parts_so_that_a_worker_can_hold_one():
    assert rows_of_part(size(10_000_000, row_bytes=12_000), 5000.0) == 8192
    assert rows_of_part(size(10_000_000, row_bytes=1_000_000), 5000.0) == 4096


def test_small_job_is_cut_into_whole_batches_so_that_every_worker_gets_some():
    assert rows_of_part(size(1000), None) == 64
    assert rows_of_part(size(10_000), None) == 640
    assert rows_of_part(size(1), None) == 64
    assert rows_of_part(size(16 * 5000), 5000.0) == 4096


@pytest.mark.parametrize("n_rows", [1, 100, 4096, 4097, 20_000, 200_000])
@pytest.mark.parametrize("part_rows", [48, 640, 4096, 16384])
def test_parts_follow_each_other_and_begin_batches_where_one_process_does(n_rows, part_rows):
    parts = list(cut(range(n_rows), lambda: part_rows))

    assert [row for part in parts for row in (part.start, part.stop)][1:-1] == [
        row for part in parts[1:] for row in (part.start, part.start)
    ]
    assert (parts[0].start, parts[-1].stop) == (0, n_rows)
    assert all(part.start % CHUNK_ROWS % part_rows == 0 for part in parts if part_rows <= CHUNK_ROWS)


@pytest.mark.parametrize("n_rows", [0, 1, 24, 5000, 500_000])
@pytest.mark.parametrize("n", [1, 3, 100])
def test_shards_are_all_rows_once_and_about_equal(n_rows, n):
    shards = [rows_of_shard(n_rows, (i, n), 64) for i in range(1, n + 1)]

    assert [row for shard in shards for row in shard] == list(range(n_rows))
    assert max(map(len, shards)) - min(map(len, shards)) <= (CHUNK_ROWS if n_rows >= n * CHUNK_ROWS else 64)


@pytest.mark.parametrize("shard", [(0, 3), (4, 3), (1, 0), (1,), "1/3"])
def test_shard_that_does_not_exist_is_named(shard):
    with pytest.raises(InvalidInputError, match="'shard' parameter"):
        rows_of_shard(100, shard, 8)


def test_pace_follows_what_the_last_parts_took():
    pace = Pace()
    pace.note(0, 3.0)
    assert pace.rate is None

    pace.note(1000, 10.0)
    pace.note(1000, 5.0)

    assert pace.rate == 150.0
