"""How long trainings are, and in how many pieces: as fine-tuning does it, whoever settles what."""

from itertools import product
from math import sqrt

import pytest

from bottleneck.estimators.planned import settings_for, wishes_of
from bottleneck.finetune import FineTuneSettings
from bottleneck.finetune.recipe import plan_recipe, steps_on_all
from bottleneck.planner import Budget, FineTune, Request, plan_transfer
from bottleneck.planner.shapes import (
    FOLD_SHARE,
    affordable_steps,
    half_the_recipe,
    n_folds,
    n_held_out,
    recipe_steps,
    scratch_steps,
    shape_of,
    shape_of_finetuning,
    shortest_finetuning,
    steps_of_trainings,
)
from bottleneck.planner.wishes import NO_WISHES
from tests.finetune.tasks import three_stage_backbone

FEW = {"smallest_class": 1, "largest_class": 10, "rows_cached": 0}


def request_of(profile, wishes=NO_WISHES):
    return Request(profile=profile, budget=Budget(), evidence=None, strategy="auto", seed=0, wishes=wishes)


@pytest.mark.parametrize(
    ("n", "steps"),
    [
        (20, 200),  # 25 sqrt(20) = 112: the floor
        (300, round(25 * sqrt(300))),
        (3_409, round(25 * sqrt(3_409))),
        (40_000, 4_000),  # 25 sqrt(40,000) = 5,000: the ceiling
    ],
)
def test_steps_follow_the_recipe(n, steps):
    assert recipe_steps(n) == steps


def test_training_from_scratch_takes_sixty_epochs_and_never_less_than_fine_tuning(profile_of):
    def steps(n):
        return scratch_steps(request_of(profile_of(n_samples=n, **FEW)))

    assert steps(32_000) == 60_000
    assert steps(20) == 200  # sixty epochs are 37 steps
    assert all(steps(n) >= recipe_steps(n) for n in range(20, 20_000, 37))


def test_few_images_are_cross_fitted_and_from_a_hundred_on_some_are_held_out():
    assert [n_folds(n) for n in (50, 99, 100, 100_000)] == [3, 3, 1, 1]


def test_one_hold_out_is_a_third_of_the_images_and_a_quarter_of_many():
    assert [n_held_out(n, 1) for n in (90, 300, 2_997, 3_000, 100_000)] == [30, 100, 999, 750, 25_000]


def test_each_fold_holds_out_its_share_and_at_least_one_image():
    assert [n_held_out(n, folds) for n, folds in ((90, 3), (4_000, 5), (2, 5))] == [30, 800, 1]


@pytest.mark.parametrize("n", [20, 99, 100, 300, 2_999, 3_000, 40_000])
def test_what_is_priced_is_what_fine_tuning_does_if_nobody_sets_it(n):
    done = plan_recipe(FineTuneSettings(), n_images=n, n_groups=5, has_layer_norm=False, pretrained=True)

    assert (done.steps, done.cross_fit.n_used) == (recipe_steps(n), n_folds(n))
    assert done.fold_steps == round(FOLD_SHARE * done.steps)
    assert n_held_out(n, n_folds(n)) == round(n / done.cross_fit.n_folds)


def test_the_steps_bought_are_the_most_that_the_time_buys():
    def seconds(steps):
        return 10 + 0.1 * steps

    for limit in (50.0, 60.0, 60.05, 99.9, 1_000.0):
        bought = affordable_steps(500, 1_000, limit, seconds)

        naive = [steps for steps in range(500, 1_001) if seconds(steps) <= limit]
        assert bought == (naive[-1] if naive else 500)
    assert affordable_steps(500, 1_000, None, seconds) == 1_000


def test_the_shortest_training_is_sixty_steps_from_a_probe_and_half_the_recipe_from_nothing():
    assert [shortest_finetuning(full) for full in (2_000, 20)] == [60, 20]
    assert [half_the_recipe(full) for full in (5_000, 354, 250, 40)] == [2_500, 200, 200, 40]


@pytest.mark.parametrize("n", [99, 100])
def test_the_recipe_begins_anew_where_the_planner_says_so(profile_of, n):
    shape = shape_of_finetuning(request_of(profile_of(n_samples=n, **FEW)))
    recipe = plan_recipe(FineTuneSettings(), n_images=n, n_groups=4, has_layer_norm=False, pretrained=True)

    assert shape.begins_anew == (recipe.refit == "as_time_allows")


def test_fine_tuning_of_a_network_that_knows_nothing_is_priced_as_trainings_that_begin_anew(profile_of):
    strategy = FineTune(lr=0.1, lr_decay=1.3, regime="far", steps=300, batch_size=32, folds=1, accept_z=0.5)

    shares = [shape_of(strategy, request_of(profile_of(pretrained=known))).fold_share for known in (True, False)]

    assert shares == [FOLD_SHARE, 1.0]


@pytest.mark.parametrize("n", [60, 900, 4_000])
@pytest.mark.parametrize(
    "asked",
    [
        dict(zip(("steps", "batch_size", "folds", "more_folds", "refit"), values, strict=True))
        for values in product(("auto", 40, 2_000), (8, 32, 100), ("auto", 1, 4), ("auto", True), ("auto", "anew"))
    ],
)
def test_what_is_priced_is_what_fine_tuning_does_with_settings_of_the_user(profile_of, evidence_of, n, asked):
    backbone, settings = three_stage_backbone(), FineTuneSettings(**asked)
    plan = plan_transfer(
        profile_of(n_samples=n, **FEW),
        Budget(),
        evidence=evidence_of(),
        strategy="finetune",
        wishes=wishes_of(settings, backbone),
    )
    shape = shape_of(plan.strategy, plan.request)

    carried_out = settings_for(plan, settings, backbone)
    done = plan_recipe(carried_out, n_images=n, n_groups=3, has_layer_norm=False, pretrained=True)

    assert (plan.strategy.steps, plan.strategy.batch_size) == (done.steps, done.batch_size)
    assert steps_of_trainings(done.steps, shape) == (done.fold_steps, steps_on_all(done, done.fold_steps))
    assert (shape.folds, shape.may_grow and shape.folds == 1) == (done.cross_fit.n_used, done.cross_fit.may_grow)
    assert shape.begins_anew == (done.refit == "as_time_allows")
    assert plan.strategy.lr == pytest.approx(done.learning_rates[-1])
