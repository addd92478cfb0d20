"""Features of batches, against the naive eager forward."""

import threading

import numpy as np
import pytest
import torch

from bottleneck.errors import InvalidInputError
from bottleneck.extraction import ExtractionSettings, Extractor, image_bytes
from bottleneck.extraction.threads import using_threads
from bottleneck.images import as_image_source
from tests.conftest import coloured_images

CPU = ExtractionSettings(device="cpu", precision="float32", workers=0)


def naive_features(backbone, images: np.ndarray) -> np.ndarray:
    """One image at a time through the untouched network."""
    from PIL import Image

    rows = []
    with torch.no_grad():
        for pixels in images:
            preprocessed = torch.from_numpy(backbone.preprocess(Image.fromarray(pixels)))[None]
            rows.append(backbone.network(backbone.preprocess.normalise(preprocessed))[0].numpy())
    return np.stack(rows)


def extract_all(backbone, images, settings=CPU) -> dict[str, np.ndarray]:
    extractor = Extractor(backbone, settings)
    source = as_image_source(images)
    batches = list(extractor.extract(source, range(len(source)), precision=extractor.candidate_precision))
    return {layer: np.concatenate([batch.layers[layer] for batch in batches]) for layer in batches[0].layers}


def test_features_equal_the_naive_forward_of_each_image_alone(tiny_backbone):
    images, _ = coloured_images(7)

    features = extract_all(tiny_backbone, images)["penultimate"]

    np.testing.assert_allclose(features, naive_features(tiny_backbone, images), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("settings", [{"batch_size": 1}, {"batch_size": 3}, {"workers": 3}])
def test_batches_and_threads_change_no_feature_beyond_rounding(tiny_backbone, settings):
    images, _ = coloured_images(10)

    features = extract_all(tiny_backbone, images, ExtractionSettings(device="cpu", precision="float32", **settings))

    for layer, expected in extract_all(tiny_backbone, images).items():
        np.testing.assert_allclose(features[layer], expected, rtol=1e-4, atol=1e-5)


@pytest.fixture
def _two_threads():
    with using_threads(2):
        yield


@pytest.mark.usefixtures("_two_threads")
@pytest.mark.parametrize("n_images", [1, 2, 7, 50])
def test_lanes_change_no_feature_beyond_rounding_nor_the_order(tiny_backbone, n_images):
    images = np.random.RandomState(0).randint(0, 256, size=(n_images, 16, 16, 3), dtype=np.uint8)
    in_lanes = ExtractionSettings(device="cpu", precision="float32", workers=2, batch_size=4)
    rows = np.random.RandomState(1).permutation(n_images)

    batches = list(Extractor(tiny_backbone, in_lanes).extract(as_image_source(images), rows, precision="float32"))

    features = np.concatenate([batch.layers["penultimate"] for batch in batches])
    assert np.concatenate([batch.rows for batch in batches]).tolist() == rows.tolist()
    np.testing.assert_allclose(features, naive_features(tiny_backbone, images[rows]), rtol=1e-4, atol=1e-5)


@pytest.mark.usefixtures("_two_threads")
def test_stopping_early_leaves_no_lane_running(tiny_backbone):
    images, _ = coloured_images(200)
    settings = ExtractionSettings(device="cpu", precision="float32", workers=2, batch_size=2)

    batches = Extractor(tiny_backbone, settings).extract(as_image_source(images), range(200), precision="float32")
    next(batches)
    batches.close()

    assert not [thread for thread in threading.enumerate() if thread.name.startswith("bottleneck")]


@pytest.mark.usefixtures("_two_threads")
@pytest.mark.parametrize("workers", ["auto", 0])
def test_no_more_images_than_the_memory_limit_allows_are_in_the_network_at_once(tiny_backbone, monkeypatch, workers):
    in_network, most = [0], [0]
    forward = Extractor._forward_once

    def counting(self, pixels, precision):
        with counted:
            in_network[0] += len(pixels)
            most[0] = max(most[0], in_network[0])
        found = forward(self, pixels, precision)
        with counted:
            in_network[0] -= len(pixels)
        return found

    counted = threading.Lock()
    monkeypatch.setattr(Extractor, "_forward_once", counting)
    images, _ = coloured_images(40)
    settings = ExtractionSettings(
        device="cpu", precision="float32", workers=workers, memory_limit=5 * image_bytes((16, 16))
    )

    features = extract_all(tiny_backbone, images, settings)
    whole = Extractor(tiny_backbone, settings).forward(np.zeros((12, 3, 16, 16), np.uint8), precision="float32")

    assert 1 <= most[0] <= 5
    assert len(whole["penultimate"]) == 12
    np.testing.assert_allclose(
        features["penultimate"], extract_all(tiny_backbone, images)["penultimate"], rtol=1e-3, atol=1e-4
    )


def test_bfloat16_keeps_nearly_the_direction_of_each_row(tiny_backbone):
    images, _ = coloured_images(8)
    extractor = Extractor(tiny_backbone, ExtractionSettings(device="cpu", precision="bfloat16", workers=0))
    (batch,) = extractor.extract(as_image_source(images), range(8), precision="bfloat16")
    exact = naive_features(tiny_backbone, images)

    features = batch.layers["penultimate"]

    cosines = (features * exact).sum(1) / np.linalg.norm(features, axis=1) / np.linalg.norm(exact, axis=1)
    assert not np.array_equal(features, exact.astype(np.float32))
    assert cosines.min() > 0.999


@pytest.mark.usefixtures("_two_threads")
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("as a device with room for two images would"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes."),
    ],
    ids=["device", "processor"],
)
def test_running_out_of_memory_halves_the_batch_and_goes_on(tiny_backbone, error, workers):
    images, _ = coloured_images(24)

    class SmallDevice(Extractor):
        def _forward_once(self, pixels, precision):
            if len(pixels) > 2:
                raise error
            return super()._forward_once(pixels, precision)

    extractor = SmallDevice(tiny_backbone, ExtractionSettings(device="cpu", workers=workers, batch_size=8))
    batches = list(extractor.extract(as_image_source(images), range(24), precision="float32"))

    features = np.concatenate([batch.layers["penultimate"] for batch in batches])
    np.testing.assert_allclose(features, naive_features(tiny_backbone, images), rtol=1e-4, atol=1e-5)
    assert extractor.batch_size == 2


def test_other_errors_of_the_network_are_raised(tiny_backbone):
    class Broken(Extractor):
        def _forward_once(self, pixels, precision):
            raise RuntimeError("sizes do not match")

    with pytest.raises(RuntimeError, match="sizes do not match"):
        list(Broken(tiny_backbone, CPU).extract(as_image_source(coloured_images(8)[0]), range(8), precision="float32"))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("device", "gpuu"),
        ("precision", "float8"),
        ("batch_size", 0),
        ("batch_size", "many"),
        ("workers", -1),
        ("compile", "yes"),
    ],
)
def test_setting_outside_its_values_is_named(tiny_backbone, name, value):
    with pytest.raises(InvalidInputError, match=rf"'{name}' parameter.*Got {value!r}"):
        Extractor(tiny_backbone, ExtractionSettings(**{name: value}))
