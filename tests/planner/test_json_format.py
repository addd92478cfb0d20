import json

import pytest

from bottleneck.errors import BudgetError, ModelFileError
from bottleneck.planner import Budget, Plan, plan_transfer


@pytest.fixture
def tree(profile_of, evidence_of):
    """Return a plan's JSON as dicts and lists, to be damaged."""
    return json.loads(plan_transfer(profile_of(), Budget(), evidence=evidence_of()).to_json())


def test_every_plan_survives_json_and_can_be_made_again_from_what_it_holds(cases):
    plans = 0
    for seed, (profile, budget, evidence) in enumerate(cases):
        try:
            plan = plan_transfer(profile, budget, evidence=evidence, seed=seed)
        except BudgetError:
            continue
        plans += 1

        read = Plan.from_json(plan.to_json())

        assert read == plan
        assert read.to_json() == plan.to_json()
        asked = read.request
        again = plan_transfer(
            asked.profile, asked.budget, evidence=asked.evidence, strategy=asked.strategy, seed=read.seed
        )
        assert again == plan
    assert plans > 200


@pytest.mark.parametrize(
    "text",
    ["", "plan", "[]", "null", "{}", '{"format_version": true}', '{"format_version": 1}', "[" * 100_000, "9" * 5_000],
)
def test_text_that_is_no_plan_is_one_clear_error(text):
    with pytest.raises(ModelFileError, match="Plan"):
        Plan.from_json(text)


def test_a_plan_of_a_newer_version_says_to_upgrade(tree):
    tree["format_version"] = 2

    with pytest.raises(ModelFileError, match=r"format version 2 .* reads version 1.*Upgrade"):
        Plan.from_json(json.dumps(tree))


def test_a_plan_from_before_a_field_was_added_has_its_default(tree):
    del tree["request"]["profile"]["takes_smaller_images"]

    assert not Plan.from_json(json.dumps(tree)).request.profile.takes_smaller_images


def test_a_field_less_or_a_field_more_is_refused(tree):
    missing = {key: tree[key] for key in tree if key != "reasons"}
    unknown = {**tree, "mood": "good"}

    for damaged in (missing, unknown):
        with pytest.raises(ModelFileError, match="exactly its fields"):
            Plan.from_json(json.dumps(damaged))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("request", "profile", "n_samples"), True),
        (("request", "profile", "n_samples"), 0),
        (("request", "profile", "device"), None),
        (("request", "budget", "seconds"), float("nan")),
        (("request", "budget", "seconds"), "60"),
        (("request", "budget", "risk"), "bold"),
        (("request", "budget", "kind"), "Profile"),
        (("request", "evidence", "accuracy"), 2.0),
        (("request", "evidence", "accuracy"), 10**400),
        (("request", "evidence", "learning_curve"), [[1, 0.5, 3]]),
        (("request", "evidence", "learning_curve"), [1]),
        (("alternatives", 0, "seconds", "value"), float("nan")),
        (("alternatives", 1, "disk_bytes"), True),
        (("needs_probe",), 0),
        (("strategy", "regime"), "nearby"),
        (("strategy", "steps"), 1),
        (("strategy", "kind"), "Unknown"),
        (("strategy",), "FineTune"),
        (("alternatives",), {}),
        (("alternatives",), []),
        (("reasons", 0, "sentence"), 1),
    ],
)
def test_damage_anywhere_is_one_clear_error(tree, path, value):
    *way, last = path
    place = tree
    for step in way:
        place = place[step]
    place[last] = value

    with pytest.raises(ModelFileError, match="Plan"):
        Plan.from_json(json.dumps(tree))


def test_nested_rubbish_is_one_clear_error(tree):
    rubbish = []
    for _ in range(500):
        rubbish = [rubbish]
    tree["reasons"] = rubbish

    with pytest.raises(ModelFileError, match="Plan"):
        Plan.from_json(json.dumps(tree))
