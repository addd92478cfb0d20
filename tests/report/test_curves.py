import math

import numpy as np
import pytest

from bottleneck.finetune import EpochRecord
from bottleneck.planner import ProbeEvidence
from bottleneck.planner.gain import accuracy_with_twice_the_images
from bottleneck.report.charts import CURVE_BOTTOM, LEFT, RIGHT, TOP
from bottleneck.report.curves import history_charts, more_labels

CURVE = ((250, 0.78), (500, 0.82), (1000, 0.85))


def evidence(curve: tuple[tuple[int, float], ...]) -> ProbeEvidence:
    return ProbeEvidence(accuracy=0.85, standard_error=0.01, train_accuracy=0.9, head_seconds=1.0, learning_curve=curve)


def epochs(stage: str, losses: list[float]) -> list[EpochRecord]:
    return [
        EpochRecord(stage=stage, epoch=i + 1, step=10 * i, loss=loss, accuracy=1 - loss / 10, learning_rates=(0.1,))
        for i, loss in enumerate(losses)
    ]


def test_history_has_one_curve_for_each_training():
    history = [*epochs("fold 1", [3.0, 2.0, 1.0]), *epochs("all images", [3.0, 1.5])]

    loss, accuracy, _ = history_charts(history)

    assert (loss.title, accuracy.title) == ("Loss", "Accuracy (%)")
    assert [curve.label for curve in loss.curves] == ["fold 1", "all images"]
    assert [len(curve.dots) for curve in loss.curves] == [3, 2]
    heights = [dot.y for dot in loss.curves[0].dots]
    assert heights == sorted(heights)  # a loss that falls goes down the page


@pytest.mark.parametrize("losses", [[1.0], [0.5, 0.5, 0.5], [0.0, 0.0], list(np.linspace(2, 0.1, 300))])
def test_any_history_stays_inside_its_chart(losses: list[float]):
    for chart in history_charts(epochs("all", losses)):
        numbers = [float(number) for number in chart.curves[0].path[1:].replace("L", "").split()]
        assert all(LEFT <= x <= RIGHT for x in numbers[::2])
        assert all(TOP <= y <= CURVE_BOTTOM for y in numbers[1::2])
        assert 1 <= len(chart.x_ticks) <= 9
        assert all(float(tick.text) == int(tick.text) for tick in chart.x_ticks)


def test_no_history_has_no_chart():
    assert history_charts(()) == ()


def test_learning_rates_are_those_of_the_last_training_by_group_from_the_head_down():
    rates = [(0.001, 0.01, 0.1), (0.0001, 0.001, 0.01), (0.0, 0.0, 0.0)]
    history = [
        EpochRecord(stage="all", epoch=i + 1, step=i, loss=1.0, accuracy=0.5, learning_rates=found)
        for i, found in enumerate(rates)
    ]

    *_, chart = history_charts([*epochs("fold 1", [1.0]), *history], ("stem", "stage1", "head"))

    assert [curve.label for curve in chart.curves] == ["head", "stage1", "stem"]
    assert [len(curve.dots) for curve in chart.curves] == [2, 2, 2]  # a rate of 0 has no logarithm
    decades = np.diff([tick.at for tick in chart.y_ticks])
    head, stage, _ = chart.curves
    assert stage.dots[0].y - head.dots[0].y == pytest.approx(-decades[0], abs=0.02)
    assert [tick.text for tick in chart.y_ticks] == ["10⁻⁴", "0.001", "0.01", "0.1"]


def test_a_frozen_group_has_no_rate_and_no_rates_no_chart():
    history = [EpochRecord(stage="all", epoch=1, step=1, loss=1.0, accuracy=0.5, learning_rates=(0.0, 0.1))]
    stopped = [EpochRecord(stage="all", epoch=1, step=1, loss=1.0, accuracy=0.5, learning_rates=(0.0, 0.0))]

    *_, chart = history_charts(history, ("stem", "head"))

    assert [curve.label for curve in chart.curves] == ["head"]
    assert len(history_charts(stopped)) == 2


def test_twice_the_labels_are_what_the_planner_predicts():
    found = more_labels(evidence(CURVE), n_labelled=1000)

    assert found is not None
    predicted = accuracy_with_twice_the_images(CURVE)
    assert predicted is not None
    assert found.present == "With 1,000 labelled images the curve stands at 85.0 %."
    gain = 100 * (predicted - 0.85)
    assert found.future == f"Twice as many, 2,000, would bring it to about {100 * predicted:.1f} %: {gain:+.1f} points."
    assert [tick.text for tick in found.chart.x_ticks] == ["250", "500", "1,000", "2,000"]
    measured, ahead = found.chart.curves
    assert [dot.text for dot in measured.dots] == ["78.0", "82.0", "85.0"]
    assert [dot.text for dot in ahead.dots] == [f"{100 * predicted:.1f}"]
    assert ahead.predicted


def test_a_curve_of_a_sample_is_extended_to_all_images_and_to_twice_as_many():
    found = more_labels(evidence(CURVE), n_labelled=4000)

    assert found is not None
    assert "that is a sample of the 4,000 there are" in found.present
    assert [tick.text for tick in found.chart.x_ticks] == ["250", "500", "1,000", "4,000", "8,000"]
    slope, limit = np.polyfit([1 / math.sqrt(n) for n, _ in CURVE], [1 - accuracy for _, accuracy in CURVE], 1)
    expected = [100 * (1 - limit - slope / math.sqrt(n)) for n in (4000, 8000)]
    assert [dot.text for dot in found.chart.curves[1].dots] == [f"{value:.1f}" for value in expected]


def test_a_curve_of_two_points_is_shown_and_predicts_nothing():
    found = more_labels(evidence(CURVE[:2]), n_labelled=500)

    assert found is not None
    assert "Too few points" in found.future
    assert len(found.chart.curves) == 1


@pytest.mark.parametrize("found", [None, evidence(()), evidence(CURVE[:1])])
def test_there_is_no_curve_of_less_than_two_points(found: ProbeEvidence | None):
    assert more_labels(found, n_labelled=1000) is None


@pytest.mark.parametrize("curve", [((10, 1.0), (20, 1.0), (40, 1.0)), ((10, 0.0), (20, 0.01), (40, 0.0))])
def test_a_learning_curve_stays_inside_its_chart(curve: tuple[tuple[int, float], ...]):
    found = more_labels(evidence(curve), n_labelled=40)

    assert found is not None
    dots = [dot for curve in found.chart.curves for dot in curve.dots]
    assert all(LEFT <= dot.x <= RIGHT and TOP <= dot.y <= CURVE_BOTTOM for dot in dots)
