from itertools import pairwise

import pytest

from bottleneck.planner import Budget, Request
from bottleneck.planner.costs import (
    TIME_FACTOR,
    anew_seconds,
    checkpoints_disk_bytes,
    features_disk_bytes,
    further_seconds,
    keeps_checkpoints,
    probe_cost,
    training_cost,
)
from bottleneck.planner.estimates import plus
from bottleneck.planner.head_costs import further_share, head_seconds
from bottleneck.planner.memory import LOADED_BYTES, in_memory_bytes, sizes_of
from bottleneck.planner.shapes import (
    TrainingShape,
    n_folds,
    n_held_out,
    recipe_steps,
    scratch_steps,
    shape_of_finetuning,
)

FIRST_IN_PROCESS = 0.1


def request_of(profile, *, evidence=None, budget=None):
    return Request(profile=profile, budget=budget or Budget(), evidence=evidence, strategy="auto", seed=0)


def recipe_of(profile):
    return TrainingShape(folds=n_folds(profile.n_samples))


def test_smaller_images_cost_less_in_training_only(profile_of):
    request = request_of(profile_of())
    shape, smaller = TrainingShape(folds=3), TrainingShape(folds=3, image_scale=0.5)
    none, full = (training_cost(request, steps, shape).seconds.value for steps in (0, 100))
    no_small, small = (training_cost(request, steps, smaller).seconds.value for steps in (0, 100))

    assert small - no_small == pytest.approx((full - none) / 4)


def test_the_feature_pass_is_paid_only_for_images_that_the_cache_misses(profile_of):
    per_image = 0.002 + 0.01
    once_more = 1.5 * 16 * per_image  # a few of the images, to see how strange they are to BatchNorm

    cold, half, warm = (probe_cost(request_of(profile_of(rows_cached=n)), "all_stages") for n in (0, 1_409, 3_409))

    assert cold.seconds.value - warm.seconds.value == pytest.approx(3_409 * per_image + once_more)
    assert half.seconds.value - warm.seconds.value == pytest.approx(2_000 * per_image + once_more)
    for cost, missing in ((cold, 3_409), (half, 2_000)):
        assert missing * 4_848 < cost.disk_bytes < 1.15 * missing * 4_848
    assert warm.disk_bytes == 0


def test_every_layer_goes_to_the_disk_whichever_the_probe_is_on(profile_of):
    request = request_of(profile_of(rows_cached=0, n_features=1_000, n_features_all_stages=4_000))

    assert probe_cost(request, "penultimate").disk_bytes == probe_cost(request, "all_stages").disk_bytes


def test_features_that_the_disk_limit_keeps_out_take_no_disk_and_must_fit_in_memory(profile_of):
    profile = profile_of(n_samples=100_000, smallest_class=1, rows_cached=0)
    needed = features_disk_bytes(profile)
    enough, short = (request_of(profile, budget=Budget(disk_bytes=limit)) for limit in (needed, needed - 1))

    kept, held = probe_cost(enough, "penultimate"), probe_cost(short, "penultimate")

    assert (kept.disk_bytes, held.disk_bytes) == (needed, 0)
    assert held.memory_bytes > in_memory_bytes(sizes_of(profile))
    assert not keeps_checkpoints(enough)
    assert training_cost(enough, 300, recipe_of(profile)).disk_bytes == needed


def test_checkpoints_take_two_times_five_copies_of_the_weights(profile_of):
    small, large = (checkpoints_disk_bytes(profile_of(n_parameters=n)) for n in (1_000_000, 11_000_000))

    assert large - small == pytest.approx(1.05 * 2 * 5 * 40_000_000)


def test_checkpoints_are_left_out_where_only_the_features_fit(profile_of):
    profile = profile_of(rows_cached=0)
    needed = features_disk_bytes(profile) + checkpoints_disk_bytes(profile)

    for limit, kept in ((needed, True), (needed - 1, False)):
        request = request_of(profile, budget=Budget(disk_bytes=limit))

        assert keeps_checkpoints(request) == kept
        assert training_cost(request, 300, recipe_of(profile)).disk_bytes <= limit


def test_measured_head_seconds_replace_the_guess(profile_of, evidence_of):
    profile = profile_of(rows_cached=3_409)

    measured, both = (
        probe_cost(request_of(profile, evidence=evidence_of(head_seconds=7.5)), layers).seconds
        for layers in ("penultimate", "all_stages")
    )

    assert (measured.low, measured.value, measured.high) == (7.5, 7.5, 7.5)
    further = 7.5 * 3_409 / 2_000  # the more rows, the less of the first head was screening
    assert both.low == pytest.approx(7.5 + further / 1.5)
    assert both.value == pytest.approx(7.5 + further)
    assert both.high == pytest.approx(7.5 + 1.5 * further)


