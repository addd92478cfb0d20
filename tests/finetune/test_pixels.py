import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from bottleneck.backbones import Preprocess
from bottleneck.errors import UnreadableImagesError
from bottleneck.extraction import ExtractionSettings, Extractor
from bottleneck.finetune.pixels import (
    DecodedPixels,
    StreamedPixels,
    open_both,
    with_room_to_crop,
)
from bottleneck.images import as_image_source

PLENTY = 10**9
ROOMY_BYTES, EXACT_BYTES = 9 * 3 * 10 * 10, 9 * 3 * 8 * 8


def make_preprocess(resize, crop=(8, 8)) -> Preprocess:
    return Preprocess(resize=resize, crop=crop, mean=(0.5,) * 3, std=(0.5,) * 3)


def open_all(paths, backbone, *, resize: int = 10, memory_limit: int | None = PLENTY, **options: object):
    backbone = dataclasses.replace(backbone, preprocess=make_preprocess(resize))
    return open_both(as_image_source(paths), backbone, workers=0, memory_limit=memory_limit, **options)


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    rng = np.random.default_rng(0)
    paths = [tmp_path / f"{number}.png" for number in range(9)]
    for path in paths:
        Image.fromarray(rng.integers(0, 255, (15, 23, 3), dtype=np.uint8)).save(path)
    return paths


@pytest.mark.parametrize("memory_limit, kind", [(PLENTY, DecodedPixels), (0, StreamedPixels)])
def test_images_are_the_same_in_memory_and_from_disk_and_come_in_the_order_asked_for(
    paths, backbone, memory_limit, kind
):
    rows = np.array([5, 0, 7, 7, 2])

    both = open_all(paths, backbone, memory_limit=memory_limit)

    for pixels, preprocess in zip(both, (make_preprocess(10, (10, 10)), make_preprocess(10)), strict=True):
        batches = list(pixels.batches(rows, batch_size=2))
        assert isinstance(pixels, kind)
        assert [len(batch) for batch in batches] == [2, 2, 1]
        expected = np.stack([preprocess(Image.open(paths[row])) for row in rows])
        assert torch.equal(torch.cat(batches), torch.from_numpy(expected))


def test_images_are_decoded_as_for_extraction(tmp_path, backbone):
    """A large JPEG is decoded at a fraction of its size, in both places alike."""
    path = tmp_path / "large.jpg"
    noise = np.random.default_rng(0).integers(0, 255, (600, 800, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    backbone = dataclasses.replace(backbone, preprocess=make_preprocess(10))
    extractor = Extractor(backbone, ExtractionSettings(device="cpu"))
    (extracted,) = extractor.extract(as_image_source([path]), [0], precision="float32")

    _, exact = open_both(as_image_source([path]), backbone, workers=0)

    (pixels,) = exact.batches(np.array([0]), batch_size=1)
    features = backbone.forward_layers(pixels)["penultimate"].numpy()
    np.testing.assert_allclose(features, extracted.layers["penultimate"], atol=1e-5)


def test_images_without_a_margin_are_decoded_once(paths, backbone):
    events = []

    roomy, exact = open_all(paths, backbone, resize=8, progress=events.append)

    assert roomy is exact
    assert [(event.stage, event.done, event.total) for event in events] == [("decoding images", 9, 9)]


@pytest.mark.parametrize(
    "resize, crop, room",
    [
        (256, (224, 224), (256, 256)),
        (224, (224, 224), (224, 224)),
        (32, (48, 48), (48, 48)),
        ((40, 60), (32, 48), (40, 60)),
        (None, (32, 32), (32, 32)),
    ],
)
def test_room_to_crop_is_the_resized_side(resize, crop, room):
    assert with_room_to_crop(make_preprocess(resize, crop)).crop == room


@pytest.mark.parametrize(
    "memory_limit, kinds",
    [
        (ROOMY_BYTES + EXACT_BYTES, (DecodedPixels, DecodedPixels)),
        (ROOMY_BYTES + EXACT_BYTES - 1, (DecodedPixels, StreamedPixels)),
        (ROOMY_BYTES - 1, (StreamedPixels, StreamedPixels)),
    ],
)
def test_memory_goes_to_the_images_of_every_epoch_first(paths, backbone, memory_limit, kinds):
    assert tuple(map(type, open_all(paths, backbone, memory_limit=memory_limit))) == kinds


@pytest.mark.parametrize("memory_limit", [0, PLENTY])
def test_unreadable_image_is_an_error_that_names_it(paths, backbone, memory_limit):
    paths[3].write_bytes(b"no image")

    with pytest.raises(UnreadableImagesError, match=r"3\.png"):
        list(open_all(paths, backbone, memory_limit=memory_limit)[0].batches(np.arange(9), batch_size=4))
