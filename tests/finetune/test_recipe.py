import math

import pytest

from bottleneck.finetune.recipe import (
    MOST_GENTLER,
    CrossFit,
    auto_steps,
    batch_norm_momentum,
    gentler,
    group_rates,
    lowered,
    plan_recipe,
    steps_on_all,
)
from bottleneck.finetune.settings import FineTuneSettings


def plan(n_images: int = 500, *, has_layer_norm: bool = False, pretrained: bool = True, **settings: object):
    return plan_recipe(
        FineTuneSettings(**settings),
        n_images=n_images,
        n_groups=4,
        has_layer_norm=has_layer_norm,
        pretrained=pretrained,
    )


@pytest.mark.parametrize(
    "n_images, steps",
    [
        (10, 200),
        (100, 250),
        (4000, round(25 * math.sqrt(4000))),
        (100_000, 4000),
    ],
)
def test_steps_follow_the_root_of_the_number_of_images_within_limits(n_images: int, steps: int):
    assert auto_steps(n_images, 32, pretrained=True) == steps


def test_as_many_images_are_seen_whatever_the_batch():
    assert auto_steps(4000, 64, pretrained=True) == pytest.approx(auto_steps(4000, 32, pretrained=True) / 2, abs=1)


def test_cnn_groups_learn_2_6_times_slower_each_below_a_head_rate_of_0_05():
    assert plan().optimizer == "sgd"
    assert plan().learning_rates == pytest.approx([0.05 / 2.6**4, 0.05 / 2.6**3, 0.05 / 2.6**2, 0.05 / 2.6, 0.05])


def test_transformer_blocks_start_a_tenth_below_the_head_and_learn_three_quarters_each():
    recipe = plan(has_layer_norm=True)

    assert recipe.optimizer == "adamw"
    assert recipe.learning_rates == pytest.approx([1e-4 * 0.75**3, 1e-4 * 0.75**2, 1e-4 * 0.75, 1e-4, 1e-3])


@pytest.mark.parametrize("has_layer_norm", [False, True])
def test_decay_of_one_gives_every_group_the_same_rate(has_layer_norm: bool):
    assert plan(has_layer_norm=has_layer_norm, lr=0.02, lr_decay=1.0).learning_rates == (0.02,) * 5


def test_frozen_groups_and_multipliers_count_from_the_input():
    rates = group_rates(
        FineTuneSettings(lr=1.0, lr_decay=1.0, freeze_groups=1, group_multipliers=(9.0, 1.0, 2.0, 0.0)),
        n_groups=4,
        has_layer_norm=False,
        pretrained=True,
    )

    assert rates == (0.0, 1.0, 2.0, 0.0, 1.0)


def test_automatic_rate_scales_with_the_batch_and_a_given_one_does_not():
    assert plan(batch_size=64).learning_rates[-1] == pytest.approx(0.1)
    assert plan(batch_size=64, has_layer_norm=True).learning_rates[-1] == pytest.approx(1e-3 * math.sqrt(2))
    assert plan(batch_size=64, lr=0.01).learning_rates[-1] == 0.01


def test_weights_decay_from_2000_images():
    assert (plan(1999).weight_decay, plan(2000).weight_decay, plan(10, weight_decay=0.1).weight_decay) == (0, 1e-4, 0.1)


@pytest.mark.parametrize(
    "n_images, batch_size, frozen", [(50_000, 32, True), (1999, 64, True), (2000, 128, True), (50_000, 64, False)]
)
def test_batch_norm_learns_statistics_only_from_large_batches_and_many_images(n_images, batch_size, frozen):
    assert plan(n_images, batch_size=batch_size).freeze_batch_norm is frozen


def test_batch_norm_setting_is_obeyed():
    assert plan(10, batch_norm="train").freeze_batch_norm is False
    assert plan(50_000, batch_size=64, batch_norm="frozen").freeze_batch_norm is True


