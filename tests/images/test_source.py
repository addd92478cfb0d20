from pathlib import Path

import numpy as np
import pytest

from bottleneck.images import ImageSource, as_image_source, subset
from bottleneck.images.source import RowNames, SubsetSource

from .contract import SourceContract
from .samples import Pixels, picture, pictures_source, write_pictures


class TestSubsetSource(SourceContract):
    @pytest.fixture
    def expected(self) -> list[Pixels]:
        return [picture(seed) for seed in (4, 0, 3)]

    @pytest.fixture
    def source(self, tmp_path: Path) -> ImageSource:
        paths = write_pictures(tmp_path, [f"{i}.png" for i in range(5)])
        return subset(as_image_source(paths), [4, 0, 3])


@pytest.mark.parametrize("rows", [[0, 3], [-1], [0.5], [True, False, True]])
def test_rows_outside_of_the_source_are_refused(rows: list[int]) -> None:
    with pytest.raises(IndexError, match="integers from 0 to 2"):
        subset(pictures_source(3), rows)


def test_a_subset_may_be_empty() -> None:
    assert len(subset(pictures_source(3), [])) == 0


def test_subsets_of_subsets_stay_one_look_up_deep() -> None:
    source = pictures_source(9)

    view = subset(subset(subset(source, np.arange(8)), np.arange(1, 8)), [3, 2])

    assert isinstance(view, SubsetSource)
    assert view.source is source
    np.testing.assert_array_equal(view.rows, [4, 3])


def test_row_names_behave_like_a_list() -> None:
    names = RowNames(range(3))

    assert list(names) == ["image 0", "image 1", "image 2"]
    assert names[-1] == "image 2"
    assert list(names[1:]) == ["image 1", "image 2"]
    assert "image 1" in names
