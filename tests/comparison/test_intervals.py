"""Intervals that keep their promise, for one accuracy and for two on the same images."""

import numpy as np
import pytest
from scipy.stats import binomtest

from bottleneck.comparison.intervals import accuracy_interval, difference_interval


@pytest.mark.parametrize(("n_right", "n"), [(0, 7), (7, 7), (93, 100), (1, 3)])
def test_accuracy_has_the_interval_of_wilson(n_right, n):
    expected = binomtest(n_right, n).proportion_ci(method="wilson")

    found = accuracy_interval(np.arange(n) < n_right)

    assert (found.value, found.low, found.high) == pytest.approx((n_right / n, expected.low, expected.high))


def test_images_of_one_group_count_for_fewer():
    correct = np.repeat([True, True, True, False], 25)
    groups = np.repeat([0, 1, 2, 3], 25)

    alone, grouped = accuracy_interval(correct), accuracy_interval(correct, groups)

    assert grouped.value == alone.value == 0.75
    assert grouped.low < alone.low
    assert (grouped.low, grouped.high) == pytest.approx(
        binomtest(3, 4).proportion_ci(method="wilson"), abs=0.05
    )  # as if each group were an image
    all_right = accuracy_interval(np.ones(100, bool), groups)
    assert all_right.low == pytest.approx(binomtest(4, 4).proportion_ci(method="wilson").low)


def test_groups_of_one_are_no_groups():
    correct = np.random.default_rng(0).random(60) < 0.8

    grouped, alone = accuracy_interval(correct, np.arange(60)), accuracy_interval(correct)

    assert (grouped.low, grouped.high) == pytest.approx((alone.low, alone.high), abs=0.01)


def test_difference_counts_only_where_they_differ():
    """Two that err on the same images are told apart far better than their own intervals would let expect."""
    other = np.arange(400) < 300
    correct = np.arange(400) < 312

    found = difference_interval(correct, other)

    assert found.value == pytest.approx(0.03)
    assert 0 < found.low < found.value < found.high < 0.06
    assert accuracy_interval(other).high > accuracy_interval(correct).low


def test_difference_has_another_sign_the_other_way_round():
    rng = np.random.default_rng(0)
    first, second = rng.random(80) < 0.9, rng.random(80) < 0.7

    one, other = difference_interval(first, second), difference_interval(second, first)

    assert (one.value, one.low, one.high) == pytest.approx((-other.value, -other.high, -other.low))


def test_agreement_on_every_image_is_not_taken_for_certainty():
    same = np.arange(30) < 20

    found = difference_interval(same, same)

    assert found.value == 0
    assert found.low == pytest.approx(-found.high)
    assert 0.03 < found.high < 0.1


def test_difference_covers_the_truth_as_often_as_it_says():
    """1,000 draws of two backbones whose errors go together: 95 of 100 intervals hold the true difference."""
    rng = np.random.default_rng(0)
    n, truth, covered = 120, 0.05, 0
    for _ in range(1000):
        hard = rng.random(n)
        first, second = hard < 0.90 - 0.05 * rng.random(n), hard < 0.85 - 0.05 * rng.random(n)
        found = difference_interval(first, second)
        covered += found.low <= truth <= found.high

    assert 930 <= covered <= 990
