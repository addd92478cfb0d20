import numpy as np
import pytest

from bottleneck import TransferClassifier
from bottleneck.images import as_image_source
from bottleneck.report.evaluate import Evaluation
from bottleneck.report.page import MATRIX_LABELS, MOST_PAIRS, compose_page


def evaluation_of(true: list[int], predicted: list[int], *, labels: tuple[str, ...], n_classes: int) -> Evaluation:
    """Return predictions as if a classifier had made them."""
    return Evaluation(
        source=as_image_source(np.zeros((len(true), 8, 8, 3), np.uint8)),
        rows=np.arange(len(true)),
        labels=labels,
        n_classes=n_classes,
        true=np.array(true),
        predicted=np.array(predicted),
        certainty=np.full(len(true), 0.8),
        has_proba=True,
        unreadable=(),
    )


def test_majority_is_the_most_frequent_class_that_can_be_answered(classifier: TransferClassifier):
    evaluation = evaluation_of([0, 1, 1, 2, 2, 2], [0, 1, 0, 0, 0, 1], labels=("a", "b", "new"), n_classes=2)

    headline = compose_page(classifier, evaluation).headline

    assert (headline.majority_label, headline.majority) == ("b", pytest.approx(2 / 6))
    assert (headline.accuracy.n_right, headline.accuracy.n) == (2, 6)


def test_matrix_has_a_row_for_unknown_labels_and_no_column(classifier: TransferClassifier):
    evaluation = evaluation_of([0, 1, 2, 2], [0, 1, 0, 0], labels=("a", "b", "new"), n_classes=2)

    page = compose_page(classifier, evaluation)

    assert page.matrix is not None
    assert page.matrix.columns == ("a", "b")
    assert [label for label, _ in page.matrix.rows] == ["a", "b", "new"]
    assert page.matrix.rows[2][1][0].words == "2 of 2 new taken for a"
    assert [row.known for row in page.classes] == [True, True, False]


def test_class_without_test_images_keeps_its_row(classifier: TransferClassifier):
    page = compose_page(classifier, evaluation_of([0, 2], [0, 2], labels=("a", "b", "c"), n_classes=3))

    absent = page.classes[1].score
    assert (absent.n_images, absent.recall, absent.precision, absent.f1) == (0, None, None, None)
    assert page.matrix is not None
    assert [cell.share for cell in page.matrix.rows[1][1]] == [0, 0, 0]


@pytest.mark.parametrize("n_classes", [MATRIX_LABELS, MATRIX_LABELS + 1, 200])
def test_many_classes_have_pairs_in_place_of_a_matrix(classifier: TransferClassifier, n_classes: int):
    true = list(range(n_classes))
    labels = tuple(f"class {i}" for i in true)

    page = compose_page(classifier, evaluation_of(true, [*true[1:], 0], labels=labels, n_classes=n_classes))

    assert (page.matrix is None) == (n_classes > MATRIX_LABELS)
    assert len(page.pairs) == (MOST_PAIRS if n_classes > MATRIX_LABELS else 0)


def test_head_without_probabilities_has_no_calibration(classifier: TransferClassifier):
    from dataclasses import replace

    evaluation = replace(evaluation_of([0, 1], [0, 0], labels=("a", "b"), n_classes=2), has_proba=False)

    page = compose_page(classifier, evaluation)

    assert page.calibration is None
    assert page.reliability is None
