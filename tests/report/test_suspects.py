import numpy as np
import pytest

from bottleneck.report.suspects import confident_others, likely_label_errors
from tests.report.conftest import evaluation_of, sure_of


def random_case(n: int = 300, n_classes: int = 5, n_labels: int = 6) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.RandomState(0)
    true = rng.randint(0, n_labels, n)
    proba = rng.dirichlet(np.full(n_classes, 0.4), n)
    proba[np.arange(n), true % n_classes] += rng.rand(n)
    return true, proba / proba.sum(axis=1, keepdims=True)


def naive_confident(true: np.ndarray, proba: np.ndarray) -> list[int]:
    """Count the confident joint as the paper words it, image by image."""
    n_classes = proba.shape[1]
    thresholds = {
        k: np.mean([p[k] for t, p in zip(true, proba, strict=True) if t == k]) for k in range(n_classes) if k in true
    }
    found = []
    for label, p in zip(true, proba, strict=True):
        above = [k for k, threshold in thresholds.items() if p[k] >= threshold]
        found.append(max(above, key=lambda k: p[k]) if above and label < n_classes else -1)
    return found


@pytest.mark.parametrize("n_labels", [5, 6, 3])
def test_confident_counts_equal_those_counted_one_by_one(n_labels: int):
    true, proba = random_case(n_labels=n_labels)

    assert confident_others(true, proba).tolist() == naive_confident(true, proba)


def test_a_swapped_label_with_two_witnesses_is_found_and_one_with_a_single_witness_is_not():
    true = [0] * 6 + [1] * 6
    predicted = [0] * 6 + [1] * 4 + [0, 0]  # images 10 and 11 are labelled 1 and taken for 0
    neighbours = np.array([[1, 2, 3, 4]] * 6 + [[6, 7, 8, 9]] * 6)
    neighbours[11] = [0, 1, 2, 3]  # only the second is among images of class 0
    evaluation = evaluation_of(true, sure_of(predicted, 0.9, n_classes=2))

    (found,) = likely_label_errors(evaluation, np.arange(12), neighbours)

    assert (found.index, found.suggested, found.n_agreeing, found.n_neighbours) == (11, 0, 4, 4)
    assert found.margin == pytest.approx(0.8)


def test_positions_are_those_in_the_evaluation_where_only_some_images_are_listed():
    true = [1, 0, 0, 0, 1, 1, 1, 0]
    evaluation = evaluation_of(true, sure_of([1, 0, 0, 0, 1, 1, 1, 1], 0.9, n_classes=2))
    indices = np.array([7, 0, 4, 5])

    (found,) = likely_label_errors(evaluation, indices, np.array([[1, 2], [2, 3], [1, 3], [1, 2]]))

    assert (found.index, found.suggested) == (7, 1)


def test_the_clearest_error_comes_first():
    true = [0] * 8 + [1] * 8
    certainty = [0.9] * 6 + [0.93, 0.95] + [0.9] * 8
    evaluation = evaluation_of(true, sure_of([0] * 6 + [1, 1] + [1] * 8, certainty, n_classes=2))
    neighbours = np.array([[8, 9, 10]] * 16)

    assert [found.index for found in likely_label_errors(evaluation, np.arange(16), neighbours)] == [7, 6]


def test_without_probabilities_or_neighbours_nothing_is_doubted():
    scores = sure_of([1, 1, 1], 0.9, n_classes=2)

    without_proba = evaluation_of([0, 1, 1], scores, has_proba=False)

    assert likely_label_errors(without_proba, np.arange(3), np.array([[1], [2], [1]])) == ()
    assert likely_label_errors(evaluation_of([0], scores[:1]), np.arange(1), np.empty((1, 0), np.int64)) == ()
