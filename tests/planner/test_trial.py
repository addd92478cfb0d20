"""When a trial of fine-tuning comes first, and what is made of it."""

import json
from dataclasses import replace
from math import ceil

import pytest

from bottleneck.planner import Budget, FineTune, LinearProbe, Plan, plan_transfer
from bottleneck.planner.alternatives import RECIPES
from bottleneck.planner.costs import training_cost
from bottleneck.planner.decide import CHANCE_NEEDED, WORTHWHILE_GAIN
from bottleneck.planner.evidence import Trial, TrialRun
from bottleneck.planner.gain import predict_gain
from bottleneck.planner.shapes import shape_of
from bottleneck.planner.trial import LEAST_TRIAL_STEPS, TRIAL_SHARE, n_trained_on
from tests.planner.conftest import AMPLE

LARGE = {"n_parameters": 86_000_000}
"""Unlike anything that was seen."""


@pytest.fixture
def grey(evidence_of):
    """Return evidence by which a worthwhile gain is as likely as not."""
    return evidence_of(accuracy=0.85, all_stages_accuracy=0.85, standard_error=0.006)


def rules(plan):
    return [reason.rule for reason in plan.reasons]


def sentence(plan, rule):
    return next(reason.sentence for reason in plan.reasons if reason.rule == rule)


def trial_of(*runs, **changes) -> Trial:
    found = tuple(TrialRun(regime=regime, gain=gain, standard_error=0.01, alpha=1.0) for regime, gain in runs)
    return Trial(
        **{"runs": found, "steps": 526, "n_images": 852, "starts_from": "penultimate", "seconds": 500.0, **changes}
    )


def test_what_is_unlike_anything_seen_is_tried_before_it_is_decided(profile_of, evidence_of):
    plan = plan_transfer(profile_of(**LARGE), AMPLE, evidence=evidence_of())
    seen = plan_transfer(profile_of(), AMPLE, evidence=evidence_of())

    assert plan.needs_trial
    assert not plan.needs_probe
    assert "86,000,000 parameters (seen were 270,000 to 25,600,000)" in sentence(plan, "unseen")
    assert "unknown" in str(plan)
    assert "so far: a trial decides" in str(plan)
    assert plan.chosen.accuracy is None
    assert not seen.needs_trial
    assert "unseen" not in rules(seen)


def test_a_trial_takes_a_share_of_the_steps_with_the_usual_recipe_first(profile_of, evidence_of):
    for delta in (0.1, 0.0):
        evidence = evidence_of(all_stages_accuracy=0.6 + delta)
        plan = plan_transfer(profile_of(**LARGE), AMPLE, evidence=evidence)
        training = next(found.strategy for found in plan.alternatives if isinstance(found.strategy, FineTune))

        recipes = {recipe.regime: recipe for recipe in plan.trial.recipes}

        assert tuple(recipes) == ("far", "near")
        assert {recipe.steps for recipe in recipes.values()} == {ceil(TRIAL_SHARE * training.steps)}
        assert {regime: (recipe.lr, recipe.lr_decay) for regime, recipe in recipes.items()} == RECIPES


def test_networks_trained_by_adamw_are_tried_once(profile_of, evidence_of):
    plan = plan_transfer(profile_of(has_layer_norm=True), AMPLE, evidence=evidence_of())

    assert [recipe.regime for recipe in plan.trial.recipes] == ["far"]


def test_a_trial_has_no_fewer_steps_than_show_anything(profile_of, evidence_of):
    few = profile_of(n_samples=24, n_classes=2, smallest_class=12, largest_class=12, rows_cached=0)

    plan = plan_transfer(few, AMPLE, evidence=evidence_of(all_stages_accuracy=0.6))

    assert {recipe.steps for recipe in plan.trial.recipes} == {LEAST_TRIAL_STEPS}


