import numpy as np
import pytest
from scipy.spatial.distance import cdist

from bottleneck.heads.duplicates import FEW_FEATURES, MANY_ROWS
from bottleneck.heads.near_copies import (
    FEWEST_ROWS,
    NEAR_SHARE,
    NEIGHBOURS,
    find_copies,
    near_share,
    typical_distances,
)


def cloud(n: int, n_features: int = 64, *, seed: int = 0, mean: float = 0.0) -> np.ndarray:
    return (np.random.RandomState(seed).randn(n, n_features) + mean).astype(np.float32)


def sets_of(numbers: np.ndarray) -> set[tuple[int, ...]]:
    found = (tuple(np.flatnonzero(numbers == number).tolist()) for number in np.unique(numbers))
    return {rows for rows in found if len(rows) > 1}


def one_label(features: np.ndarray) -> np.ndarray:
    return np.zeros(len(features), dtype=int)


def test_nearly_equal_rows_are_found_whatever_their_labels_and_different_ones_are_not():
    features = cloud(200)
    features[[10, 20]] = features[[11, 21]] + 0.2 * cloud(2, seed=1)  # a fifth of the spread

    copies = find_copies(features, np.arange(200) % 2)

    assert sets_of(copies.alike) == {(10, 11), (20, 21)}
    assert sets_of(copies.same) == set()
    assert copies.searched


def test_the_search_agrees_with_all_exact_distances_but_near_the_border():
    features = cloud(300, seed=2)
    features[:60] = features[60:120] + np.linspace(0.01, 1, 60)[:, None].astype(np.float32) * cloud(60, seed=3)
    distances = cdist(features, features)
    ordered = np.sort(distances, axis=1)[:, 1 : NEIGHBOURS + 1]
    usual = np.minimum.outer(ordered[:, 1:].mean(axis=1), ordered[:, 1:].mean(axis=1))
    clearly, hardly = (
        {tuple(pair) for pair in np.argwhere(np.triu(distances <= share * usual, 1)).tolist()}
        for share in (0.9 * NEAR_SHARE, 1.1 * NEAR_SHARE)
    )

    found = sets_of(find_copies(features, one_label(features)).alike)

    assert 10 < len(clearly) < len(hardly) < 50
    assert clearly <= found <= hardly


def test_equal_rows_are_alike_too_and_do_not_crowd_out_other_copies():
    features = cloud(100)
    features[:30] = features[30]
    features[31] = features[30] + 0.1 * cloud(1, seed=1)

    copies = find_copies(features, one_label(features))

    assert sets_of(copies.same) == {tuple(range(31))}
    assert sets_of(copies.alike) == {tuple(range(32))}


def test_most_rows_may_have_copies():
    half = cloud(100)

    copies = find_copies(np.concatenate([half, half + 0.1 * cloud(100, seed=1)]), np.arange(200))

    assert sets_of(copies.alike) == {(i, i + 100) for i in range(100)}


def test_features_far_from_zero_are_compared_as_well():
    features = cloud(200, mean=1000.0)
    features[10] = features[11] + 0.2 * cloud(1, seed=1)

    assert sets_of(find_copies(features, one_label(features)).alike) == {(10, 11)}


def test_features_of_few_directions_have_hardly_any_near_copy_by_chance():
    plane = cloud(1000, 2) @ cloud(2, 64, seed=1)

    n_found = sum(map(len, sets_of(find_copies(plane, one_label(plane)).alike)))

    nearest = np.sort(cdist(plane, plane), axis=1)[:, 1 : NEIGHBOURS + 1]
    assert near_share(nearest) < 0.1
    assert n_found < 50
    assert (nearest[:, 0] <= NEAR_SHARE * nearest[:, 1:].mean(axis=1)).sum() > 400


@pytest.mark.parametrize("shape", [(60, FEW_FEATURES), (FEWEST_ROWS - 1, 64), (2, 64), (1, 64)])
def test_narrow_features_and_few_rows_show_equal_rows_only(shape):
    features = cloud(*shape)
    features[-1] = features[0]

    copies = find_copies(features, one_label(features))

    assert sets_of(copies.same) == ({(0, len(features) - 1)} if len(features) > 1 else set())
    assert sets_of(copies.alike) <= sets_of(copies.same)


def test_among_very_many_rows_equal_ones_are_found_and_the_others_said_not_to_be():
    features = cloud(MANY_ROWS + 1, 33)
    features[-1] = features[0]

    copies = find_copies(features, one_label(features))

    assert not copies.searched
    assert sets_of(copies.same) == sets_of(copies.alike) == {(0, MANY_ROWS)}


def test_constant_features_are_all_the_same():
    features = np.ones((50, 64), np.float32)

    assert sets_of(find_copies(features, one_label(features)).same) == {tuple(range(50))}


def test_typical_distance_is_that_within_a_label_or_of_all_where_it_has_few_rows():
    features, labels = cloud(100, mean=100.0), np.array([0] * 60 + [1] * 35 + [2] * 5)
    features[:60] *= 3

    found = typical_distances(features, labels)

    naive = [np.sqrt((cdist(rows, rows) ** 2).mean()) for rows in (features[:60], features[60:95], features)]
    np.testing.assert_allclose(found[[0, 60, 95]], naive, rtol=1e-6)
