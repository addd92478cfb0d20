import shutil
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from bottleneck import TransferClassifier
from bottleneck.cache import FeatureCache
from bottleneck.estimators.kept import MOST_KEPT, keep_cache
from bottleneck.extraction import ExtractionSettings, Extractor
from bottleneck.features import compute_features, feature_space
from bottleneck.images import as_image_source
from tests.conftest import coloured_images


@pytest.fixture
def extract(tiny_backbone):
    """Return a function that has so many images' features in a cache, and says how many it had to compute."""
    extractor = Extractor(tiny_backbone, ExtractionSettings(device="cpu"))

    def extracted(cache: FeatureCache, n: int) -> int:
        source = as_image_source(coloured_images(n)[0])
        return compute_features(source, extractor, cache, precision="float32").report.rows_extracted

    return extracted


def test_store_is_the_same_from_call_to_call(tmp_path, tiny_backbone, extract):
    space = feature_space(tiny_backbone, "float32")
    assert extract(keep_cache(tmp_path), 4) == 4

    assert keep_cache(tmp_path).space(space) is keep_cache(tmp_path).space(space)
    assert extract(keep_cache(tmp_path), 4) == 0


def test_rows_that_others_wrote_are_found(tmp_path, extract):
    extract(keep_cache(tmp_path), 4)
    extract(FeatureCache(tmp_path), 9)

    assert extract(keep_cache(tmp_path), 9) == 0


def test_cache_that_was_removed_is_filled_again(tmp_path, extract):
    extract(keep_cache(tmp_path / "cache"), 4)
    shutil.rmtree(tmp_path / "cache")

    assert extract(keep_cache(tmp_path / "cache"), 4) == 4


def test_threads_have_caches_of_their_own(tmp_path):
    with ThreadPoolExecutor(1) as pool:
        other = pool.submit(keep_cache, tmp_path).result()

    assert other is not keep_cache(tmp_path)


def test_few_caches_stay_open(tmp_path):
    first = keep_cache(tmp_path / "first")
    for number in range(MOST_KEPT):
        keep_cache(tmp_path / str(number))

    assert keep_cache(tmp_path / "first") is not first


def test_predictions_image_by_image_are_those_of_all_at_once(tiny_backbone, tmp_path):
    images, labels = coloured_images(24)
    classifier = TransferClassifier(tiny_backbone, strategy="probe", cache_dir=tmp_path, device="cpu", random_state=0)
    classifier.fit(images[:16], labels[:16])

    one_by_one = [classifier.predict(image[None])[0] for image in images]

    np.testing.assert_array_equal(one_by_one, classifier.predict(images))
