from base64 import b64decode
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bottleneck.images import ImageSource, as_image_source
from bottleneck.report.evaluate import Evaluation
from bottleneck.report.mistakes import MOST_MISTAKES, SIDE, thumbnail, worst_mistakes


def evaluation_of(source: ImageSource, correct: list[bool], certainty: list[float]) -> Evaluation:
    return Evaluation(
        source=source,
        rows=np.arange(len(correct)),
        labels=("cat", "dog"),
        n_classes=2,
        true=np.zeros(len(correct), dtype=np.int64),
        predicted=np.array([0 if right else 1 for right in correct]),
        certainty=np.array(certainty),
        has_proba=True,
        unreadable=(),
    )


def pictures(*sizes: tuple[int, int]) -> list[Image.Image]:
    return [Image.effect_mandelbrot(size, (-2, -1, 1, 1), 50).convert("RGB") for size in sizes]


def decoded(uri: str) -> Image.Image:
    kind, _, data = uri.partition(",")
    assert kind == "data:image/jpeg;base64"
    return Image.open(BytesIO(b64decode(data, validate=True)))


def test_mistakes_come_by_falling_certainty():
    source = as_image_source(pictures(*[(20, 20)] * 4))

    mistakes = worst_mistakes(evaluation_of(source, [False, True, False, False], [0.6, 0.99, 0.9, 0.7]))

    assert [mistake.id for mistake in mistakes] == ["image 2", "image 3", "image 0"]
    assert {(mistake.true, mistake.predicted) for mistake in mistakes} == {("cat", "dog")}


def test_mistakes_are_at_most_a_screen_full():
    source = as_image_source(np.zeros((60, 8, 8, 3), np.uint8))

    assert len(worst_mistakes(evaluation_of(source, [False] * 60, [0.5] * 60))) == MOST_MISTAKES


@pytest.mark.parametrize("size", [(20, 20), (400, 100), (100, 400), (2000, 1), (96, 96)])
def test_thumbnail_is_a_small_jpeg_in_the_shape_of_the_image(size: tuple[int, int]):
    found = decoded(thumbnail(as_image_source(pictures(size)), 0))

    shrink = min(1.0, SIDE / max(size))
    assert found.format == "JPEG"
    assert found.size == tuple(max(1, round(side * shrink)) for side in size)


def test_thumbnail_shows_the_image_of_its_row():
    shades = np.repeat(np.array([0, 120, 250], np.uint8), 64 * 3).reshape(3, 8, 8, 3)

    found = [np.asarray(decoded(thumbnail(as_image_source(shades), row))).mean() for row in range(3)]

    assert found == pytest.approx([0, 120, 250], abs=2)


def test_a_file_that_is_gone_has_no_thumbnail(tmp_path: Path):
    path = tmp_path / "photo.png"
    pictures((20, 20))[0].save(path)
    source = as_image_source([path])
    path.unlink()

    assert thumbnail(source, 0) == ""
