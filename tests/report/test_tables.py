import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, precision_recall_fscore_support

from bottleneck.planner import Budget, ProbeEvidence, Profile, plan_transfer
from bottleneck.report.metrics import confusion_matrix
from bottleneck.report.tables import (
    MATRIX_LABELS,
    MOST_PAIRS,
    MOST_PAIRS_BESIDE,
    class_table,
    confusion_table,
    pair_rows,
    plan_rows,
)
from tests.report.conftest import evaluation_of, sure_of

PROFILE = Profile(
    n_samples=800,
    n_classes=4,
    smallest_class=200,
    largest_class=200,
    n_features=1280,
    n_features_all_stages=2000,
    n_parameters=2_000_000,
    image_side=224,
    pretrained=True,
    device="cpu",
    decode_seconds_per_image=0.001,
    forward_seconds_per_image=0.01,
    train_seconds_per_image=0.05,
    memory_available_bytes=8 * 10**9,
    train_bytes_per_image=10**6,
    feature_bytes_per_image=4000,
)


def of_codes(true: list[int], predicted: list[int], *, labels: tuple[str, ...], n_classes: int):
    evaluation = evaluation_of(true, sure_of(predicted, n_classes=n_classes), labels=labels)
    return evaluation, confusion_matrix(evaluation.true, evaluation.predicted, n_labels=len(labels))


def test_matrix_has_a_row_for_unknown_labels_and_no_column():
    case = of_codes([0, 1, 2, 2], [0, 1, 0, 0], labels=("a", "b", "new"), n_classes=2)

    matrix = confusion_table(*case)

    assert matrix is not None
    assert matrix.columns == ("a", "b")
    assert [label for label, _ in matrix.rows] == ["a", "b", "new"]
    assert matrix.rows[2][1][0].words == "2 of 2 new taken for a"
    assert [row.known for row in class_table(*case).rows] == [True, True, False]


def test_class_without_test_images_keeps_its_row_and_leaves_the_means_alone():
    case = of_codes([0, 2], [0, 2], labels=("a", "b", "c"), n_classes=3)

    table, matrix = class_table(*case), confusion_table(*case)

    absent = table.rows[1].score
    assert (absent.n_images, absent.recall, absent.precision, absent.f1) == (0, None, None, None)
    assert (table.mean.recall, table.mean.precision, table.mean.f1) == (1, 1, 1)
    assert matrix is not None
    assert [cell.share for cell in matrix.rows[1][1]] == [0, 0, 0]


def test_means_are_the_macro_means_of_scikit_learn():
    rng = np.random.RandomState(0)
    true = rng.randint(0, 5, 200)
    predicted = np.where(rng.rand(200) < 0.6, true, rng.randint(0, 4, 200))  # class 4 is hardly ever predicted

    mean = class_table(*of_codes(true.tolist(), predicted.tolist(), labels=tuple("abcde"), n_classes=5)).mean

    precision, recall, f1, _ = precision_recall_fscore_support(true, predicted, average="macro", zero_division=0)
    assert (mean.precision, mean.recall, mean.f1) == pytest.approx((precision, recall, f1))
    assert mean.recall == pytest.approx(balanced_accuracy_score(true, predicted))


@pytest.mark.parametrize("n_labels", [MATRIX_LABELS, MATRIX_LABELS + 1, 200])
def test_more_pairs_are_shown_where_there_is_no_matrix(n_labels: int):
    true = list(range(n_labels))
    case = of_codes(true, [*true[1:], 0], labels=tuple(f"class {i}" for i in true), n_classes=n_labels)

    pairs = pair_rows(*case)

    assert (confusion_table(*case) is None) == (n_labels > MATRIX_LABELS)
    assert len(pairs) == (MOST_PAIRS if n_labels > MATRIX_LABELS else MOST_PAIRS_BESIDE)


def test_accuracies_of_a_plan_stand_on_one_axis():
    evidence = ProbeEvidence(
        accuracy=0.84, standard_error=0.01, train_accuracy=0.9, head_seconds=1.0, all_stages_accuracy=0.86
    )
    plan = plan_transfer(PROFILE, Budget(), evidence=evidence)

    rows = plan_rows(plan)

    lowest = min(row.alternative.accuracy.low for row in rows if row.alternative.accuracy is not None)
    floor = np.floor(10 * lowest) / 10
    for row in rows:
        found = row.alternative.accuracy
        assert found is not None
        expected = [100 * (value - floor) / (1 - floor) for value in (found.low, found.value, found.high)]
        assert [row.low, row.at, row.high] == pytest.approx(expected, abs=0.01)
    assert [row.chosen for row in rows].count(True) == 1


def test_a_plan_without_evidence_has_no_accuracies():
    rows = plan_rows(plan_transfer(PROFILE, Budget()))

    assert {row.at for row in rows} == {None}