def test_crops_are_milder_below_200_images():
    assert (plan(199).min_crop_scale, plan(200).min_crop_scale, plan(10, min_crop_scale=1.0).min_crop_scale) == (
        0.75,
        0.5,
        1.0,
    )


@pytest.mark.parametrize(
    "n_images, folds, expected",
    [
        (99, "auto", (3, 3, False)),
        (100, "auto", (3, 1, True)),
        (3000, "auto", (4, 1, True)),
        (50, 1, (3, 1, False)),
        (5000, 5, (5, 5, False)),
    ],
)
def test_more_images_need_fewer_folds(n_images: int, folds: object, expected: tuple[int, int, bool]):
    n_folds, n_used, may_grow = expected

    assert plan(n_images, folds=folds).cross_fit == CrossFit(n_folds=n_folds, n_used=n_used, may_grow=may_grow)
    assert plan(n_images, folds=folds, more_folds=False).cross_fit.may_grow is False


def test_training_from_random_weights_is_ten_times_hotter_uniform_and_longer():
    recipe, adamw = plan(20_000, pretrained=False), plan(20_000, pretrained=False, has_layer_norm=True)

    assert recipe.learning_rates == (0.1,) * 5
    assert adamw.learning_rates == (0.001,) * 5
    assert recipe.steps == 60 * 20_000 // 32
    assert (recipe.weight_decay, recipe.label_smoothing, recipe.freeze_batch_norm) == (5e-4, 0.1, False)
    assert plan(500, pretrained=False, batch_size=4).freeze_batch_norm is True


def test_only_a_fresh_head_on_pretrained_layers_learns_alone_at_first():
    assert (plan().freeze_epochs, plan(head="fresh").freeze_epochs) == (0, 1)
    assert plan(head="fresh", pretrained=False).freeze_epochs == 0
    assert plan(freeze_epochs=3).freeze_epochs == 3


def test_augmentation_grows_with_the_number_of_images():
    few, some, many = plan(999), plan(1000), plan(2000)

    assert (few.trivial_augment, some.trivial_augment, many.trivial_augment) == (False, True, True)
    assert (few.mixup, some.mixup, many.mixup) == (0, 0, 0.1)
    assert (many.cutmix, plan(2000, pretrained=False).cutmix) == (0, 1)
    assert plan(10, augment="trivial", mixup=0.4, cutmix=0.5).trivial_augment is True
    assert (plan(10, mixup=0.4).mixup, plan(10, cutmix=0.5).cutmix, plan(9999, mixup=0).mixup) == (0.4, 0.5, 0)


def test_weights_are_averaged_from_100_steps_on():
    assert (plan(steps=99).ema, plan(steps=100).ema, plan(steps=10, ema=0.9).ema) == (0, 0.99, 0.9)


@pytest.mark.parametrize("steps", [1, 2, 100, 353])
def test_a_fold_takes_a_third_of_the_steps_of_the_network_that_goes_on_from_it(steps: int):
    further, anew = plan(steps=steps), plan(steps=steps, refit="anew")

    assert (further.refit, further.fold_steps) == ("continue", max(1, round(steps / 3)))
    assert steps_on_all(further, further.fold_steps) == max(1, steps - further.fold_steps)
    assert (anew.fold_steps, steps_on_all(anew, steps)) == (steps, steps)


def test_random_weights_are_trained_anew_on_all_images():
    scratch = plan(pretrained=False)

    assert (scratch.refit, scratch.fold_steps) == ("anew", scratch.steps)


@pytest.mark.parametrize(
    ("n", "given", "expected"),
    [
        (99, {}, "continue"),
        (100, {}, "as_time_allows"),
        (100, {"steps": 224}, "continue"),  # the recipe has 25 sqrt(100), of which nine tenths are enough
        (100, {"steps": 225}, "as_time_allows"),
        (100, {"steps": 112, "batch_size": 64}, "continue"),
        (100, {"steps": 113, "batch_size": 64}, "as_time_allows"),
        (100, {"refit": "continue"}, "continue"),
        (99, {"refit": "anew"}, "anew"),
    ],
)
def test_training_on_all_images_may_begin_anew_with_enough_images_and_steps(n: int, given: dict, expected: str):
    recipe = plan(n, **given)

    assert recipe.refit == expected
    assert recipe.fold_steps == (recipe.steps if expected == "anew" else round(recipe.steps / 3))


