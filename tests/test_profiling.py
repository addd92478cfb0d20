"""Measured rates predict what a pass takes."""

import time

import numpy as np
import pytest
import torch
from torch import nn

from bottleneck.backbones import load_backbone
from bottleneck.cache import FeatureCache
from bottleneck.errors import UnreadableImagesError
from bottleneck.extraction import ExtractionSettings, Extractor, using_threads
from bottleneck.features import compute_features
from bottleneck.images import as_image_source
from bottleneck.profiling import measure_rates, profile_run
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


LEARNED_FROM: list[int] = []


class Counting(nn.Conv2d):
    """A layer that notes how many images it learns from at once."""

    def forward(self, images):
        if torch.is_grad_enabled():
            LEARNED_FROM.append(len(images))
        return super().forward(images)


def test_step_is_timed_on_as_many_images_as_it_will_have(tiny_backbone):
    network = nn.Sequential(Counting(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    extractor = Extractor(load_backbone(network, preprocess=tiny_backbone.preprocess), ExtractionSettings(device="cpu"))
    LEARNED_FROM.clear()

    measure_rates(as_image_source(coloured_images(64)[0]), extractor, precision="float32")

    assert max(LEARNED_FROM) == 32


def test_what_was_timed_with_other_groups_frozen_is_timed_again(tiny_backbone, tmp_path):
    images, labels = coloured_images(12)
    extractor, cache = Extractor(tiny_backbone, ExtractionSettings(device="cpu")), FeatureCache(tmp_path)
    given = (as_image_source(images), labels, extractor, cache)
    compute_features(given[0], extractor, cache, precision="float32")

    all_learn, frozen, *once_more = (
        profile_run(*given, precision="float32", freeze_groups=n_frozen)[1] for n_frozen in (0, 1, 0, 1)
    )

    assert frozen.train_bytes_per_image < all_learn.train_bytes_per_image
    assert once_more == [all_learn, frozen]


def test_a_guessed_step_is_not_remembered(tiny_backbone, tmp_path):
    images, labels = coloured_images(12)
    extractor, cache = Extractor(tiny_backbone, ExtractionSettings(device="cpu")), FeatureCache(tmp_path)
    given = (as_image_source(images), labels, extractor, cache)
    compute_features(given[0], extractor, cache, precision="float32")

    _, guessed = profile_run(*given, precision="float32", memory_limit=1)
    _, measured = profile_run(*given, precision="float32")
    _, remembered = profile_run(*given, precision="float32", memory_limit=1)

    assert guessed.guessed
    assert not measured.guessed
    assert remembered == measured


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
