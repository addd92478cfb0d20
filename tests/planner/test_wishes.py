"""What plans make of settings that the user chose: which are wrong, and what is priced and said otherwise."""

import json

import pytest

from bottleneck import FineTuneSettings
from bottleneck.errors import InvalidInputError
from bottleneck.estimators.planned import settings_for, wishes_of
from bottleneck.finetune.groups import recipe_for
from bottleneck.planner import Budget, Plan, Wishes, plan_transfer
from bottleneck.planner.alternatives import ADAMW_HEAD, RECIPES, SMALLER_SCALE
from bottleneck.planner.shapes import shape_of
from tests.finetune.tasks import three_stage_backbone
from tests.planner.conftest import AMPLE

SMALL = {"n_samples": 300, "smallest_class": 20, "largest_class": 40, "rows_cached": 0}


def sentences(plan):
    return {reason.rule: reason.sentence for reason in plan.reasons}


@pytest.fixture
def plan_with(profile_of, evidence_of):
    """Return a function that plans fine-tuning of the everyday images with wishes."""

    def plan(facts=None, budget=AMPLE, **wishes):
        return plan_transfer(
            profile_of(**(facts or {})), budget, evidence=evidence_of(), strategy="finetune", wishes=Wishes(**wishes)
        )

    return plan


@pytest.mark.parametrize(
    ("wrong", "allowed"),
    [
        ({"batch_size": 0}, "an int of at least 1"),
        ({"steps": 1.5}, "an int of at least 1"),
        ({"folds": 0}, "an int of at least 1"),
        ({"lr": -1.0}, "a number of at least 0"),
        ({"lr": 0.0}, "a number above 0"),
        ({"image_scale": 0}, "a number above 0"),
        ({"check_rates": "no"}, "None, True or False"),
        ({"more_folds": 1}, "None, True or False"),
        ({"image_scale": 1.5}, "a number between 0 and 1"),
        ({"optimizer": "adam"}, "None, 'sgd' or 'adamw'"),
        ({"refit": "later"}, "None, 'continue' or 'anew'"),
    ],
)
def test_a_wrong_wish_is_refused(wrong, allowed):
    (name,) = wrong

    with pytest.raises(InvalidInputError, match=rf"{name}.*{allowed}"):
        Wishes(**wrong)


def test_what_is_wished_is_in_the_plan_and_survives_json(plan_with):
    wishes = {"batch_size": 64, "steps": 500, "lr": 0.3, "lr_decay": 1.5, "folds": 4, "image_scale": 0.5}
    plan = plan_with(**wishes, accept_z=2.0, refit="anew", optimizer="sgd", more_folds=True, check_rates=False)

    assert {name: getattr(plan.strategy, name) for name in wishes} == wishes
    assert plan.strategy.accept_z == 2.0
    assert Plan.from_json(plan.to_json()) == plan


def test_a_plan_from_before_there_were_wishes_has_none(plan_with):
    plan = plan_with()
    tree = json.loads(plan.to_json())

    del tree["request"]["wishes"]

    assert Plan.from_json(json.dumps(tree)) == plan


@pytest.mark.parametrize("n_steps", [60, 5_000])
def test_wished_steps_are_priced_and_said(plan_with, n_steps):
    usual, wished = plan_with(), plan_with(steps=n_steps, refit="anew")

    # A fold and the last training, and the recipe's last training begins anew after a third as many.
    in_all = {plan: plan.chosen.seconds.value for plan in (usual, wished)}
    trained = {usual: (1 + 1.9 / 3) * usual.strategy.steps, wished: 2.9 * n_steps}
    difference = (trained[wished] - trained[usual]) * 32 * 0.03
    assert in_all[wished] - in_all[usual] == pytest.approx(difference, rel=0.01)
    assert f"{n_steps:,} of the {n_steps:,} steps of 32 images" in sentences(wished)["steps"]
    assert "of the recipe's" in sentences(usual)["steps"]


def test_larger_batches_take_fewer_steps_as_many_images_and_more_memory(plan_with):
    usual, large = plan_with(SMALL), plan_with(SMALL, batch_size=64)

    assert large.strategy.steps == pytest.approx(usual.strategy.steps / 2, abs=1)
    assert large.chosen.seconds.value == pytest.approx(usual.chosen.seconds.value, rel=0.02)
    assert large.strategy.lr == 2 * usual.strategy.lr
    assert large.chosen.memory_bytes - usual.chosen.memory_bytes == pytest.approx(32 * 60_000_000, rel=0.01)


