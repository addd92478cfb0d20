from random import Random
from statistics import fmean, stdev

import pytest

from bottleneck.planner.evidence import Trial, TrialRun
from bottleneck.planner.gain import (
    GAIN_SHARE,
    GAIN_SPREAD,
    SHORTFALL,
    SHORTFALL_SPREAD,
    Gain,
    accuracy_with,
    accuracy_with_twice_the_images,
    best_run,
    finetuned_accuracy,
    predict_gain,
    probe_accuracy,
    unseen,
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


def test_without_the_all_stages_probe_the_gain_is_the_tables_share_of_the_headroom(profile_of, evidence_of):
    gain = predict_gain(evidence_of(accuracy=0.8, all_stages_accuracy=None), profile_of())

    assert (gain.centre, gain.spread) == pytest.approx((0.335 * 0.2, 0.315 * 0.2))


def test_with_it_the_gain_is_the_documented_line(profile_of, evidence_of):
    gain = predict_gain(evidence_of(accuracy=0.6, all_stages_accuracy=0.65, standard_error=0.0), profile_of())

    assert gain.centre == pytest.approx(0.08 * 0.4 + 1.3 * 0.05, abs=0.005)
    assert gain.spread == pytest.approx(0.27 * 0.4, abs=0.005)


def test_a_gain_grows_with_delta_multi_and_its_spread_with_the_standard_error(profile_of, evidence_of):
    deltas, errors = (-0.05, 0.0, 0.05, 0.1), (0.0, 0.01, 0.05)
    means = [predict_gain(evidence_of(all_stages_accuracy=0.6 + delta), profile_of()).mean for delta in deltas]
    spreads = [predict_gain(evidence_of(standard_error=error), profile_of()).spread for error in errors]

    assert means == sorted(set(means))
    assert spreads == sorted(set(spreads))


def test_the_headroom_bounds_every_gain(cases):
    for profile, _, evidence in cases:
        if evidence is None:
            continue
        gain = predict_gain(evidence, profile)
        predicted = finetuned_accuracy(evidence, profile)

        assert gain.mean <= gain.headroom + 1e-12
        assert gain.interval[0] <= gain.mean <= gain.interval[1] <= gain.headroom + 1e-12
        assert gain.chance_above(gain.headroom) == 0
        tried = evidence.trial is not None and evidence.trial.runs
        assert (predicted is None) == (bool(unseen(evidence, profile)) and not tried)
        assert predicted is None or 0 <= predicted.low <= predicted.value <= predicted.high <= 1


@pytest.mark.parametrize(("centre", "spread"), [(0.02, 0.05), (0.09, 0.05), (0.12, 0.03)])
def test_mean_interval_and_chance_agree_with_draws_below_the_headroom(centre, spread):
    rng, gain = Random(0), Gain(centre=centre, spread=spread, headroom=0.1)
    draws = [draw for draw in (rng.gauss(centre, spread) for _ in range(40_000)) if draw < 0.1]

    assert gain.mean == pytest.approx(fmean(draws), abs=0.001)
    assert gain.chance_above(0.01) == pytest.approx(fmean(draw > 0.01 for draw in draws), abs=0.01)
    low, high = gain.interval
    assert fmean(draw < low for draw in draws) == pytest.approx(0.05, abs=0.005)
    assert fmean(draw > high for draw in draws) == pytest.approx(0.05, abs=0.005)


def test_a_probe_without_headroom_leaves_no_chance(profile_of, evidence_of):
    gain = predict_gain(evidence_of(accuracy=1.0, standard_error=0.0, all_stages_accuracy=1.0), profile_of())

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


# --- outside of what was seen, and what a trial showed ---


@pytest.mark.parametrize(
    ("changes", "evidence", "said"),
    [
        ({"n_samples": 24, "largest_class": 5, "smallest_class": 1, "rows_cached": 0}, {}, "24 images"),
        ({"n_classes": 1_001}, {}, "1,001 classes"),
        ({"n_parameters": 86_000_000}, {}, "86,000,000 parameters"),
        ({"has_layer_norm": True}, {}, "LayerNorm"),
        ({}, {"accuracy": 0.4, "all_stages_accuracy": 0.8}, "+40.0 points"),
    ],
)
def test_what_is_far_outside_of_what_was_seen_is_unknown(profile_of, evidence_of, changes, evidence, said):
    inside, outside = profile_of(), profile_of(**changes)
    known, asked = evidence_of(), evidence_of(**evidence)

    assert unseen(known, inside) == ()
    assert [said in part for part in unseen(asked, outside)] == [True]
    assert finetuned_accuracy(known, inside) is not None
    assert finetuned_accuracy(asked, outside) is None
    assert predict_gain(asked, outside).spread == pytest.approx(2 * predict_gain(asked, inside).spread) or not changes


def trial_of(*runs, starts_from="penultimate", n_images=100) -> Trial:
    found = tuple(TrialRun(regime=regime, gain=gain, standard_error=error, alpha=1.0) for regime, gain, error in runs)
    return Trial(runs=found, steps=60, n_images=n_images, starts_from=starts_from, seconds=5.0)


def test_a_trial_is_weighed_against_the_line_by_how_sure_each_is(profile_of, evidence_of):
    told = evidence_of(accuracy=0.6, all_stages_accuracy=0.6)
    prior = predict_gain(told, profile_of())

    gain = predict_gain(
        evidence_of(accuracy=0.6, all_stages_accuracy=0.6, trial=trial_of(("far", 0.1, 0.03))), profile_of()
    )

    measured, variance = 0.1 + SHORTFALL * 0.4, 0.03**2 + (SHORTFALL_SPREAD * 0.4) ** 2
    precision = 1 / prior.spread**2 + 1 / variance
    assert gain.centre == pytest.approx((prior.centre / prior.spread**2 + measured / variance) / precision)
    assert gain.spread == pytest.approx(precision**-0.5)


def test_a_trial_that_started_from_all_stages_gains_beside_what_these_add(profile_of, evidence_of):
    means = [
        predict_gain(
            evidence_of(accuracy=0.5, all_stages_accuracy=0.6, trial=trial_of(("far", 0.1, 0.01), starts_from=layers)),
            profile_of(),
        ).mean
        for layers in ("penultimate", "all_stages")
    ]

    assert means[1] - means[0] == pytest.approx(0.1, abs=0.03)


def test_a_handful_of_images_that_agree_are_not_certainty(profile_of, evidence_of):
    spreads = [
        predict_gain(evidence_of(trial=trial_of(("far", 0.0, 0.0), n_images=n)), profile_of()).spread for n in (5, 500)
    ]

    assert spreads[0] > 1.5 * spreads[1]


def test_another_recipe_must_do_clearly_better_than_the_one_that_the_evidence_suggests():
    assert best_run(trial_of(("near", 0.05, 0.02), ("far", 0.055, 0.02))).regime == "near"
    assert best_run(trial_of(("near", 0.05, 0.02), ("far", 0.08, 0.02))).regime == "far"
    assert best_run(trial_of(("far", 0.01, 0.02))).regime == "far"
    assert best_run(trial_of()) is None
