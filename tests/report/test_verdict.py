import numpy as np
import pytest

from bottleneck.planner import Alternative, Estimate, LinearProbe
from bottleneck.report.metrics import Share
from bottleneck.report.overlap import Overlap
from bottleneck.report.verdict import against_plan, difference_interval, judge

GOOD = Share(n_right=140, n=153)


def sentences(
    accuracy: Share = GOOD,
    *,
    majority: float = 0.5,
    estimate: Share | None = GOOD,
    probe: Share | None = None,
    n_unseen: int = 0,
    overlap: Overlap | None = None,
) -> str:
    return " ".join(
        judge(accuracy, majority=majority, estimate=estimate, probe=probe, n_unseen=n_unseen, overlap=overlap)
    )


def test_interval_of_a_difference_is_that_of_newcombe():
    interval = difference_interval(Share(n_right=56, n=70), Share(n_right=48, n=80))

    assert interval == pytest.approx((0.0524, 0.3339), abs=5e-5)  # Newcombe (1998), table II, method 10


@pytest.mark.parametrize(
    ("majority", "expected"),
    [(0.5, "Clearly better than always"), (0.88, "Not clearly better"), (0.95, "No better than")],
)
def test_accuracy_is_held_against_the_majority_class(majority: float, expected: str):
    assert expected in sentences(majority=majority)


@pytest.mark.parametrize(
    ("estimate", "expected"),
    [
        (Share(n_right=990, n=1000), "Clearly below the out-of-fold estimate: -7.5 points"),
        (Share(n_right=930, n=1000), "In line with the out-of-fold estimate"),
        (Share(n_right=19, n=20), "In line with the out-of-fold estimate"),
        (Share(n_right=700, n=1000), "Clearly above the out-of-fold estimate: +21.5 points"),
    ],
)
def test_accuracy_is_held_against_the_estimate_with_the_uncertainty_of_both(estimate: Share, expected: str):
    assert expected in sentences(estimate=estimate)


@pytest.mark.parametrize(
    ("overlap", "expected"),
    [
        (None, "among the training images (compare the two: X_train, or --train)."),
        (Overlap(n_training=9, seen=np.array([True])), "some of them are among the training images."),
        (Overlap(n_training=9, seen=np.array([False])), "some of them are pictures from the training images, saved"),
    ],
)
def test_an_accuracy_too_good_to_be_true_is_explained_as_far_as_can_be_known(overlap: Overlap | None, expected: str):
    assert expected in sentences(estimate=Share(n_right=700, n=1000), overlap=overlap)


def test_new_test_images_are_told_to_be_new_where_that_was_looked_at():
    new, old = (Overlap(n_training=1200, seen=np.array([seen])) for seen in (False, True))

    assert sentences(overlap=new).endswith("No test image is a copy of one of the 1,200 training images.")
    assert "copy" not in sentences(overlap=old)
    assert "copy" not in sentences()


def test_a_missing_estimate_is_told():
    assert "no training image could be held out" in sentences(estimate=None)


def test_images_of_unknown_labels_are_told_and_taken_out():
    assert "labels" not in sentences()
    assert "1 image has a label that training never saw" in sentences(n_unseen=1)
    assert "without, the accuracy is 98.6 % of 142 images" in sentences(n_unseen=11)


def test_a_test_set_of_unknown_labels_only_has_no_accuracy_without_them():
    nothing = Share(n_right=0, n=5)

    told = sentences(nothing, majority=0, n_unseen=5)

    assert told.endswith("5 images have labels that training never saw, which counts as wrong.")


def test_what_was_delivered_is_held_against_the_probe_unless_it_is_the_probe():
    better = sentences(estimate=Share(n_right=96, n=100), probe=Share(n_right=94, n=100))

    assert "Out of fold the linear probe has 94.0 %: what was delivered changes that by +2.0 points." in better
    assert "linear probe" not in sentences()


@pytest.mark.parametrize(
    ("accuracy", "delivered", "expected"),
    [
        (
            Estimate(value=0.9, low=0.88, high=0.92),
            True,
            "expected: 90.0 % (88.0 to 92.0). The test accuracy of 91.5 % is inside",
        ),
        (Estimate(value=0.8, low=0.78, high=0.82), True, "is above that range"),
        (Estimate(value=0.96, low=0.95, high=0.97), True, "is below that range"),
        (Estimate(value=0.9, low=0.88, high=0.92), False, "Something else was delivered."),
        (None, True, "could not be foreseen"),
    ],
)
def test_the_plan_is_held_against_what_came_true(accuracy: Estimate | None, delivered: bool, expected: str):
    chosen = Alternative(
        strategy=LinearProbe(layers="penultimate"),
        accuracy=accuracy,
        seconds=Estimate(value=1, low=1, high=2),
        memory_bytes=1,
        disk_bytes=1,
        why_not="",
    )

    told = against_plan(chosen, GOOD, delivered=delivered)

    assert told.startswith("Planned: probe, penultimate layer")
    assert expected in told
