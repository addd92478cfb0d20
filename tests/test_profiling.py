"""Measured rates predict what a pass takes."""

import time

import numpy as np
import pytest
import torch
from torch import nn

from bottleneck.backbones import load_backbone
from bottleneck.errors import UnreadableImagesError
from bottleneck.extraction import ExtractionSettings, Extractor, using_threads
from bottleneck.finetune.step_cost import fastest_threads
from bottleneck.images import as_image_source
from bottleneck.profiling import measure_rates
from bottleneck.timing import seconds_per_image
from tests.conftest import coloured_images
from tests.images.samples import encode


@pytest.fixture(autouse=True)
def _two_threads():
    with using_threads(2):
        yield


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_pass_takes_about_what_its_rates_say(tiny_backbone, workers):
    class Slow(Extractor):
        """A network that takes 4 ms an image."""

        def _forward_once(self, pixels, precision):
            time.sleep(0.004 * len(pixels))
            return super()._forward_once(pixels, precision)

    source = as_image_source(coloured_images(160)[0])
    extractor = Slow(tiny_backbone, ExtractionSettings(device="cpu", workers=workers, batch_size=8))

    rates = measure_rates(source, extractor, precision="float32")

    began = time.perf_counter()
    rows = np.concatenate([batch.rows for batch in extractor.extract(source, range(160), precision="float32")])
    seconds = time.perf_counter() - began
    predicted = len(rows) * (rates.decode_seconds_per_image + rates.forward_seconds_per_image)
    assert seconds / 3 < predicted < seconds * 3
    assert 0.001 < rates.forward_seconds_per_image < 0.02


def test_rate_is_that_of_batches_whatever_a_call_costs():
    pixels = np.zeros((32, 3, 8, 8), np.uint8)

    def work(part):
        time.sleep(0.15 + 0.0005 * len(part))  # one image alone takes 300 times its share

    assert 0.005 < seconds_per_image(work, pixels) < 0.05


@pytest.mark.parametrize("faster", [1, 2])
@pytest.mark.parametrize(("an_image", "told_by"), [(0.05, 1), (0.01, 4), (0.0001, 32)])
def test_the_fastest_number_of_threads_is_told_by_no_more_images_than_it_takes(faster, an_image, told_by):
    sizes = []

    def step(part):
        sizes.append(len(part))
        time.sleep(an_image * len(part) * (1 if torch.get_num_threads() == faster else 2))

    threads, timed = fastest_threads(step, np.zeros((32, 3, 8, 8), np.uint8))

    assert (threads, timed.n_images) == (faster, told_by)
    assert max(sizes) == told_by


LEARNED_FROM: list[int] = []


class Counting(nn.Conv2d):
    """A layer that notes how many images it learns from at once."""

    def forward(self, images):
        if torch.is_grad_enabled():
            LEARNED_FROM.append(len(images))
        return super().forward(images)


@pytest.mark.parametrize("limit", [None, 20_000_000])
def test_step_is_timed_on_as_many_images_as_it_will_have(tiny_backbone, limit):
    network = nn.Sequential(Counting(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    extractor = Extractor(
        load_backbone(network, preprocess=tiny_backbone.preprocess),
        ExtractionSettings(device="cpu", memory_limit=limit),
    )
    LEARNED_FROM.clear()

    measure_rates(as_image_source(coloured_images(64)[0]), extractor, precision="float32", memory_limit=limit)

    assert max(LEARNED_FROM) == 32


def test_one_readable_image_gives_rates(tiny_backbone):
    """Wherever it is: the sample takes every other image of so many, and this one is between."""
    images = [b"no image"] * 64
    images[33] = encode(coloured_images(1)[0][0])
    extractor = Extractor(tiny_backbone, ExtractionSettings(device="cpu"))

    assert measure_rates(as_image_source(images), extractor, precision="float32").forward_seconds_per_image > 0


def test_no_readable_image_is_an_error_that_names_them_all(tiny_backbone):
    source = as_image_source([b"no image"] * 5)
    extractor = Extractor(tiny_backbone, ExtractionSettings(device="cpu"))

    with pytest.raises(UnreadableImagesError, match="None of the 5 images can be read") as raised:
        measure_rates(source, extractor, precision="float32")

    assert [failure.row for failure in raised.value.failures] == [0, 1, 2, 3, 4]
    assert "on_error" not in str(raised.value)
