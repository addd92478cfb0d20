import math
from dataclasses import replace

import pytest

from bottleneck.errors import InvalidInputError
from bottleneck.planner import Budget, Plan, plan_transfer
from bottleneck.planner.evidence import Trial, TrialRun


@pytest.mark.parametrize(
    "changes",
    [
        {"n_samples": 0},
        {"n_samples": 10.5},
        {"n_classes": 1},
        {"smallest_class": 2_000},
        {"largest_class": 4_000},
        {"n_features_all_stages": 1_279},
        {"rows_cached": 3_410},
        {"decode_seconds_per_image": -0.1},
        {"train_seconds_per_image": math.nan},
        {"forward_seconds_per_image": math.inf},
        {"train_bytes_per_image": True},
    ],
)
def test_an_impossible_profile_is_refused_naming_the_fact(profile_of, changes):
    with pytest.raises(InvalidInputError, match="parameter of Profile must be"):
        profile_of(**changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"accuracy": 1.01},
        {"accuracy": 86.3},
        {"standard_error": -0.01},
        {"train_accuracy": math.nan},
        {"all_stages_accuracy": -0.1},
        {"head_seconds": "12"},
        {"spent_seconds": -1.0},
        {"learning_curve": ((0, 0.5),)},
        {"learning_curve": ((10, 1.5),)},
    ],
)
def test_impossible_evidence_is_refused_naming_the_fact(evidence_of, changes):
    with pytest.raises(InvalidInputError, match=f"'{next(iter(changes))}' parameter of ProbeEvidence"):
        evidence_of(**changes)


@pytest.mark.parametrize(
    ("param", "value"),
    [("seconds", -1), ("seconds", math.nan), ("seconds", "5 min"), ("memory_bytes", 1.5), ("disk_bytes", -1)],
)
def test_an_impossible_budget_is_refused_with_what_was_got(param, value):
    with pytest.raises(InvalidInputError, match=f"'{param}' parameter of Budget must be .* Got {value!r} instead"):
        Budget(**{param: value})


def test_an_unknown_risk_is_refused():
    with pytest.raises(InvalidInputError, match=r"'balanced' or 'safe'\. Got 'bold' instead"):
        Budget(risk="bold")


def test_a_seed_that_json_cannot_hold_is_refused(profile_of):
    with pytest.raises(InvalidInputError, match="'seed' parameter of plan_transfer"):
        plan_transfer(profile_of(), Budget(), seed=1.5)


def test_delta_multi_is_what_the_earlier_stages_add(evidence_of):
    assert evidence_of(accuracy=0.6, all_stages_accuracy=0.7).delta_multi == pytest.approx(0.1)
    assert evidence_of(all_stages_accuracy=None).delta_multi is None


def test_a_plan_whose_strategy_is_none_of_its_alternatives_is_refused(profile_of):
    plan = plan_transfer(profile_of(), Budget())

    with pytest.raises(InvalidInputError, match="one of its alternatives"):
        Plan(
            request=plan.request,
            strategy=plan.strategy,
            needs_probe=plan.needs_probe,
            reasons=plan.reasons,
            alternatives=plan.alternatives[1:],
            rule_of_thumb=plan.rule_of_thumb,
            what_would_change=plan.what_would_change,
        )


@pytest.mark.parametrize("name", ["early_stages_accuracy", "neighbours_accuracy", "batch_norm_shift"])
def test_a_signal_may_be_unknown_but_not_negative(evidence_of, name):
    assert getattr(evidence_of(**{name: None}), name) is None
    with pytest.raises(InvalidInputError, match=name):
        evidence_of(**{name: -0.1})


def test_a_trial_that_compared_something_did_so_on_images():
    run = TrialRun(regime="far", gain=-0.1, standard_error=0.02, alpha=0.5)
    with pytest.raises(InvalidInputError, match="n_images"):
        Trial(runs=(run,), steps=60, n_images=0, starts_from="penultimate", seconds=1.0)
    with pytest.raises(InvalidInputError, match="gain"):
        replace(run, gain=1.5)

    assert Trial(runs=(), steps=60, n_images=0, starts_from="penultimate", seconds=1.0, stopped="why").runs == ()
