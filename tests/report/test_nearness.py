from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.spatial.distance import cdist
from sklearn.neighbors import KNeighborsClassifier

from bottleneck import TransferClassifier
from bottleneck.images import as_image_source
from bottleneck.report.nearness import (
    LEAST_FOR_TSNE,
    N_NEIGHBOURS,
    ListedFeatures,
    features_of,
    group_copies,
    map_places,
    measure_nearness,
    nearest,
)


def listed(values: np.ndarray, keys: list[int] | None = None) -> ListedFeatures:
    """Return features whose keys are all different, or as numbered."""
    numbers = np.arange(len(values)) if keys is None else np.array(keys)
    found = np.zeros((len(values), 16), np.uint8)
    found[:, 0], found[:, 1] = numbers % 256, numbers // 256
    return ListedFeatures(rows=np.arange(len(values)), values=values.astype(np.float32), keys=found)


def clouds(n: int, n_features: int = 64, *, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return two clouds that are well apart."""
    rng = np.random.RandomState(seed)
    labels = np.arange(n) % 2
    return rng.randn(n, n_features) + 8 * labels[:, None], labels


def copies_of(features: ListedFeatures, labels: np.ndarray) -> list[list[int]]:
    return [group.tolist() for group in group_copies(features, labels, *nearest(features.values))]


def test_neighbours_are_the_nearest_others():
    values, _ = clouds(40)

    distances, rows = nearest((values + 1000).astype(np.float32))

    apart = cdist(values, values)
    np.fill_diagonal(apart, np.inf)
    np.testing.assert_array_equal(rows, apart.argsort(axis=1)[:, :N_NEIGHBOURS])
    np.testing.assert_allclose(distances, np.sort(apart, axis=1)[:, :N_NEIGHBOURS], rtol=1e-4)


@pytest.mark.parametrize("n", [0, 1, 2, 4])
def test_few_images_have_as_many_neighbours_as_there_are(n: int):
    _, rows = nearest(np.random.RandomState(0).randn(n, 8).astype(np.float32))

    assert rows.shape == (n, max(0, n - 1))
    assert copies_of(listed(np.random.RandomState(0).randn(n, 8)), np.zeros(n, np.int64)) == []


def test_features_that_are_almost_the_same_are_copies_whatever_their_labels():
    values, labels = clouds(60)
    values[7], values[31] = values[4] + 0.02, values[4] - 0.02
    labels[31] = 1 - labels[31]

    assert copies_of(listed(values), labels) == [[4, 7, 31]]


def test_the_same_content_is_a_copy_whatever_the_features():
    values, labels = clouds(12, n_features=4)
    keys = list(range(12))
    keys[3] = keys[9] = keys[0]
    features = listed(values, keys)

    assert copies_of(features, labels) == [[0, 3, 9]]
    assert measure_nearness(features, labels).exact == (True,)


def test_images_of_a_narrow_class_are_not_copies_of_each_other():
    values, labels = clouds(80)
    values[labels == 1] = 8 + values[labels == 1] / 100

    assert copies_of(listed(values), labels) == []


def test_few_features_say_nothing_of_near_copies():
    values, labels = clouds(60, n_features=3)

    assert copies_of(listed(values), labels) == []


@pytest.mark.parametrize("n", [2, 3, 10, LEAST_FOR_TSNE - 1, LEAST_FOR_TSNE, 120])
def test_places_fill_the_unit_square_and_are_the_same_each_time(n: int):
    values = clouds(n)[0].astype(np.float32)

    places = map_places(values)

    assert places.shape == (n, 2)
    np.testing.assert_allclose([places.min(axis=0), places.max(axis=0)], [[0, 0], [1, 1]])
    np.testing.assert_array_equal(places, map_places(values))


def test_near_places_are_similar_images():
    values, labels = clouds(160)

    places = map_places(values.astype(np.float32))

    by_place = KNeighborsClassifier(5).fit(places[:80], labels[:80])
    assert by_place.score(places[80:], labels[80:]) == 1


@pytest.mark.parametrize("values", [np.ones((60, 8)), np.ones((1, 8)), np.arange(60.0)[:, None] * np.ones(1)])
def test_images_that_features_do_not_tell_apart_still_have_a_place(values: np.ndarray):
    places = map_places(values.astype(np.float32))

    assert places.shape == (len(values), 2)
    assert ((places >= 0) & (places <= 1)).all()


def test_features_are_those_that_the_head_sees(classifier: TransferClassifier, test_set):
    images, _ = test_set
    rows = np.array([5, 0, 17])

    found = features_of(classifier, as_image_source(images), rows)

    np.testing.assert_array_equal(found.rows, rows)
    np.testing.assert_array_equal(classifier.head_.predict_proba(found.values), classifier.predict_proba(images[rows]))


def test_a_file_that_went_since_it_was_predicted_is_left_out(classifier: TransferClassifier, test_set, tmp_path: Path):
    paths = [tmp_path / f"{i}.png" for i in range(4)]
    for path, pixels in zip(paths, test_set[0], strict=False):
        Image.fromarray(pixels).save(path)
    source = as_image_source(paths)
    paths[1].unlink()

    found = features_of(classifier, source, np.array([3, 1, 0]))

    assert found.rows.tolist() == [3, 0]
    assert len(found.values) == len(found.keys) == 2
