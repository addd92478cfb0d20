import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn.metrics import confusion_matrix as sklearn_confusion
from sklearn.metrics import precision_recall_fscore_support

from bottleneck.report.metrics import Share, class_scores, confused_pairs, confusion_matrix


def random_codes(n: int, n_labels: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.RandomState(0)
    true = rng.randint(0, n_labels, n)
    return true, np.where(rng.rand(n) < 0.6, true, rng.randint(0, n_labels, n))


@pytest.mark.parametrize(("n_right", "n"), [(0, 1), (1, 1), (0, 40), (40, 40), (39, 40), (142, 153), (50_123, 100_000)])
def test_interval_is_the_wilson_interval_of_scipy(n_right: int, n: int):
    share = Share(n_right=n_right, n=n)

    expected = binomtest(n_right, n).proportion_ci(method="wilson")

    assert (share.low, share.high) == pytest.approx((expected.low, expected.high), abs=1e-12)
    assert 0 <= share.low <= share.value <= share.high <= 1


def test_confusion_matrix_equals_that_of_scikit_learn():
    true, predicted = random_codes(500, 7)

    found = confusion_matrix(true, predicted, n_labels=9)

    np.testing.assert_array_equal(found, sklearn_confusion(true, predicted, labels=range(9)))


def test_class_scores_equal_those_of_scikit_learn():
    true, predicted = random_codes(500, 7)

    scores = class_scores(confusion_matrix(true, predicted, n_labels=7))

    precision, recall, f1, n_images = precision_recall_fscore_support(true, predicted)
    assert [score.recall for score in scores] == pytest.approx(recall)
    assert [score.precision for score in scores] == pytest.approx(precision)
    assert [score.f1 for score in scores] == pytest.approx(f1)
    assert [score.n_images for score in scores] == n_images.tolist()


def test_scores_that_are_not_defined_are_none():
    never_predicted, absent, nothing = class_scores(np.array([[0, 2, 0], [0, 0, 0], [0, 0, 0]]))

    assert (never_predicted.recall, never_predicted.precision, never_predicted.f1) == (0, None, 0)
    assert (absent.recall, absent.precision, absent.f1) == (None, 0, 0)
    assert (nothing.recall, nothing.precision, nothing.f1) == (None, None, None)


def test_confused_pairs_are_the_largest_cells_off_the_diagonal():
    true, predicted = random_codes(500, 7)
    confusion = confusion_matrix(true, predicted, n_labels=7)

    pairs = confused_pairs(confusion, most=10)

    naive = sorted((confusion[i, j] for i in range(7) for j in range(7) if i != j), reverse=True)[:10]
    assert [pair.n for pair in pairs] == naive
    assert all(pair.n == confusion[pair.true, pair.predicted] and pair.true != pair.predicted for pair in pairs)
    assert all(pair.n_images == (true == pair.true).sum() for pair in pairs)


def test_nothing_is_confused_where_all_is_right():
    assert confused_pairs(np.diag([3, 4]), most=10) == ()
