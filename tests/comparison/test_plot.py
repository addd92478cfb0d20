"""Accuracy against cost."""

import pytest

from bottleneck.comparison.plot import draw_costs, unbeaten


def test_line_goes_through_those_that_no_cheaper_one_equals():
    assert unbeaten([3, 1, 2, 4], [90, 80, 79, 95]) == [1, 0, 3]
    assert unbeaten([1, 1], [80, 90]) == [1]


def test_every_backbone_is_a_point_with_its_name():
    figure = pytest.importorskip("matplotlib.figure").Figure()
    axes = figure.subplots()
    rows = [
        {"images_per_second": rate, "accuracy": 0.9, "accuracy_low": 0.85, "accuracy_high": 0.94}
        for rate in (100.0, 10.0)
    ]

    draw_costs(axes, rows, ["small", "large"], majority=0.5)

    assert [text.get_text() for text in axes.texts] == ["small", "large"]
    assert axes.get_xscale() == "log"
    assert sorted(axes.lines[0].get_xdata()) == [10.0, 100.0]
