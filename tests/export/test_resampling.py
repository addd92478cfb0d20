"""Resizing as arithmetic gives the pixels that ``Preprocess`` gives."""

import numpy as np
import pytest
import torch

from bottleneck import Preprocess
from bottleneck.errors import InvalidInputError
from bottleneck.export.resampling import ResizeAndCrop

HALF = (0.5, 0.5, 0.5)
SIZES = ((32, 32), (100, 77), (77, 100), (5, 9), (300, 200), (33, 64), (61, 300), (1, 2))


def both(preprocess: Preprocess, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    images = np.random.RandomState(height).randint(0, 256, (2, height, width, 3)).astype(np.uint8)
    arithmetic = ResizeAndCrop(preprocess)(torch.from_numpy(images)).numpy()
    return arithmetic, np.stack([preprocess(image) for image in images])


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("resize, crop", [(32, (32, 32)), (64, (56, 48)), ((40, 50), (61, 33)), (None, (31, 60))])
def test_pixels_are_the_same_to_the_last_bit(interpolation, resize, crop):
    preprocess = Preprocess(resize=resize, crop=crop, mean=HALF, std=HALF, interpolation=interpolation)

    for size in SIZES:
        ours, expected = both(preprocess, *size)

        np.testing.assert_array_equal(ours, expected)


@pytest.mark.parametrize("size", [(20, 700), (700, 15)])
def test_banner_that_pillow_resizes_in_part_is_within_one_grey_level(size):
    ours, expected = both(Preprocess(resize=32, crop=(32, 32), mean=HALF, std=HALF), *size)

    assert np.abs(ours - expected).max() <= 1
    assert (ours != expected).mean() < 0.02


def test_nearest_pixel_is_refused_where_it_would_matter():
    def preprocess(resize: int | None) -> Preprocess:
        return Preprocess(resize=resize, crop=(8, 8), mean=HALF, std=HALF, interpolation="nearest")

    with pytest.raises(InvalidInputError, match="'bilinear', 'bicubic'"):
        ResizeAndCrop(preprocess(8))
    ResizeAndCrop(preprocess(None))
