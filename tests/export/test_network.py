"""The whole classifier as one module."""

import numpy as np
import pytest
import torch

from bottleneck import TransferClassifier
from bottleneck.cache import as_stored as stored_by_cache
from bottleneck.export.network import ExportedClassifier, as_stored
from tests.conftest import coloured_images

IMAGES, LABELS = coloured_images(24)


@pytest.mark.parametrize("strategy", ["probe", "all_stages_probe"])
def test_module_gives_the_probabilities_of_the_classifier(strategy, tiny_backbone, tmp_path):
    classifier = TransferClassifier(
        tiny_backbone, strategy=strategy, precision="float32", cache_dir=tmp_path, random_state=0
    ).fit(IMAGES, LABELS)

    proba = ExportedClassifier(classifier).eval()(torch.from_numpy(IMAGES))

    np.testing.assert_allclose(proba.numpy(), classifier.predict_proba(IMAGES), atol=1e-5)


def test_features_are_rounded_as_the_cache_rounds_them():
    features = np.random.RandomState(0).standard_normal((4, 9)).astype(np.float32)
    features[1, 3] = 1e5  # a row that overflows float16 is kept as it is

    np.testing.assert_array_equal(as_stored(torch.from_numpy(features)).numpy(), stored_by_cache(features))
