"""Features that stay on disk are the features in memory, block by block."""

import pickle
import shutil
import sys

import numpy as np
import pytest

from bottleneck.cache import FeatureCache
from bottleneck.errors import CacheError, UnreadableImagesError
from bottleneck.extraction import ExtractionSettings, Extractor
from bottleneck.features import compute_features, features_on_disk
from bottleneck.heads import LogisticHead
from bottleneck.images import as_image_source
from tests.conftest import coloured_images

CPU = ExtractionSettings(device="cpu", precision="float32", workers=0)


@pytest.fixture
def cache(tmp_path):
    return FeatureCache(tmp_path / "cache")


def both(backbone, images, cache, **options):
    """Return the features in memory and those on disk."""
    source, extractor = as_image_source(images), Extractor(backbone, CPU)
    on_disk = features_on_disk(source, extractor, cache, precision="float32", **options)
    return compute_features(source, extractor, cache, precision="float32", layers=LAYERS, **options), on_disk


LAYERS = ("penultimate", "stage1")


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("compacted", [False, True])
def test_blocks_are_the_features_in_memory_as_often_as_they_are_asked_for(tiny_backbone, cache, layer, compacted):
    images, _ = coloured_images(25)
    features_on_disk(as_image_source(images[7:15]), Extractor(tiny_backbone, CPU), cache, precision="float32")
    in_memory, on_disk = both(tiny_backbone, images, cache)
    if compacted:
        cache.compact()

    blocks = on_disk.blocks(layer, block_rows=4)

    expected = in_memory.layers[layer]
    assert (blocks.n_samples, blocks.n_features) == blocks.shape == expected.shape
    assert blocks.dtype == expected.dtype
    for _ in range(2):
        found = list(blocks)
        assert [len(block) for block in found] == [4] * 6 + [1]
        assert all(block.dtype == np.float32 for block in found)
        np.testing.assert_array_equal(np.concatenate(found), expected)


def test_rows_and_folds_are_read_like_those_of_an_array(tiny_backbone, cache):
    in_memory, on_disk = both(tiny_backbone, coloured_images(25)[0], cache)
    blocks, expected = on_disk.blocks(block_rows=6), in_memory.layers["penultimate"]
    some = np.random.default_rng(0).permutation(25)[:11]

    for index in (slice(3, 9), slice(None, None, -2), some, np.arange(25) % 3 == 0, slice(0, 0)):
        np.testing.assert_array_equal(blocks[index], expected[index])
    np.testing.assert_array_equal(blocks[7], expected[7])
    np.testing.assert_array_equal(np.concatenate(list(blocks.take(some))), expected[some])
    assert len(blocks.take(some)) == 11


def test_report_and_kept_rows_are_those_of_the_pass(tiny_backbone, cache):
    images = [*coloured_images(6)[0], b"no image"]
    with pytest.raises(UnreadableImagesError):
        both(tiny_backbone, images, cache)

    with pytest.warns(UserWarning, match="1 images were skipped"):
        in_memory, on_disk = both(tiny_backbone, images[::-1], cache, on_error="skip")

    assert on_disk.kept.tolist() == in_memory.kept.tolist() == [1, 2, 3, 4, 5, 6]
    assert (on_disk.report.rows_cached, on_disk.report.rows_skipped) == (6, 1)
    np.testing.assert_array_equal(on_disk.blocks()[:], in_memory.layers["penultimate"])


def test_rows_that_are_gone_are_one_clear_error(tiny_backbone, cache):
    _, on_disk = both(tiny_backbone, coloured_images(6)[0], cache)
    shutil.rmtree(cache.cache_dir)

    with pytest.raises(CacheError, match="Run cache_features again"):
        list(on_disk.blocks())


@pytest.mark.skipif(sys.platform == "win32", reason="needs to remove an open file")
def test_blocks_survive_a_compaction_between_two_of_them(tiny_backbone, cache):
    images, _ = coloured_images(24)
    for start in range(0, 24, 6):
        in_memory, _ = both(tiny_backbone, images[start : start + 6], cache)
    in_memory, on_disk = both(tiny_backbone, images, cache)

    blocks = iter(on_disk.blocks(block_rows=5))
    found = [next(blocks)]
    cache.compact()
    found += blocks

    np.testing.assert_array_equal(np.concatenate(found), in_memory.layers["penultimate"])


def test_workers_read_the_rows_that_they_are_told_by_themselves(tiny_backbone, cache):
    images, _ = coloured_images(25)
    in_memory, on_disk = both(tiny_backbone, images, cache)
    blocks, expected = on_disk.blocks(block_rows=4), in_memory.layers["penultimate"]

    pickled = pickle.dumps(blocks.take(slice(5, 12)))
    there = pickle.loads(pickled)

    assert len(pickled) < 2000
    np.testing.assert_array_equal(np.concatenate(list(there)), expected[5:12])
    assert there.store is pickle.loads(pickled).store
    assert there.store is not blocks.store


@pytest.mark.slow
def test_workers_fit_the_head_that_one_fits(tiny_backbone, cache, monkeypatch):
    monkeypatch.setattr("bottleneck.heads.blocks.BLOCK_ROWS", 8)
    monkeypatch.setattr("bottleneck.heads.blocks.SPAN_BYTES", 1)
    images, labels = coloured_images(25)
    blocks = both(tiny_backbone, images, cache)[1].blocks(block_rows=4)

    alone, together = (
        LogisticHead([0.1], normalize="center", memory_limit=0, n_jobs=n_jobs, random_state=0).fit(blocks, labels)
        for n_jobs in (1, 2)
    )

    np.testing.assert_array_equal(together.coef_, alone.coef_)