@pytest.mark.parametrize(
    ("n", "width", "share"),
    [(50, 2_416, 1.0), (3_000, 2_416, 1.5), (200_000, 2_416, 2_416 / 1_280), (6_000, 6_400, 3.0)],
)
def test_a_head_on_all_stages_takes_the_longer_the_more_rows_there_are(profile_of, n, width, share):
    counts = {"n_samples": n, "smallest_class": 1, "largest_class": n // 2, "rows_cached": 0}

    assert further_share(profile_of(n_features_all_stages=width, **counts)) == pytest.approx(share)


@pytest.mark.parametrize(
    ("n", "width", "classes", "took"),
    [
        (200, 1_440, 10, 0.060),
        (800, 1_440, 10, 0.33),
        (2_000, 1_440, 8, 1.75),
        (800, 176, 20, 0.12),
        (2_000, 176, 10, 0.167),
        (800, 2_728, 10, 0.82),
    ],
)
def test_the_guess_for_a_head_is_near_to_what_heads_took(profile_of, n, width, classes, took):
    """Seconds of heads in a process that had fitted one before."""
    counts = {
        "n_samples": n,
        "n_classes": classes,
        "smallest_class": 2,
        "largest_class": n // classes,
        "rows_cached": n,
    }
    profile = profile_of(n_features_all_stages=width, n_features=64, **counts)

    guess = head_seconds(request_of(profile)).value - FIRST_IN_PROCESS

    assert took / 1.7 < guess < took * 1.7


def test_seconds_spent_replace_every_estimate_of_the_probe_in_hand(profile_of, evidence_of):
    request = request_of(profile_of(), evidence=evidence_of(spent_seconds=99.0, head_seconds=8.0))

    spent, wider = (probe_cost(request, layers).seconds for layers in ("penultimate", "all_stages"))

    assert (spent.low, spent.value, spent.high) == (99.0, 99.0, 99.0)
    assert wider.value == pytest.approx(99.0 + 8.0 * 3_409 / 2_000)


@pytest.mark.parametrize(("n", "folds", "held_out"), [(90, 3, 90), (900, 1, 300), (4_000, 1, 1_000)])
def test_a_third_of_the_steps_is_paid_in_each_fold_and_the_others_on_all_images(
    profile_of, evidence_of, n, folds, held_out
):
    profile = profile_of(n_samples=n, largest_class=n // 2, smallest_class=1, rows_cached=0)
    evidence = evidence_of(head_seconds=3.0, spent_seconds=50.0)

    seconds = training_cost(request_of(profile, evidence=evidence), 600, recipe_of(profile)).seconds.value

    network = (folds * 200 + 400 + 8) * 32 * 0.03 + held_out * 5 * 0.01  # 8: to find out how high rates may be
    heads = (3.0 / 2 * folds + 3.0) * max(min(n / 2_000, 2_416 / 1_280), 1)  # of folds, and one on all
    assert seconds == pytest.approx(50.0 + heads + network + 2 * n * 0.002)


def test_from_random_weights_each_training_takes_all_steps(profile_of, evidence_of):
    request = request_of(
        profile_of(n_samples=90, largest_class=45, smallest_class=1, rows_cached=0), evidence=evidence_of()
    )
    none, some = (
        training_cost(request, steps, TrainingShape(folds=3, fold_share=1.0)).seconds.value for steps in (1, 601)
    )

    assert some - none == pytest.approx(4 * 600 * 32 * 0.03)


@pytest.mark.parametrize(
    ("n", "folds", "may_grow", "value", "high"),
    [(900, 1, True, 0.9, 2), (4_000, 1, True, 0.9, 3), (900, 3, True, 0, 0), (900, 1, False, 0, 0)],
)
def test_folds_that_follow_in_doubt_are_expected_as_often_as_they_were_seen(
    profile_of, evidence_of, n, folds, may_grow, value, high
):
    profile = profile_of(n_samples=n, smallest_class=1, largest_class=450, rows_cached=0)
    shape = TrainingShape(folds=folds, may_grow=may_grow)
    request = request_of(profile, evidence=evidence_of(head_seconds=3.0))

    further = further_seconds(request, 600, shape)

    a_fold, head = 200 * 32 * 0.03 + n_held_out(n, folds) * 5 * 0.01, 1.5 * further_share(profile)
    assert further.low == 0
    assert further.value == pytest.approx(value * (a_fold + head))
    assert further.high == pytest.approx(high * (TIME_FACTOR * a_fold + head))


def test_a_last_training_that_begins_anew_takes_the_steps_of_a_fold_more_where_that_fits(profile_of, evidence_of):
    profile = profile_of(n_samples=900, smallest_class=1, largest_class=450, rows_cached=0)
    request, steps = request_of(profile, evidence=evidence_of()), recipe_steps(900)
    shape = shape_of_finetuning(request)
    whole = plus(training_cost(request, steps, shape).seconds, further_seconds(request, steps, shape))
    more = steps / 3 * 32 * 0.03

    ample, sure, fitting, short = (
        anew_seconds(request, steps, shape, limit=limit)
        for limit in (None, whole.high + more * TIME_FACTOR, whole.value + more + 1, whole.value + more - 1)
    )

    assert (ample.low, ample.value, ample.high) == pytest.approx((more / TIME_FACTOR, more, more * TIME_FACTOR))
    assert sure == ample
    assert (fitting.low, fitting.value, fitting.high) == (0, ample.value, ample.high)
    assert (short.low, short.value, short.high) == (0, 0, ample.high)


@pytest.mark.parametrize(
    ("given", "n_steps"),
    [
        ({"n_samples": 99}, 250),
        ({"n_samples": 900, "pretrained": False}, 750),
        ({"n_samples": 900}, 749),  # the recipe has 25 sqrt(900)
    ],
)
def test_few_images_or_steps_and_networks_that_know_nothing_are_not_priced_as_beginning_anew(
    profile_of, evidence_of, given, n_steps
):
    profile = profile_of(smallest_class=1, largest_class=50, rows_cached=0, **given)
    request = request_of(profile, evidence=evidence_of())

    assert anew_seconds(request, n_steps, shape_of_finetuning(request), limit=None).high == 0


def test_images_that_memory_does_not_keep_are_decoded_each_time_they_are_seen(profile_of, evidence_of):
    profile = profile_of(n_samples=4_000, rows_cached=0)
    pixels = 4_000 * 3 * 224 * 224
    kept, streamed = (
        training_cost(
            request_of(profile, evidence=evidence_of(), budget=Budget(memory_bytes=limit)), 600, recipe_of(profile)
        ).seconds.value
        for limit in (10 * pixels, pixels)
    )

    assert streamed - kept == pytest.approx((600 * 32 + 5 * 1_000 - 2 * 4_000) * 0.002)


def test_training_holds_nine_copies_of_the_network_and_a_batch_or_as_much_of_it_as_fits(profile_of):
    few = {"n_samples": 300, "largest_class": 30, "smallest_class": 30, "rows_cached": 0}
    profile = profile_of(n_parameters=10_000_000, train_bytes_per_image=50_000_000, **few)
    copies, image, features = 9 * 40_000_000 + LOADED_BYTES, 50_000_000, 4 * 300 * 2_416

    taken = [
        training_cost(request_of(profile, budget=Budget(memory_bytes=limit)), 300, recipe_of(profile)).memory_bytes
        for limit in (10**10, copies + 10 * image, copies)
    ]

    assert taken == [copies + 32 * image, copies + 10 * image, copies + image + features]


def test_a_probe_streams_its_features_when_memory_is_short(profile_of):
    profile = profile_of(n_parameters=1_000, n_samples=100_000, smallest_class=1)
    whole = in_memory_bytes(sizes_of(profile))

    roomy, tight = (
        probe_cost(request_of(profile, budget=Budget(memory_bytes=limit)), "penultimate").memory_bytes
        for limit in (10**10, whole // 2)
    )

    assert roomy == whole + 12_000 < 7e9
    assert tight == whole // 2


def test_estimates_lie_between_their_bounds_and_costs_keep_their_order(cases):
    for profile, budget, evidence in cases:
        request = request_of(profile, evidence=evidence, budget=budget)
        costs = [
            probe_cost(request, "penultimate"),
            probe_cost(request, "all_stages"),
            training_cost(request, recipe_steps(profile.n_samples), recipe_of(profile)),
            training_cost(request, scratch_steps(request), recipe_of(profile)),
        ]

        for cost in costs:
            assert 0 <= cost.seconds.low <= cost.seconds.value <= cost.seconds.high
        for cheap, dear in pairwise(costs):
            assert cheap.seconds.value <= dear.seconds.value
            assert cheap.memory_bytes <= dear.memory_bytes
            assert cheap.disk_bytes <= dear.disk_bytes
