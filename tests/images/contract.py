"""What every image source promises; test classes inherit it and give a source and the pixels it should have."""

import pickle

import numpy as np
import pytest

from bottleneck.images import FileStat, ImageSource, as_image_source, content_key, decode, load_batches, subset

from .samples import Pixels, no_preprocess


class SourceContract:
    @pytest.fixture
    def expected(self) -> list[Pixels]:
        """Return the pixels of each image, (h, w, 3), all of one shape."""
        raise NotImplementedError

    @pytest.fixture
    def source(self) -> ImageSource:
        """Return the source over the same images."""
        raise NotImplementedError

    def test_length_and_ids_agree(self, source: ImageSource, expected: list[Pixels]) -> None:
        assert isinstance(source, ImageSource)
        assert len(source) == len(source.ids) == len(expected)
        assert all(isinstance(name, str) for name in source.ids)
        assert len(set(source.ids)) == len(expected)

    def test_reading_gives_the_original_pixels(self, source: ImageSource, expected: list[Pixels]) -> None:
        for row, pixels in enumerate(expected):
            np.testing.assert_array_equal(np.asarray(decode(source.read(row))), pixels)

    def test_reading_twice_gives_the_same_key(self, source: ImageSource) -> None:
        assert content_key(source.read(1)) == content_key(source.read(1))
        assert content_key(source.read(0)) != content_key(source.read(1))

    def test_stat_is_of_a_file_or_none(self, source: ImageSource) -> None:
        assert source.stat(0) is None or isinstance(source.stat(0), FileStat)

    def test_subset_takes_rows_in_the_order_given(self, source: ImageSource, expected: list[Pixels]) -> None:
        view = subset(source, [2, 0])

        assert list(view.ids) == [source.ids[2], source.ids[0]]
        np.testing.assert_array_equal(np.asarray(decode(view.read(0))), expected[2])
        np.testing.assert_array_equal(np.asarray(decode(subset(view, [1]).read(0))), expected[0])
        assert view.stat(1) == source.stat(0)

    def test_a_source_passes_through(self, source: ImageSource) -> None:
        assert as_image_source(source) is source

    def test_threads_change_nothing(self, source: ImageSource, expected: list[Pixels]) -> None:
        rows = [0, 1, 2, 1, 1, 0, 2, 2] * 4

        for workers in (0, 4):
            batches = load_batches(source, rows, preprocess=no_preprocess, batch_size=len(rows), workers=workers)
            (batch,) = batches
            np.testing.assert_array_equal(batch.rows, rows)
            np.testing.assert_array_equal(batch.pixels, np.stack(expected)[rows].transpose(0, 3, 1, 2))

    def test_it_travels_to_other_processes(self, source: ImageSource) -> None:
        copy = pickle.loads(pickle.dumps(source))

        assert list(copy.ids) == list(source.ids)
        assert content_key(copy.read(0)) == content_key(source.read(0))
