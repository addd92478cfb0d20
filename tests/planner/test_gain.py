from random import Random
from statistics import fmean, stdev

import pytest

from bottleneck.planner.gain import (
    GAIN_SHARE,
    GAIN_SPREAD,
    Gain,
    accuracy_with,
    accuracy_with_twice_the_images,
    finetuned_accuracy,
    predict_gain,
    probe_accuracy,
)

# BYOL Table 3 (Grill et al. 2020): accuracy of the linear probe and gain of fine-tuning, in points.
TABLE = [
    (72.3, 16.0),
    (93.6, 3.9),
    (78.3, 8.1),
    (53.7, 22.1),
    (61.9, 2.4),
    (66.7, 25.4),
    (61.0, 25.0),
    (82.8, 2.2),
    (74.9, -0.3),
    (91.5, 0.6),
    (94.5, -1.2),
    (94.7, 2.9),
]


def test_the_prior_is_the_table_that_it_cites():
    shares = [gain / (100 - accuracy) for accuracy, gain in TABLE]

    assert fmean(shares) == pytest.approx(GAIN_SHARE, abs=5e-4)
    assert stdev(shares) == pytest.approx(GAIN_SPREAD, abs=5e-4)


def test_without_the_all_stages_probe_the_gain_is_the_tables_share_of_the_headroom(evidence_of):
    gain = predict_gain(evidence_of(accuracy=0.8, all_stages_accuracy=None))

    assert (gain.centre, gain.spread) == pytest.approx((0.335 * 0.2, 0.315 * 0.2))


def test_with_it_the_gain_is_the_documented_line(evidence_of):
    gain = predict_gain(evidence_of(accuracy=0.6, all_stages_accuracy=0.65, standard_error=0.0))

    assert gain.centre == pytest.approx(0.08 * 0.4 + 1.3 * 0.05, abs=0.005)
    assert gain.spread == pytest.approx(0.27 * 0.4, abs=0.005)


def test_a_gain_grows_with_delta_multi_and_its_spread_with_the_standard_error(evidence_of):
    means = [predict_gain(evidence_of(all_stages_accuracy=0.6 + delta)).mean for delta in (-0.05, 0.0, 0.05, 0.1)]
    spreads = [predict_gain(evidence_of(standard_error=error)).spread for error in (0.0, 0.01, 0.05)]

    assert means == sorted(set(means))
    assert spreads == sorted(set(spreads))


def test_the_headroom_bounds_every_gain(cases):
    for _, _, evidence in cases:
        if evidence is None:
            continue
        gain = predict_gain(evidence)
        predicted = finetuned_accuracy(evidence)

        assert gain.mean <= gain.headroom + 1e-12
        assert gain.interval[0] <= gain.mean <= gain.interval[1] <= gain.headroom + 1e-12
        assert gain.chance_above(gain.headroom) == 0
        assert 0 <= predicted.low <= predicted.value <= predicted.high <= 1


@pytest.mark.parametrize(("centre", "spread"), [(0.02, 0.05), (0.09, 0.05), (0.12, 0.03)])
def test_mean_interval_and_chance_agree_with_draws_below_the_headroom(centre, spread):
    rng, gain = Random(0), Gain(centre=centre, spread=spread, headroom=0.1)
    draws = [draw for draw in (rng.gauss(centre, spread) for _ in range(40_000)) if draw < 0.1]

    assert gain.mean == pytest.approx(fmean(draws), abs=0.001)
    assert gain.chance_above(0.01) == pytest.approx(fmean(draw > 0.01 for draw in draws), abs=0.01)
    low, high = gain.interval
    assert fmean(draw < low for draw in draws) == pytest.approx(0.05, abs=0.005)
    assert fmean(draw > high for draw in draws) == pytest.approx(0.05, abs=0.005)


def test_a_probe_without_headroom_leaves_no_chance(evidence_of):
    gain = predict_gain(evidence_of(accuracy=1.0, standard_error=0.0, all_stages_accuracy=1.0))

    assert gain.chance_above(0.0) == 0
    assert (gain.mean, gain.interval) == (0.0, (0.0, 0.0))


def test_a_probe_that_was_not_fitted_has_no_accuracy(evidence_of):
    assert probe_accuracy(evidence_of(all_stages_accuracy=None), "all_stages") is None


def test_a_probes_interval_is_its_standard_error_wide(evidence_of):
    estimate = probe_accuracy(evidence_of(accuracy=0.6, standard_error=0.01), "penultimate")

    assert (estimate.low, estimate.value, estimate.high) == pytest.approx((0.6 - 0.01645, 0.6, 0.6 + 0.01645))


def test_a_learning_curve_of_the_assumed_shape_is_continued_exactly():
    def accuracy(n):
        return 1 - (0.1 + 2 * n**-0.5)

    curve = tuple((n, accuracy(n)) for n in (100, 200, 400))

    assert accuracy_with_twice_the_images(curve) == pytest.approx(accuracy(800))
    assert accuracy_with(3_000, curve) == pytest.approx(accuracy(3_000))
    assert accuracy_with_twice_the_images(()) is None


def test_a_learning_curve_is_not_continued_from_two_sizes_nor_downwards_nor_above_one():
    assert accuracy_with_twice_the_images(((100, 0.5), (200, 0.6), (200, 0.61))) is None
    assert accuracy_with_twice_the_images(((100, 0.6), (200, 0.55), (400, 0.5))) == 0.5
    assert accuracy_with_twice_the_images(((100, 0.2), (200, 0.6), (400, 0.99))) == 1.0