def test_even_odds_are_tried_where_a_trial_is_cheap_beside_a_wrong_decision(profile_of, grey):
    plan = plan_transfer(profile_of(), AMPLE, evidence=grey)
    chance = predict_gain(grey, profile_of()).chance_above(WORTHWHILE_GAIN)

    assert abs(chance - CHANCE_NEEDED) < 0.25
    assert "unseen" not in rules(plan)
    assert plan.needs_trial
    assert rules(plan)[rules(plan).index("predicted_gain") + 1] == "trial"
    slow_to_score = profile_of(forward_seconds_per_image=10.0)
    assert not plan_transfer(slow_to_score, Budget(seconds=1e7), evidence=grey).needs_trial


@pytest.mark.parametrize("accuracy", [0.5, 0.985])
def test_clear_cases_are_not_tried(profile_of, evidence_of, accuracy):
    evidence = evidence_of(accuracy=accuracy, all_stages_accuracy=min(accuracy + 0.1, 0.99))

    assert not plan_transfer(profile_of(), AMPLE, evidence=evidence).needs_trial


def test_a_trial_must_fit_beside_a_whole_fine_tuning(profile_of, evidence_of):
    asked = {"evidence": evidence_of()}
    profile = profile_of(**LARGE)
    ample = plan_transfer(profile, AMPLE, **asked)
    surely = training_cost(ample.request, ample.strategy.steps, shape_of(ample.strategy, ample.request)).seconds.high
    both = surely + ample.trial.seconds.high

    enough, short = (plan_transfer(profile, Budget(seconds=seconds), **asked) for seconds in (both + 1, both - 1))

    assert enough.needs_trial
    assert not short.needs_trial
    assert "unseen" in rules(short)
    assert short.strategy_name == "finetune"


@pytest.mark.parametrize("strategy", ["probe", "all_stages_probe", "finetune"])
def test_what_was_asked_for_is_not_tried(profile_of, evidence_of, strategy):
    profile = profile_of(**LARGE)

    assert not plan_transfer(profile, AMPLE, evidence=evidence_of(), strategy=strategy).needs_trial


def test_without_the_trial_the_plan_is_the_likelier_decision(profile_of, evidence_of):
    for all_stages, name in ((0.7, "finetune"), (0.45, "probe")):
        evidence = evidence_of(all_stages_accuracy=all_stages)
        plan = plan_transfer(profile_of(**LARGE), AMPLE, evidence=evidence)

        assert plan.needs_trial
        assert plan.strategy_name == name


def test_the_trial_decides_and_picks_the_recipe(profile_of, evidence_of):
    profile = profile_of(**LARGE)

    def after(*runs):
        return plan_transfer(profile, AMPLE, evidence=evidence_of(all_stages_accuracy=0.6, trial=trial_of(*runs)))

    hot, cold, none = (
        after(("near", near), ("far", far)) for near, far in ((0.01, 0.15), (0.15, 0.01), (-0.08, -0.09))
    )

    assert [plan.needs_trial for plan in (hot, cold, none)] == [False] * 3
    assert (hot.strategy.regime, hot.strategy.lr) == ("far", 0.1)
    assert (cold.strategy.regime, cold.strategy.lr) == ("near", 0.05)
    assert none.strategy == LinearProbe(layers="penultimate")
    assert "+15.0 points (standard error 1.0 %) with the recipe for far images" in sentence(hot, "trial")
    assert "852 images" in sentence(hot, "trial")
    assert hot.chosen.accuracy is not None


def test_a_few_far_images_that_a_trial_gains_on_are_fine_tuned(profile_of, evidence_of):
    few = profile_of(n_samples=300, n_classes=10, smallest_class=20, largest_class=40, rows_cached=0)
    far, gains = evidence_of(), trial_of(("far", 0.12), starts_from="all_stages")

    assert plan_transfer(few, AMPLE, evidence=replace(far, trial=gains)).strategy_name == "finetune"


