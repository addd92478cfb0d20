from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from bottleneck.errors import InvalidInputError
from bottleneck.images import ImageReadError, ImageSource, as_image_source, decode, load_batches

from .contract import SourceContract
from .samples import Pixels, encode, no_preprocess, picture, write_pictures

PICTURES = [picture(seed) for seed in range(3)]


class ItemContract(SourceContract):
    @pytest.fixture
    def expected(self) -> list[Pixels]:
        return PICTURES


class TestPillowImages(ItemContract):
    @pytest.fixture
    def source(self) -> ImageSource:
        return as_image_source([Image.fromarray(pixels) for pixels in PICTURES])


class TestBytes(ItemContract):
    @pytest.fixture
    def source(self) -> ImageSource:
        return as_image_source([encode(PICTURES[0]), bytearray(encode(PICTURES[1])), encode(PICTURES[2], "BMP")])


class TestArraysAndTensors(ItemContract):
    @pytest.fixture
    def source(self) -> ImageSource:
        first, second, third = PICTURES
        return as_image_source([first, torch.from_numpy(second).permute(2, 0, 1), third / 255])


class TestMixed(ItemContract):
    @pytest.fixture
    def source(self, tmp_path: Path) -> ImageSource:
        (path,) = write_pictures(tmp_path, ["a.png"])
        record = {"bytes": encode(PICTURES[1]), "path": "gone.png"}
        return as_image_source([Path(path), record, Image.fromarray(PICTURES[2])])

    def test_ids_are_paths_where_there_are_paths(self, source: ImageSource, tmp_path: Path) -> None:
        assert list(source.ids) == [str(tmp_path / "a.png"), "image 1", "image 2"]


def test_a_pillow_image_gives_the_pixels_of_its_file(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / "a.png"
    path.write_bytes(encode(Image.fromarray(PICTURES[0]).convert("RGBA"), exif=exif))

    with Image.open(path) as image:
        from_image = decode(as_image_source([image]).read(0))

    np.testing.assert_array_equal(np.asarray(from_image), np.asarray(decode(path.read_bytes())))
    assert from_image.size == (12, 17)


def test_one_lazily_opened_image_bears_many_threads(tmp_path: Path) -> None:
    (path,) = write_pictures(tmp_path, ["a.png"])

    with Image.open(path) as image:
        source = as_image_source([image])
        (batch,) = load_batches(source, [0] * 32, preprocess=no_preprocess, batch_size=32, workers=8)

    assert not batch.failures
    assert (batch.pixels == PICTURES[0].transpose(2, 0, 1)).all()


def test_a_closed_or_damaged_pillow_image_is_an_error_of_that_image(tmp_path: Path) -> None:
    data = encode(PICTURES[0])
    path = tmp_path / "cut.png"
    path.write_bytes(data[: len(data) // 2])
    closed = Image.open(path)
    closed.close()

    for image in (closed, Image.open(path)):
        with image, pytest.raises(ImageReadError, match="damaged image"):
            as_image_source([image]).read(0)


def test_records_without_bytes_read_their_path(tmp_path: Path) -> None:
    (path,) = write_pictures(tmp_path, ["a.png"])

    source = as_image_source([{"bytes": None, "path": path}])

    np.testing.assert_array_equal(np.asarray(decode(source.read(0))), PICTURES[0])


@pytest.mark.parametrize(
    "item", [{"bytes": None, "path": None}, {"file": "a.png"}, np.zeros(5), torch.zeros(2, 2, 2, 2)]
)
def test_items_that_turn_out_to_be_no_image_fail_when_read(item: object) -> None:
    with pytest.raises(ImageReadError):
        as_image_source([PICTURES[0], item]).read(1)


def test_half_precision_tensors_are_images() -> None:
    source = as_image_source([torch.ones(3, 5, 6, dtype=torch.bfloat16)])

    assert (source.read(0) == 255).all()


def test_every_item_that_is_no_image_is_named() -> None:
    with pytest.raises(InvalidInputError) as error:
        as_image_source(["a.png", None, "b.png", float("nan"), 7, ("c.png", 1)])

    for problem in ("row 1: None", "row 3: nan", "row 4: an object of type int", "row 5: an object of type tuple"):
        assert problem in str(error.value)
    assert "row 0" not in str(error.value)
