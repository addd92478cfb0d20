"""Features that do not fit in memory: the same classifier, read from the cache in blocks."""

from functools import partial

import numpy as np
import pytest
from numpy.typing import NDArray

from bottleneck import FineTuneSettings, LogisticHead, SVMHead, TransferClassifier
from bottleneck.backbones import Backbone
from bottleneck.cache import FeatureCache
from bottleneck.errors import InvalidInputError, SkippedImagesWarning
from bottleneck.estimators.frozen import (
    JoinedBlocks,
    extract_frozen,
    fits_in_memory,
    joined,
    layer_of,
    memory_for_fit,
    rows_of,
)
from bottleneck.extraction import ExtractionSettings, Extractor
from bottleneck.features import Features, FeaturesOnDisk
from bottleneck.images import as_image_source
from bottleneck.memory import available_memory
from tests.conftest import coloured_images

SMALL = 1.0
"""Bytes: nothing fits."""


def varied_images(n: int, *, seed: int = 0) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return coloured images of all shades: others are so alike that they count as copies of each other."""
    images, labels = coloured_images(n, seed=seed)
    shades = np.random.default_rng(seed).uniform(0.2, 1, (n, 1, 1, 3))
    return (images * shades).astype(np.uint8), labels


@pytest.fixture
def fit(tiny_backbone: Backbone, tmp_path):
    """Return a function that fits a classifier whose head may take so much memory."""
    images, labels = varied_images(60)

    def fitted(memory_limit, *, head=LogisticHead, X=images, y=labels, **params) -> TransferClassifier:
        chosen = {"strategy": "probe", "device": "cpu", "random_state": 0, "cache_dir": tmp_path / "cache", **params}
        return TransferClassifier(tiny_backbone, head=head(memory_limit=memory_limit), **chosen).fit(X, y)

    return fitted


@pytest.fixture
def both_ways(tiny_backbone: Backbone, tmp_path) -> tuple[Features, FeaturesOnDisk]:
    """Return the same features in memory and on disk."""
    source = as_image_source(coloured_images(30)[0])
    extractor = Extractor(tiny_backbone, ExtractionSettings(device="cpu"))
    options = {"precision": "float32", "layers": tuple(tiny_backbone.layer_widths)}
    return tuple(
        extract_frozen(source, extractor, FeatureCache(tmp_path / "cache"), limit=limit, **options)
        for limit in (1e9, SMALL)
    )


def test_features_fit_as_long_as_a_head_on_all_of_their_layers_does():
    assert fits_in_memory(1000, {"early": 30, "penultimate": 70}, limit=24 * 1000 * 100)
    assert not fits_in_memory(1000, {"early": 30, "penultimate": 70}, limit=24 * 1000 * 100 - 1)


def test_automatic_limit_is_a_share_of_what_is_available():
    assert 0 < memory_for_fit("auto") < available_memory()
    assert memory_for_fit(10**6) == 10**6


def test_limit_decides_between_arrays_and_disk(both_ways):
    in_memory, on_disk = both_ways

    assert isinstance(in_memory, Features)
    assert isinstance(on_disk, FeaturesOnDisk)


def test_rows_layers_and_joined_layers_are_the_same_from_disk(both_ways, tiny_backbone):
    in_memory, on_disk = both_ways
    layers, rows = tuple(tiny_backbone.layer_widths), np.array([3, 20, 7])

    for layer in layers:
        np.testing.assert_array_equal(rows_of(on_disk, layer, rows), rows_of(in_memory, layer, rows))
        np.testing.assert_array_equal(np.concatenate(list(layer_of(on_disk, layer))), layer_of(in_memory, layer))
    blocks = joined(on_disk, layers)
    assert blocks.n_samples == 30
    np.testing.assert_array_equal(np.concatenate(list(blocks)), joined(in_memory, layers))


def test_joined_layers_come_in_blocks_of_the_same_rows(both_ways, tiny_backbone):
    in_memory, on_disk = both_ways
    layers = tuple(tiny_backbone.layer_widths)

    blocks = JoinedBlocks(parts={layer: on_disk.blocks(layer, block_rows=8) for layer in layers})

    assert [block.shape for block in blocks] == [(n, sum(tiny_backbone.layer_widths.values())) for n in (8, 8, 8, 6)]
    np.testing.assert_array_equal(np.concatenate(list(blocks)), joined(in_memory, layers))


@pytest.mark.parametrize("strategy", ["probe", "all_stages_probe", "auto"])
def test_classifier_from_disk_is_the_one_from_memory(fit, strategy):
    images, _ = varied_images(20, seed=1)

    in_memory = fit("auto", strategy=strategy, finetune=FineTuneSettings(steps=4, batch_size=8))
    on_disk = fit(SMALL, strategy=strategy, finetune=FineTuneSettings(steps=4, batch_size=8))

    assert on_disk.layers_ == in_memory.layers_
    assert on_disk.strategy_ == in_memory.strategy_
    assert on_disk.accuracy_cv_ == pytest.approx(in_memory.accuracy_cv_)
    np.testing.assert_allclose(on_disk.head_.C_, in_memory.head_.C_)
    np.testing.assert_allclose(on_disk.predict_proba(images), in_memory.predict_proba(images), atol=1e-3)


def test_support_vector_machine_is_fitted_from_disk_too(fit):
    images, labels = varied_images(20, seed=1)

    assert fit(SMALL, head=SVMHead).score(images, labels) > 0.7


def test_fine_tuning_starts_from_features_on_disk(fit):
    settings = FineTuneSettings(steps=6, batch_size=8, lr=0.01)

    in_memory = fit("auto", strategy="finetune", finetune=settings)
    on_disk = fit(SMALL, strategy="finetune", finetune=settings)

    assert on_disk.strategy_ == in_memory.strategy_
    assert [record.stage for record in on_disk.history_] == [record.stage for record in in_memory.history_]
    assert on_disk.accuracy_cv_ == pytest.approx(in_memory.accuracy_cv_, abs=0.02)


def test_unreadable_images_are_left_out_of_what_is_on_disk(fit, image_folder):
    (image_folder / "bluish" / "000.png").write_bytes(b"")

    with pytest.warns(SkippedImagesWarning, match=r"000\.png"):
        on_disk = fit(SMALL, X=image_folder, y=None, on_error="skip")
    with pytest.warns(SkippedImagesWarning):
        in_memory = fit("auto", X=image_folder, y=None, on_error="skip")

    assert len(on_disk.skipped_) == 1
    assert on_disk.cache_report_.rows_extracted == 23
    scale = np.abs(in_memory.head_.coef_).max()
    np.testing.assert_allclose(on_disk.head_.coef_, in_memory.head_.coef_, atol=1e-3 * scale)


@pytest.mark.parametrize(
    "head",
    [
        partial(SVMHead, kernel="rbf"),
        partial(SVMHead, multi_class="crammer_singer"),
        lambda **params: LogisticHead(**{**params, "cv": "loo"}),
    ],
    ids=["rbf", "crammer_singer", "loo"],
)
def test_head_that_needs_all_images_in_memory_is_refused_before_they_are_extracted(fit, head):
    with pytest.raises(InvalidInputError, match="60 images, too many to fit in memory"):
        fit(SMALL, head=head)
