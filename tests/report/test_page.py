import numpy as np
import pytest
from sklearn.metrics import log_loss

from bottleneck import TransferClassifier
from bottleneck.report.evaluate import Evaluation, evaluate
from bottleneck.report.gallery import Gallery
from bottleneck.report.page import Page, compose_page
from bottleneck.report.tables import MATRIX_LABELS
from tests.report.conftest import evaluation_of, sure_of


def page_of(classifier: TransferClassifier, evaluation: Evaluation) -> Page:
    """Return the page of an evaluation whose images are not shown."""
    nothing = Gallery(
        labels=evaluation.labels,
        images=(),
        n_images=0,
        mistakes=(),
        doubts=(),
        n_doubts=0,
        copies=(),
        n_copies=0,
        seen=(),
    )
    return compose_page(classifier, evaluation, nothing)


def test_majority_is_the_most_frequent_class_that_can_be_answered(classifier: TransferClassifier):
    scores = sure_of([0, 1, 0, 0, 0, 1], n_classes=2)

    headline = page_of(classifier, evaluation_of([0, 1, 1, 2, 2, 2], scores, labels=("a", "b", "new"))).headline

    assert (headline.majority_label, headline.majority) == ("b", pytest.approx(2 / 6))
    assert (headline.accuracy.n_right, headline.accuracy.n) == (2, 6)


@pytest.mark.parametrize("n_classes", [MATRIX_LABELS, MATRIX_LABELS + 1, 200])
def test_many_classes_have_pairs_and_no_matrix(classifier: TransferClassifier, n_classes: int):
    true = list(range(n_classes))

    page = page_of(classifier, evaluation_of(true, sure_of([*true[1:], 0], n_classes=n_classes)))

    assert (page.matrix is None) == (n_classes > MATRIX_LABELS)
    assert page.pairs


def test_head_without_probabilities_has_no_calibration(classifier: TransferClassifier):
    page = page_of(classifier, evaluation_of([0, 1], sure_of([0, 0], n_classes=2), has_proba=False))

    assert page.reliability is None


def test_log_loss_is_that_of_scikit_learn_and_leaves_out_labels_that_are_no_class(classifier: TransferClassifier):
    proba = np.random.RandomState(0).dirichlet(np.ones(3), 20)
    true = [0, 1, 2, 2, 3] * 4

    page = page_of(classifier, evaluation_of(true, proba, labels=("a", "b", "c", "new")))

    assert page.reliability is not None
    known = np.array(true) < 3
    assert page.reliability.log_loss == pytest.approx(log_loss(np.array(true)[known], proba[known]))


def test_a_delivered_probe_is_not_compared_with_itself(classifier: TransferClassifier, test_set):
    page = page_of(classifier, evaluate(classifier, *test_set))

    assert page.headline.probe is None
    assert page.headline.estimate is not None
    assert page.headline.estimate.value == pytest.approx(classifier.accuracy_cv_)


def test_the_learning_curve_is_that_of_the_plan(classifier: TransferClassifier, test_set):
    page = page_of(classifier, evaluate(classifier, *test_set))

    evidence = classifier.plan_.request.evidence
    assert evidence is not None
    assert page.more_labels is not None
    measured = page.more_labels.chart.curves[0]
    assert [dot.text for dot in measured.dots] == [f"{100 * accuracy:.1f}" for _, accuracy in evidence.learning_curve]