@pytest.mark.parametrize(
    ("trial", "said"),
    [
        (trial_of(stopped="it was interrupted"), "it stopped: it was interrupted"),
        (trial_of(("near", 0.2), stopped="it was interrupted"), "it stopped: it was interrupted"),
        (trial_of(diverged=("near", "far")), "the recipe for far images diverged"),
    ],
)
def test_a_trial_that_did_not_come_to_its_end_leaves_the_probe(profile_of, evidence_of, trial, said):
    plan = plan_transfer(profile_of(**LARGE), AMPLE, evidence=evidence_of(trial=trial))

    assert isinstance(plan.strategy, LinearProbe)
    assert not plan.needs_trial
    assert said in sentence(plan, "trial")


def test_a_recipe_that_diverged_is_left_for_the_other(profile_of, evidence_of):
    trial = trial_of(("near", 0.1), diverged=("far",))

    plan = plan_transfer(profile_of(**LARGE), AMPLE, evidence=evidence_of(trial=trial))

    assert plan.strategy.regime == "near"


def test_time_spent_on_a_trial_counts(profile_of, evidence_of):
    profile, trial = profile_of(**LARGE), trial_of(("far", 0.2))
    before = plan_transfer(profile, AMPLE, evidence=evidence_of(spent_seconds=60.0, trial=trial))

    after = plan_transfer(profile, AMPLE, evidence=evidence_of(spent_seconds=560.0, trial=trial))
    late = plan_transfer(profile, Budget(seconds=565), evidence=evidence_of(spent_seconds=560.0, trial=trial))

    assert after.chosen.seconds.value == pytest.approx(before.chosen.seconds.value + 500)
    assert isinstance(late.strategy, LinearProbe)


def test_a_plan_with_its_trial_survives_json_and_one_without_signals_is_still_read(profile_of, evidence_of):
    for evidence in (evidence_of(), evidence_of(trial=trial_of(("far", 0.1)), batch_norm_shift=0.3)):
        plan = plan_transfer(profile_of(**LARGE), AMPLE, evidence=evidence)
        assert Plan.from_json(plan.to_json()) == plan

    tree = json.loads(plan_transfer(profile_of(), AMPLE, evidence=evidence_of()).to_json())
    del tree["trial"], tree["request"]["profile"]["has_layer_norm"]
    for name in ("early_stages_accuracy", "neighbours_accuracy", "batch_norm_shift", "trial"):
        del tree["request"]["evidence"][name]
    assert Plan.from_json(json.dumps(tree)).request.evidence == evidence_of()


def test_a_trial_of_many_images_learns_from_no_more_than_it_sees(profile_of, evidence_of):
    plan = plan_transfer(profile_of(**LARGE), AMPLE, evidence=evidence_of())
    recipe = plan.trial.recipes[0]

    assert [n_trained_on(n, recipe) for n in (300, 100_000)] == [300, 32 * recipe.steps]


@pytest.mark.parametrize(
    ("n", "held_out", "opened"),
    [
        (90, 30, 90),
        (300, 100, 300),
        (4_000, 1_000, 4_000),
        (100_000, 2_000, 300 * 32 + 2_000),  # not the 25,000 that fine-tuning holds out
    ],
)
def test_a_trial_opens_and_scores_no_more_than_it_needs(profile_of, evidence_of, n, held_out, opened):
    profile = profile_of(n_samples=n, smallest_class=5, largest_class=20, rows_cached=0, **LARGE)

    trial = plan_transfer(profile, AMPLE, evidence=evidence_of(all_stages_accuracy=0.6)).trial

    trained = 2 * (trial.recipes[0].steps + 8) * 32  # by two recipes, each at rates that are found out first
    scored = 2 * 4 * held_out  # at four points of each path, beside the probe
    assert trial.seconds.value == pytest.approx(12.0 / 2 + 0.03 * trained + 0.01 * scored + 2 * 0.002 * opened)