def test_the_last_training_is_cut_as_the_folds_were():
    assert steps_on_all(plan(steps=300), 50) == 100
    assert steps_on_all(plan(steps=300, refit="anew"), 50) == 50


@pytest.mark.parametrize("flip, expected", [("auto", (True, True)), (True, (True, False)), (False, (False, False))])
def test_only_automatic_flips_are_checked(flip: object, expected: tuple[bool, bool]):
    assert (plan(flip=flip).flip, plan(flip=flip).check_flip) == expected


def test_batch_norm_averages_over_2000_images_and_forgets_what_it_came_with():
    assert batch_norm_momentum(64, steps=5000) == pytest.approx(64 / 2000)
    assert batch_norm_momentum(512, steps=5000) == 0.1
    assert (1 - batch_norm_momentum(32, steps=200)) ** 200 == pytest.approx(0.01)


def test_rates_for_far_images_become_those_for_near_ones_and_are_halved_from_there():
    far = plan(lr=0.1, lr_decay=1.3)

    once, thrice = gentler(far, 1).learning_rates, gentler(far, 3).learning_rates

    assert gentler(far, 0) == far
    assert once[1:] == pytest.approx(plan(lr=0.05, lr_decay=2.6).learning_rates[1:])
    assert thrice == pytest.approx([rate / 4 for rate in once])


def test_rates_for_near_images_are_only_halved_and_those_of_transformers_too():
    near, adamw = plan(lr=0.05, lr_decay=2.6), plan(has_layer_norm=True)

    assert gentler(near, 1).learning_rates[1:] == pytest.approx([rate / 2 for rate in near.learning_rates[1:]])
    assert gentler(adamw, 2).learning_rates == pytest.approx([rate / 4 for rate in adamw.learning_rates])


def test_the_lowest_groups_are_left_alone_once_rates_are_lowered_to_where_they_hardly_learn():
    recipe = plan_recipe(
        FineTuneSettings(lr=0.1, lr_decay=1.3), n_images=500, n_groups=6, has_layer_norm=False, pretrained=True
    )

    rates = gentler(recipe, 1).learning_rates

    assert [rate > 0 for rate in rates] == [False, False, False, True, True, True, True]
    assert rates[2] == 0 < 0.05 / 2.6**3 == pytest.approx(rates[3])
    assert all(rate > 0 for rate in gentler(plan(has_layer_norm=True, lr_decay=9.0), 1).learning_rates)
    assert [rate > 0 for rate in gentler(plan(lr_decay=99.0), 1).learning_rates] == [False, False, False, True, True]


def test_groups_frozen_by_hand_stay_frozen_and_one_group_can_be_lowered():
    assert gentler(plan(freeze_groups=2, lr=0.1, lr_decay=1.3), 1).learning_rates[:2] == (0, 0)
    alone = plan_recipe(FineTuneSettings(), n_images=500, n_groups=0, has_layer_norm=False, pretrained=True)
    assert gentler(alone, 2).learning_rates == pytest.approx([0.05 / 4])


def test_a_training_that_diverges_begins_anew_at_a_quarter_of_its_rates():
    assert [lowered(times) for times in (0, 1, 3)] == [1, 3, 5]
    assert lowered(MOST_GENTLER - 1) == MOST_GENTLER


def test_rates_are_checked_where_sgd_goes_on_from_what_is_known_and_nobody_gave_them():
    assert plan().check_rates
    assert not plan(lr=0.05).check_rates
    assert plan(lr=0.05, check_rates=True).check_rates
    for settings in ({"head": "fresh"}, {"has_layer_norm": True}, {"pretrained": False}, {"check_rates": False}):
        assert not plan(**{"check_rates": True, **settings}).check_rates
