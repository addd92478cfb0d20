"""The comparison that every export has to pass."""

import numpy as np
import pytest

from bottleneck import TransferClassifier
from bottleneck.errors import InvalidInputError
from bottleneck.export.check import TOLERANCE, example_pictures, expected_proba, largest_difference
from tests.conftest import coloured_images


@pytest.fixture(scope="module")
def classifier(tiny_backbone, tmp_path_factory) -> TransferClassifier:
    fitted = TransferClassifier(
        tiny_backbone, strategy="probe", precision="float32", cache_dir=tmp_path_factory.mktemp("cache")
    )
    return fitted.fit(*coloured_images(24))


def test_expected_probabilities_are_those_of_predict_proba_to_the_last_bit(classifier):
    images, _ = coloured_images(6, seed=1)

    np.testing.assert_array_equal(expected_proba(classifier, images), classifier.predict_proba(images))


def test_difference_is_the_largest_of_all_pictures(classifier):
    def a_little_off(pictures):
        return expected_proba(classifier, pictures) + (1e-5 if pictures.shape[1] > 30 else 0)

    assert largest_difference(classifier, a_little_off) == pytest.approx(1e-5)


@pytest.mark.parametrize("error", [2 * TOLERANCE, np.nan])
def test_other_probabilities_are_an_error(classifier, error):
    with pytest.raises(InvalidInputError, match="differs from predict_proba"):
        largest_difference(classifier, lambda pictures: expected_proba(classifier, pictures) + error)


def test_pictures_have_several_shapes_and_are_always_the_same():
    first, second = example_pictures((32, 48)), example_pictures((32, 48))

    assert len({pictures.shape for pictures in first}) == len(first)
    assert all((one == other).all() for one, other in zip(first, second, strict=True))
