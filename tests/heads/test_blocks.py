"""Blocks are read whole, in order and in single precision, and only what does not fit in memory is read in blocks."""

import pickle
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from bottleneck.errors import InvalidInputError
from bottleneck.heads.blocks import (
    BLOCK_ROWS,
    ArrayBlocks,
    BlockReader,
    FeatureBlocks,
    RowBlocks,
    RowsOfBlocks,
    is_blocks,
    load_blocks,
    needs_streaming,
    streamed,
)


@dataclass
class Shards:
    """Features as a cache holds them: shards of different lengths."""

    features: np.ndarray
    ends: tuple[int, ...] = (3, 4, 20)
    claimed: int | None = None

    @property
    def n_samples(self) -> int:
        return self.claimed or len(self.features)

    @property
    def n_features(self) -> int:
        return self.features.shape[1]

    def __iter__(self) -> Iterator[np.ndarray]:
        yield from (part for part in np.split(self.features, self.ends) if len(part))


@pytest.fixture
def features() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((23, 5)).astype(np.float16)


@pytest.mark.parametrize("n_rows", [1, 4, 100])
def test_rows_come_in_order_and_in_single_precision(n_rows: int, features: np.ndarray) -> None:
    reader = BlockReader(Shards(features))

    read = list(reader.read(n_rows=n_rows))

    assert all(rows.dtype == np.float32 and len(rows) <= n_rows for _, rows in read)
    assert (np.concatenate([rows for _, rows in read]) == features).all()
    assert (np.concatenate([np.arange(23)[at] for at, _ in read]) == np.arange(23)).all()
    assert reader.n_passes == 1


def test_rows_come_in_unit_length_if_asked_for(features: np.ndarray) -> None:
    rows = np.concatenate([rows for _, rows in BlockReader(Shards(features)).read("l2")])

    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, rtol=1e-6)


def test_rows_by_number_come_in_the_order_asked_for(features: np.ndarray) -> None:
    view = RowsOfBlocks(BlockReader(Shards(features)), np.arange(1, 23, 2))

    assert view.shape == (11, 5)
    assert (view[np.array([7, 0, 10])] == features[[15, 1, 21]]).all()


@pytest.mark.parametrize("claimed", [22, 24])
def test_blocks_that_lie_about_their_rows_are_refused(claimed: int, features: np.ndarray) -> None:
    with pytest.raises(InvalidInputError, match=f"have 23 rows in all, but their n_samples is {claimed}"):
        list(BlockReader(Shards(features, claimed=claimed)).read())


def test_blocks_of_another_width_are_refused(features: np.ndarray) -> None:
    class Ragged(Shards):
        def __iter__(self) -> Iterator[np.ndarray]:
            yield from (self.features[:3], self.features[3:, :4])

    with pytest.raises(InvalidInputError, match=r"needs 5 columns. One has the shape \(20, 4\)"):
        list(BlockReader(Ragged(features)).read())


def test_what_fits_is_loaded_and_what_does_not_is_streamed(features: np.ndarray) -> None:
    assert not needs_streaming(1000, 100, limit=1e7)
    assert needs_streaming(1000, 100, limit=1e6)
    assert streamed(features, 10**6) is None
    assert isinstance(streamed(features, 100), ArrayBlocks)
    assert streamed(Shards(features), "auto") is None
    assert streamed(Shards(features), 0) is not None
    assert streamed(features.tolist(), 0) is None
    assert (load_blocks(Shards(features)) == features).all()


def test_arrays_are_no_blocks(features: np.ndarray) -> None:
    assert is_blocks(Shards(features))
    assert isinstance(ArrayBlocks(features), FeatureBlocks)
    assert not is_blocks(features)
    assert not is_blocks([[1.0]])


@pytest.mark.parametrize("mode", ["r", "r+", "c"])
def test_letting_go_of_a_memory_map_loses_no_change(mode: str, features: np.ndarray, tmp_path: Path) -> None:
    np.save(tmp_path / "features.npy", features)
    mapped = np.load(tmp_path / "features.npy", mmap_mode=mode)
    if mode != "r":
        mapped[7] = 9
        features[7] = 9

    read = [np.array(block) for _ in range(2) for block in ArrayBlocks(mapped[2:], n_rows=4)]

    assert (np.concatenate(read) == np.tile(features[2:], (2, 1))).all()


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_missing_features_are_refused(wrong: float, features: np.ndarray) -> None:
    features[12, 3] = wrong

    with pytest.raises(InvalidInputError, match="must not be missing or infinite"):
        list(BlockReader(Shards(features)).read("l2"))


def test_some_rows_are_blocks_again_and_only_these_are_read(features: np.ndarray) -> None:
    reader = BlockReader(ArrayBlocks(features))

    view = RowsOfBlocks(reader, np.arange(1, 23, 2))

    assert isinstance(reader.blocks, RowBlocks)
    assert (load_blocks(reader.blocks.take(slice(3, 9))) == features[3:9]).all()
    assert (view[np.array([7, 0, 10])] == features[[15, 1, 21]]).all()
    assert reader.n_passes == 0


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("mode", ["r", "r+", "c"])
def test_pickled_rows_of_a_memory_map_are_where_they_are_in_the_file(
    mode: str, order: str, features: np.ndarray, tmp_path: Path
) -> None:
    features = np.repeat(features, 20, axis=0)
    np.save(tmp_path / "features.npy", np.asarray(features, order=order))
    mapped = np.load(tmp_path / "features.npy", mmap_mode=mode)
    if mode == "c":
        mapped[9] = features[9] = 3

    pickled = pickle.dumps(ArrayBlocks(mapped[5:], n_rows=4).take(slice(2, 203)))

    assert (load_blocks(pickle.loads(pickled)) == features[7:208]).all()
    assert (len(pickled) < 1000) == (mode != "c" and order == "C")
    assert (load_blocks(pickle.loads(pickle.dumps(ArrayBlocks(features)))) == features).all()


def sums(reader: BlockReader, weights: np.ndarray, factor: float) -> tuple[int, np.ndarray]:
    return reader.n_samples, sum(factor * weights[at] @ rows for at, rows in reader.read())


@pytest.mark.parametrize("n_jobs", [None, 1])
def test_a_pass_goes_over_spans_of_rows_in_order(n_jobs: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bottleneck.heads.blocks.SPAN_BYTES", 1)
    features, weights = np.random.default_rng(0).standard_normal((5000, 3)), np.arange(5000.0)
    reader = BlockReader(ArrayBlocks(features), n_jobs=n_jobs)

    found = list(reader.map(sums, weights, shared=(2.0,)))

    assert [n for n, _ in found] == [BLOCK_ROWS, BLOCK_ROWS, 5000 - 2 * BLOCK_ROWS]
    np.testing.assert_allclose(sum(total for _, total in found), 2 * weights @ features)
    assert reader.n_passes == 1
    assert (reader.first_row() == features[0]).all()


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_missing_features_are_found_by_whoever_reads_them_first(wrong: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bottleneck.heads.blocks.SPAN_BYTES", 1)
    features = np.zeros((5000, 3))
    features[4000, 1] = wrong

    with pytest.raises(InvalidInputError, match="must not be missing or infinite"):
        list(BlockReader(ArrayBlocks(features)).map(sums, np.ones(5000), shared=(1.0,)))


def test_blocks_in_order_are_one_span(features: np.ndarray) -> None:
    ((n_samples, total),) = BlockReader(Shards(features)).map(sums, np.ones(23), shared=(1.0,))

    assert n_samples == 23
    np.testing.assert_allclose(total, features.astype(float).sum(axis=0), rtol=1e-5, atol=1e-5)
