from itertools import pairwise
from math import sqrt

import pytest

from bottleneck.planner import Budget, Request
from bottleneck.planner.costs import (
    TrainingShape,
    affordable_steps,
    half_the_recipe,
    n_folds,
    probe_cost,
    recipe_steps,
    scratch_steps,
    shortest_finetuning,
    training_cost,
)


def request_of(profile, *, evidence=None, budget=None):
    return Request(profile=profile, budget=budget or Budget(), evidence=evidence, strategy="auto", seed=0)


def recipe_of(profile):
    return TrainingShape(folds=n_folds(profile.n_samples))


@pytest.mark.parametrize(
    ("n", "steps"),
    [
        (20, 300),  # 60 sqrt(20) = 268: the floor
        (300, round(60 * sqrt(300))),
        (301, 60 * 301 // 32),  # from here on at most 60 epochs
        (3_409, round(60 * sqrt(3_409))),
        (10_000, 5_000),  # 60 sqrt(10,000) = 6,000: the ceiling
    ],
)
def test_steps_follow_the_recipe(n, steps):
    assert recipe_steps(n) == steps


def test_training_from_scratch_takes_sixty_epochs_and_never_less_than_fine_tuning():
    assert scratch_steps(32_000) == 60_000
    assert all(scratch_steps(n) >= recipe_steps(n) for n in range(20, 20_000, 37))


def test_small_sets_are_cross_fitted_and_large_ones_held_out():
    assert [n_folds(n) for n in (50, 999, 3_000, 100_000)] == [3, 3, 1, 1]


def test_the_steps_bought_are_the_most_that_the_time_buys():
    def seconds(steps):
        return 10 + 0.1 * steps

    for limit in (50.0, 60.0, 60.05, 99.9, 1_000.0):
        bought = affordable_steps(500, 1_000, limit, seconds)

        naive = [steps for steps in range(500, 1_001) if seconds(steps) <= limit]
        assert bought == (naive[-1] if naive else 500)
    assert affordable_steps(500, 1_000, None, seconds) == 1_000


def test_the_shortest_run_is_sixty_steps_from_a_probe_and_half_the_recipe_from_nothing():
    assert [shortest_finetuning(full) for full in (5_000, 40)] == [60, 40]
    assert [half_the_recipe(full) for full in (5_000, 564, 40)] == [2_500, 300, 40]


def test_smaller_images_cost_less_in_training_only(profile_of):
    request = request_of(profile_of())
    shape, smaller = TrainingShape(folds=3), TrainingShape(folds=3, image_scale=0.5)
    none, full = (training_cost(request, steps, shape).seconds.value for steps in (0, 100))
    small = training_cost(request, 100, smaller).seconds.value

    assert small - none == pytest.approx((full - none) / 4)


def test_the_feature_pass_is_paid_only_for_images_that_the_cache_misses(profile_of):
    per_image = 0.002 + 0.01

    cold, half, warm = (probe_cost(request_of(profile_of(rows_cached=n)), "all_stages") for n in (0, 1_409, 3_409))

    assert cold.seconds.value - warm.seconds.value == pytest.approx(3_409 * per_image)
    assert half.seconds.value - warm.seconds.value == pytest.approx(2_000 * per_image)
    assert (cold.disk_bytes, half.disk_bytes, warm.disk_bytes) == (3_409 * 4_848, 2_000 * 4_848, 0)


def test_the_penultimate_layer_takes_its_share_of_the_disk(profile_of):
    request = request_of(profile_of(rows_cached=0, n_features=1_000, n_features_all_stages=4_000))

    assert probe_cost(request, "penultimate").disk_bytes == 3_409 * 4_848 // 4


def test_measured_head_seconds_replace_the_guess(profile_of, evidence_of):
    profile = profile_of(rows_cached=3_409)

    measured = probe_cost(request_of(profile, evidence=evidence_of(head_seconds=7.5)), "all_stages").seconds

    assert (measured.low, measured.value, measured.high) == (7.5, 7.5, 7.5)


def test_seconds_spent_replace_every_estimate_of_the_probe_in_hand(profile_of, evidence_of):
    request = request_of(profile_of(), evidence=evidence_of(spent_seconds=99.0, head_seconds=8.0))

    spent, wider = (probe_cost(request, layers).seconds for layers in ("penultimate", "all_stages"))

    assert (spent.low, spent.value, spent.high) == (99.0, 99.0, 99.0)
    assert wider.value == pytest.approx(99.0 + 8.0 * 2_416 / 1_280)


@pytest.mark.parametrize(("n", "runs", "held_out"), [(900, 4, 900), (4_000, 2, 1_000)])
def test_training_is_paid_once_per_fold_and_once_for_the_refit(profile_of, evidence_of, n, runs, held_out):
    profile = profile_of(n_samples=n, largest_class=n // 2, smallest_class=1, rows_cached=0)
    evidence = evidence_of(head_seconds=3.0, spent_seconds=50.0)

    seconds = training_cost(request_of(profile, evidence=evidence), 600, recipe_of(profile)).seconds.value

    network = runs * 600 * 32 * 0.03 + held_out * 5 * 0.01
    heads = 3.0 * (runs - 1) + 3.0 * 2_416 / 1_280
    assert seconds == pytest.approx(50.0 + heads + network + 2 * n * 0.002)


def test_images_that_memory_does_not_keep_are_decoded_each_time_they_are_seen(profile_of, evidence_of):
    profile = profile_of(n_samples=4_000, rows_cached=0)
    pixels = 4_000 * 3 * 224 * 224
    kept, streamed = (
        training_cost(
            request_of(profile, evidence=evidence_of(), budget=Budget(memory_bytes=limit)), 600, recipe_of(profile)
        ).seconds.value
        for limit in (4 * pixels, 4 * pixels - 1)
    )

    assert streamed - kept == pytest.approx((2 * 600 * 32 + 5 * 1_000 - 2 * 4_000) * 0.002)


def test_training_holds_five_copies_of_the_network_and_one_batch(profile_of):
    profile = profile_of(n_parameters=1_000_000, train_bytes_per_image=10_000_000)

    assert training_cost(request_of(profile), 300, recipe_of(profile)).memory_bytes == 5 * 4_000_000 + 32 * 10_000_000


def test_a_probe_streams_its_features_when_memory_is_short(profile_of):
    roomy = request_of(profile_of(n_parameters=1_000))
    tight = request_of(profile_of(n_parameters=1_000), budget=Budget(memory_bytes=1_000_000))

    assert probe_cost(roomy, "penultimate").memory_bytes == 4_000 + 4 * 3_409 * 1_280
    assert probe_cost(tight, "penultimate").memory_bytes == 1_000_000


def test_estimates_lie_between_their_bounds_and_costs_keep_their_order(cases):
    for profile, budget, evidence in cases:
        request = request_of(profile, evidence=evidence, budget=budget)
        costs = [
            probe_cost(request, "penultimate"),
            probe_cost(request, "all_stages"),
            training_cost(request, recipe_steps(profile.n_samples), recipe_of(profile)),
            training_cost(request, scratch_steps(profile.n_samples), recipe_of(profile)),
        ]

        for cost in costs:
            assert 0 <= cost.seconds.low <= cost.seconds.value <= cost.seconds.high
        for cheap, dear in pairwise(costs):
            assert cheap.seconds.value <= dear.seconds.value
            assert cheap.memory_bytes <= dear.memory_bytes
            assert cheap.disk_bytes <= dear.disk_bytes
