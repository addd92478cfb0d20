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


@pytest.mark.parametrize("rates", [(900.0, 60.0, 8.5), (15.2, 15.6, 16.0)])
def test_names_stay_in_the_axes_and_ticks_are_plain_numbers(rates):
    """Over decades and within a fraction of one, where a log axis has no power of ten to write."""
    figure = pytest.importorskip("matplotlib.figure").Figure(layout="constrained")
    axes = figure.subplots()
    rows = [
        {"images_per_second": rate, "accuracy": 0.9, "accuracy_low": 0.899, "accuracy_high": 0.901} for rate in rates
    ]

    draw_costs(axes, rows, ["embedded", "timm:convnext_tiny.in12k", "vit_b_16 (IMAGENET1K_SWAG_E2E_V1)"], majority=0.8)

    figure.draw_without_rendering()
    frame = axes.get_window_extent()
    assert all(frame.containsx(x) for text in axes.texts for x in text.get_window_extent().intervalx)
    assert all(frame.containsy(y) for text in axes.texts for y in text.get_window_extent().intervaly)
    ticks = [tick.get_text() for tick in axes.get_xticklabels(which="both")]
    assert len([tick for tick in ticks if tick]) >= 3
    assert all(tick.replace(".", "").replace(",", "").isdecimal() for tick in ticks)
