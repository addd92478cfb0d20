"""What a plan means for fine-tuning, and what of it is the user's to say."""

import numpy as np
import pytest

from bottleneck import FineTuneSettings
from bottleneck.estimators.planned import n_frozen, planned_settings, settings_for, wishes_of
from bottleneck.finetune import check_settings
from bottleneck.finetune.recipe import plan_recipe
from bottleneck.planner import Budget, FineTune, Plan, Wishes, plan_transfer
from bottleneck.planner.alternatives import RECIPES
from bottleneck.planner.wishes import NO_WISHES
from tests.finetune.tasks import three_stage_backbone
from tests.planner.conftest import EVERYDAY, PROMISING


@pytest.fixture(scope="module")
def backbone():
    return three_stage_backbone()


def plan_within(seconds: float | None, wishes: Wishes = NO_WISHES):
    plan = plan_transfer(EVERYDAY, Budget(seconds=seconds), evidence=PROMISING, strategy="finetune", wishes=wishes)
    assert isinstance(plan.strategy, FineTune)
    return plan


def test_a_deadline_cuts_the_recipe_while_it_runs(backbone):
    short, unlimited = plan_within(900.0), plan_within(None)
    asked = FineTuneSettings()

    assert short.strategy.steps < unlimited.strategy.steps
    assert settings_for(short, asked, backbone).steps == unlimited.strategy.steps
    assert settings_for(unlimited, asked, backbone).steps == unlimited.strategy.steps


@pytest.mark.parametrize("batch_size", [16, 64])
def test_steps_and_rate_of_a_plan_are_for_batches_of_the_users_size(backbone, batch_size):
    asked = FineTuneSettings(batch_size=batch_size)
    plan = plan_within(None, wishes_of(asked, backbone))
    n_images = plan.request.profile.n_samples

    settings = settings_for(plan, asked, backbone)

    own = plan_recipe(asked, n_images=n_images, n_groups=3, has_layer_norm=False, pretrained=True)
    recipe = plan_recipe(settings, n_images=n_images, n_groups=3, has_layer_norm=False, pretrained=True)
    assert recipe.steps == pytest.approx(own.steps, abs=1)
    assert recipe.learning_rates[-1] == pytest.approx(RECIPES[plan.strategy.regime][0] * batch_size / 32)
    assert recipe.refit == own.refit == "as_time_allows"


def test_numbers_of_numpy_are_wishes_like_others(backbone):
    asked = FineTuneSettings(lr=np.float32(0.25), steps=np.int64(70), folds=np.int64(2), acceptance_z=np.float64(1.0))

    plan = plan_within(None, wishes_of(asked, backbone))
    settings = settings_for(plan, asked, backbone)

    assert Plan.from_json(plan.to_json()) == plan
    assert (plan.strategy.lr, plan.strategy.steps, plan.strategy.folds) == (0.25, 70, 2)
    assert (settings.check_rates, settings.more_folds) == (False, False)
    check_settings(settings, n_groups=3)


@pytest.mark.parametrize(
    ("asked", "frozen"),
    [
        ({}, 0),
        ({"freeze_groups": 2}, 2),
        ({"group_multipliers": (0, 0.0, 1.0)}, 2),
        ({"group_multipliers": (0, 1, 0), "freeze_groups": 0}, 1),
        ({"group_multipliers": (0, 1, 1), "freeze_groups": 2}, 2),
    ],
)
def test_no_gradients_go_through_groups_that_are_frozen_or_never_move(asked, frozen):
    assert n_frozen(FineTuneSettings(**asked)) == frozen


def test_the_rates_of_the_plan_are_not_those_of_adamw(backbone):
    settings = settings_for(plan_within(None), FineTuneSettings(optimizer="adamw"), backbone)

    assert (settings.lr, settings.lr_decay) == ("auto", "auto")


def test_what_the_user_says_is_obeyed(backbone):
    asked = FineTuneSettings(steps=7, lr=0.3, folds=2)

    settings = settings_for(plan_within(900.0), asked, backbone)

    assert (settings.steps, settings.lr, settings.folds) == (7, 0.3, 2)
    assert (settings.check_rates, settings.more_folds) == (False, False)


def test_rates_and_folds_of_the_plan_may_change_while_it_is_carried_out(backbone):
    plan = plan_within(None)

    settings = planned_settings(FineTuneSettings(), plan.strategy, backbone)

    assert (settings.lr, settings.folds) == (plan.strategy.lr, plan.strategy.folds)
    assert (settings.check_rates, settings.more_folds) == (True, True)
