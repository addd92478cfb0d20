"""The tasks that planners are proved on: deterministic, with exact labels, and test images that nothing learns from."""

import numpy as np
import pytest

from tests.benchmarks import planner_pictures as pictures
from tests.benchmarks.planner_tasks import TASKS, draw, kind_of, take

MAKERS = (pictures.turned, pictures.hues, pictures.gratings, pictures.places, pictures.counts)


def flat_photographs(n: int, level: int = 128) -> np.ndarray:
    return np.full((n, 64, 64, 3), level, dtype=np.uint8)


@pytest.mark.parametrize("make", MAKERS)
def test_pictures_are_the_same_every_time(make):
    photographs = np.random.default_rng(0).integers(0, 256, (12, 64, 64, 3), dtype=np.uint8)

    first, second = (make(photographs, np.random.default_rng(7)) for _ in range(2))

    np.testing.assert_array_equal(first[0], second[0])
    np.testing.assert_array_equal(first[1], second[1])
    assert first[0].shape == photographs.shape
    assert first[0].dtype == np.uint8


def test_turned_photographs_turn_back_by_their_labels():
    photographs = np.random.default_rng(0).integers(0, 256, (8, 64, 64, 3), dtype=np.uint8)

    turned, labels = pictures.turned(photographs, np.random.default_rng(1))

    quarters = [int(label.split()[0]) // 90 for label in labels]
    back = [np.rot90(picture, -quarter) for picture, quarter in zip(turned, quarters, strict=True)]
    np.testing.assert_array_equal(np.stack(back), photographs)


def test_shapes_lie_where_their_label_says():
    made, labels = pictures.places(flat_photographs(60), np.random.default_rng(2))

    for picture, label in zip(made, labels, strict=True):
        y, x = np.nonzero((picture != 128).any(axis=-1))
        cell = int(3 * y.mean() / 64) * 3 + int(3 * x.mean() / 64)
        assert label == f"place {cell}"


def test_as_many_shapes_as_the_label_says():
    from scipy.ndimage import label as label_regions

    made, labels = pictures.counts(flat_photographs(60), np.random.default_rng(3))

    for picture, label in zip(made, labels, strict=True):
        background = picture[0, 0].astype(int)
        differs = (abs(picture.astype(int) - background) > 2).any(axis=-1)
        assert label == f"{label_regions(differs, np.ones((3, 3)))[1]} shapes"


def test_hue_of_the_shape_is_the_label():
    from matplotlib.colors import rgb_to_hsv

    made, labels = pictures.hues(flat_photographs(40), np.random.default_rng(4))

    for picture, label in zip(made, labels, strict=True):
        coloured = picture[(picture != 128).any(axis=-1)] / 255
        hue = rgb_to_hsv(np.median(coloured, axis=0))[0]
        assert label == f"hue {round(8 * hue) % 8}"


def test_a_draw_has_two_of_every_class_and_no_row_twice():
    labels = np.repeat(np.arange(12), [2, 3, 5, 40, 40, 40, 40, 40, 40, 40, 40, 40])

    rows = draw(labels, 40, seed=0)

    assert rows is not None
    assert len(np.unique(rows)) == 40
    assert np.bincount(labels[rows], minlength=12).min() >= 2
    np.testing.assert_array_equal(rows, draw(labels, 40, seed=0))
    assert (np.sort(rows) != np.sort(draw(labels, 40, seed=1))).any()


@pytest.mark.parametrize("n", [23, 1000])
def test_what_cannot_be_drawn_is_no_cell(n):
    assert draw(np.repeat(np.arange(12), 5), n, seed=0) is None


def test_kinds_are_those_of_wordnet():
    assert kind_of("n02099601") == "dog"  # golden retriever
    assert kind_of("n02123045") == "cat"  # tabby
    assert kind_of("n04487081") == "vehicle"  # trolleybus
    assert kind_of("n07753592") == "food"  # banana
    assert kind_of("n03649909") == ""  # lawn mower


@pytest.mark.shared
@pytest.mark.parametrize("name", ["dtd10", "hymenoptera", "digits", "tiny_fine", "tiny_kinds"])
def test_no_test_image_is_in_the_pool(name, shared):
    images = TASKS[name].read(shared)

    def key(image: object) -> object:
        return image.tobytes() if isinstance(image, np.ndarray) else image

    pool, test = ({key(image) for image in part} for part in (images.pool, images.test))
    assert not pool & test
    assert len(images.pool) == len(images.labels)
    assert set(images.test_labels) == set(images.labels)
    assert len(take(images.pool, np.array([3, 1]))) == 2
