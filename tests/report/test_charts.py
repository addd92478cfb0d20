import numpy as np
import pytest

from bottleneck.report.calibration import calibrate
from bottleneck.report.charts import (
    COUNTS_TOP,
    SQUARE_BOTTOM,
    TOP,
    Axis,
    reliability_chart,
    round_ticks,
)


@pytest.mark.parametrize(
    ("low", "high"), [(0, 1), (0.0203, 2.31), (1, 7), (1, 1), (0, 0), (98.7, 99.1), (1e-9, 2e-9), (3, 12_345), (-2, 5)]
)
def test_ticks_are_few_round_numbers_that_enclose_the_values(low: float, high: float):
    ticks = round_ticks(low, high, most=5)

    steps = np.diff(ticks)
    assert ticks[0] <= low + 1e-12
    assert ticks[-1] >= high - 1e-12
    assert 2 <= len(ticks) <= 7
    np.testing.assert_allclose(steps, steps[0])
    assert f"{steps[0]:.6e}"[0] in "125"


def test_ticks_of_a_share_are_what_a_person_would_write():
    assert round_ticks(0.03, 0.97, most=5) == [0, 0.2, 0.4, 0.6, 0.8, 1.0]


def test_axis_puts_its_ends_where_they_belong():
    axis = Axis(low=10, high=20, start=300, end=100)

    assert [axis.at(value) for value in (10, 15, 20)] == [300, 200, 100]


def test_bars_of_reliability_reach_the_accuracy_of_their_bin():
    calibration = calibrate(np.array([0.41, 0.42, 0.99, 0.98, 0.97]), np.array([True, False, True, True, True]))

    half, sure = reliability_chart(calibration).bars

    assert half.top == (SQUARE_BOTTOM + TOP) / 2
    assert sure.top == TOP == sure.high
    assert half.low > half.top > half.high  # the page counts downwards
    assert sure.count_top == COUNTS_TOP < half.count_top
    assert half.words == "2 images, 41.5 % sure on average, 50.0 % right"
