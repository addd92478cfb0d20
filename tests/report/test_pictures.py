from base64 import b64decode
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bottleneck.images import as_image_source
from bottleneck.report.pictures import MOST_BYTES, SIZES, TOTAL_BYTES, fair_share, picture


def mandelbrot(size: tuple[int, int]) -> Image.Image:
    return Image.effect_mandelbrot(size, (-2, -1, 1, 1), 50).convert("RGB")


def decoded(text: str) -> Image.Image:
    return Image.open(BytesIO(b64decode(text, validate=True)))


@pytest.mark.parametrize("size", [(20, 20), (400, 100), (100, 400), (2000, 1), (256, 256)])
def test_picture_is_a_small_webp_in_the_shape_of_the_image(size: tuple[int, int]):
    found = decoded(picture(as_image_source([mandelbrot(size)]), 0, most_bytes=MOST_BYTES))

    shrink = min(1.0, SIZES[0][0] / max(size))
    assert found.format == "WEBP"
    assert found.size == tuple(max(1, round(side * shrink)) for side in size)


def test_picture_shows_the_image_of_its_row():
    shades = np.repeat(np.array([0, 120, 250], np.uint8), 64 * 3).reshape(3, 8, 8, 3)

    found = [
        np.asarray(decoded(picture(as_image_source(shades), row, most_bytes=MOST_BYTES))).mean() for row in (0, 1, 2)
    ]

    assert found == pytest.approx([0, 120, 250], abs=2)


def test_an_image_that_is_hard_to_compress_becomes_smaller_rather_than_too_large():
    noise = np.random.RandomState(0).randint(0, 256, size=(1, 300, 300, 3)).astype(np.uint8)

    found = picture(as_image_source(noise), 0, most_bytes=4000)

    assert len(found) <= 4000
    assert max(decoded(found).size) < 160


def test_pictures_of_any_number_of_images_stay_within_their_total():
    noise = np.random.RandomState(0).randint(0, 256, size=(1, 300, 300, 3)).astype(np.uint8)
    source = as_image_source(noise)

    for n in (1, 100, 600, 2000, 3000):
        assert n * len(picture(source, 0, most_bytes=fair_share(n))) <= TOTAL_BYTES


def test_few_pictures_are_not_blown_up():
    assert fair_share(1) == fair_share(10) == MOST_BYTES


def test_a_file_that_is_gone_has_no_picture(tmp_path: Path):
    path = tmp_path / "photo.png"
    mandelbrot((20, 20)).save(path)
    source = as_image_source([path])
    path.unlink()

    assert picture(source, 0, most_bytes=MOST_BYTES) == ""