def test_little_time_changes_only_what_is_left_to_the_planner(plan_with):
    facts = {"takes_smaller_images": True, "rows_cached": 3_409}
    times = [plan_with(facts, Budget(seconds=seconds)) for seconds in (350, 340)]
    wished = [plan_with(facts, Budget(seconds=seconds), folds=2, image_scale=1.0) for seconds in (350, 340)]

    assert {plan.strategy.image_scale for plan in times} == {SMALLER_SCALE}
    assert {(plan.strategy.folds, plan.strategy.image_scale) for plan in wished} == {(2, 1.0)}


def test_rates_are_checked_and_named_as_training_does_it(plan_with):
    plans = {
        "recipe": plan_with(),
        "wished": plan_with(lr=0.3, check_rates=False),
        "adamw": plan_with(optimizer="adamw", batch_size=128),
        "layer norm": plan_with({"has_layer_norm": True}, lr=0.002, lr_decay=2.0),
        "sgd": plan_with({"has_layer_norm": True}, optimizer="sgd"),
    }
    said = {name: sentences(plan)["rates"] for name, plan in plans.items()}
    checks = {name: shape_of(plan.strategy, plan.request).checks_rates for name, plan in plans.items()}

    assert checks == {"recipe": True, "wished": False, "adamw": False, "layer norm": False, "sgd": True}
    assert said["recipe"] == said["sgd"]
    assert said["recipe"].endswith("for each layer group below the head, and lower if the network does not bear that.")
    assert said["wished"].endswith("is 0.3, as was asked for, divided by 1.3 for each layer group below the head.")
    assert said["adamw"] == (
        "AdamW trains at a learning rate of 0.002, divided by 10 below the head and 1.33 for each further layer group."
    )
    assert said["layer norm"].endswith("0.002, as was asked for, divided by 2 for each layer group below the head.")


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("batch_size", [16, 32, 128])
def test_the_rates_of_a_plan_are_those_of_training(plan_with, optimizer, batch_size):
    asked, backbone = FineTuneSettings(optimizer=optimizer, batch_size=batch_size), three_stage_backbone()
    plan = plan_with(**{name: getattr(wishes_of(asked, backbone), name) for name in ("optimizer", "batch_size")})

    done = recipe_for(backbone, settings_for(plan, asked, backbone), n_images=plan.request.profile.n_samples)

    *_, second, last, head = done.learning_rates
    first = ADAMW_HEAD if optimizer == "adamw" else plan.strategy.lr_decay
    assert head == pytest.approx(plan.strategy.lr)
    assert (head / last, last / second) == pytest.approx((first, plan.strategy.lr_decay))


def test_a_batch_has_no_more_images_than_there_are_to_learn_from(plan_with):
    whole, larger = (plan_with(SMALL, batch_size=batch_size, steps=400) for batch_size in (300, 4_096))

    assert larger.chosen.seconds == whole.chosen.seconds
    assert larger.chosen.memory_bytes == whole.chosen.memory_bytes
    assert "steps of 300 images" in sentences(larger)["steps"]


def test_no_more_folds_are_priced_than_a_class_has_images(plan_with):
    most, more = (plan_with(SMALL, folds=folds).chosen.seconds for folds in (40, 1_000))

    assert more == most


def test_smaller_images_that_were_asked_for_are_not_explained_by_time(profile_of, evidence_of):
    plan = plan_transfer(
        profile_of(pretrained=False),
        AMPLE,
        evidence=evidence_of(),
        strategy="scratch",
        wishes=Wishes(image_scale=0.5),
    )

    assert "50.0 % of the side of 224 pixels, as was asked for" in sentences(plan)["smaller_images"]


def test_who_settled_how_clearly_a_network_must_win_is_told_of_no_other_way(plan_with):
    rules = [[reason.rule for reason in plan.what_would_change] for plan in (plan_with(), plan_with(accept_z=0.5))]

    assert ["risk" in found for found in rules] == [True, False]


def test_a_trial_of_rates_that_are_settled_is_one_run(profile_of, evidence_of):
    def trial_with(**wishes):
        return plan_transfer(
            profile_of(n_parameters=86_000_000), AMPLE, evidence=evidence_of(), wishes=Wishes(**wishes)
        ).trial

    both, settled, short = trial_with(), trial_with(lr=0.02, lr_decay=2.0), trial_with(steps=40)

    assert [(recipe.lr, recipe.lr_decay) for recipe in both.recipes] == [RECIPES["far"], RECIPES["near"]]
    assert [(recipe.lr, recipe.lr_decay) for recipe in settled.recipes] == [(0.02, 2.0)]
    assert {recipe.steps for recipe in short.recipes} == {13}  # as a fold has
