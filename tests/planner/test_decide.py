import ast
import re
from dataclasses import replace
from math import ceil, sqrt
from pathlib import Path

import pytest

import bottleneck.planner
from bottleneck.errors import BudgetError, InvalidInputError
from bottleneck.planner import Budget, FineTune, LinearProbe, Wishes, plan_transfer
from bottleneck.planner.alternatives import looks_far
from bottleneck.planner.costs import training_cost
from bottleneck.planner.decide import CHANCE_NEEDED, WORTHWHILE_GAIN
from bottleneck.planner.gain import predict_gain
from bottleneck.planner.shapes import SHORTEST_FINETUNING, shape_of
from bottleneck.planner.wording import name_of
from tests.planner.conftest import AMPLE

PENULTIMATE, ALL_STAGES = LinearProbe(layers="penultimate"), LinearProbe(layers="all_stages")
NAMED = {"time_budget": "seconds", "memory_limit": "memory_bytes", "disk_limit": "disk_bytes"}
FULL_STEPS = round(25 * sqrt(3_409))
"""Steps that fine-tuning on the everyday images takes when there is time."""
NAMES = ("probe", "all_stages_probe", "finetune", "scratch")


def rules(plan):
    return [reason.rule for reason in plan.reasons]


def feasible(plan):
    return {name_of(found.strategy) for found in plan.alternatives if found.feasible}


def plans(cases, **options):
    """Yield the plans of all cases that fit their budget."""
    for profile, budget, evidence in cases:
        try:
            yield plan_transfer(profile, budget, evidence=evidence, **options)
        except BudgetError:
            continue


# --- promises that hold for every request ---


def test_the_same_request_gives_the_same_plan(cases):
    assert list(plans(cases)) == list(plans(cases))


def test_the_planner_reads_nothing_but_its_arguments():
    pure = {"bisect", "collections", "dataclasses", "difflib", "html", "json", "math", "statistics", "textwrap"}
    pure |= {"types", "typing", "bottleneck.errors", "bottleneck.planner"}
    for path in Path(bottleneck.planner.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            assert not isinstance(node, ast.Import) or {name.name for name in node.names} <= pure
            if isinstance(node, ast.ImportFrom):
                top, *rest = node.module.split(".")
                assert (".".join([top, *rest[:1]]) if top == "bottleneck" else top) in pure
            assert not (isinstance(node, ast.Call) and getattr(node.func, "id", "") in {"open", "print", "input"})


def test_more_time_never_makes_a_feasible_alternative_infeasible_nor_its_training_shorter(cases):
    for profile, budget, evidence in cases:
        known, longest = set(), 0
        for seconds in (1, 30, 100, 300, 1_000, 10_000, 100_000, 1e7):
            try:
                plan = plan_transfer(profile, replace(budget, seconds=seconds), evidence=evidence)
            except BudgetError:
                assert not known
                continue
            assert known <= feasible(plan)
            known = feasible(plan)
            steps = max(
                (found.strategy.steps for found in plan.alternatives if hasattr(found.strategy, "steps")), default=0
            )
            assert longest <= steps
            longest = steps


def test_a_plan_never_exceeds_its_budget(cases):
    for strategy in ("auto", *NAMES):
        for plan in plans(cases, strategy=strategy):
            chosen, budget, profile = plan.chosen, plan.request.budget, plan.request.profile
            assert chosen.feasible
            trains = not isinstance(plan.strategy, LinearProbe)
            # After the evidence a probe is paid for, whatever it cost.
            if plan.request.evidence is None or trains:
                if budget.seconds is not None:
                    assert (chosen.seconds.high if trains else chosen.seconds.value) <= budget.seconds
                assert chosen.memory_bytes <= profile.memory_available_bytes
                assert budget.memory_bytes is None or chosen.memory_bytes <= budget.memory_bytes
                assert budget.disk_bytes is None or chosen.disk_bytes <= budget.disk_bytes


@pytest.mark.parametrize("strategy", NAMES)
def test_a_strategy_that_was_asked_for_is_obeyed(cases, strategy):
    obeyed = list(plans(cases, strategy=strategy))

    assert len(obeyed) > 100
    for plan in obeyed:
        assert rules(plan)[0] == "forced"
        assert plan.strategy_name == strategy or rules(plan)[-1] == "does_not_fit"


def test_with_evidence_nothing_waits(cases):
    for plan in plans(cases):
        assert plan.request.evidence is None or not plan.needs_probe


def test_the_alternatives_start_with_the_cheapest(cases):
    for plan in plans(cases):
        costs = [found.seconds.value for found in plan.alternatives]
        assert costs == sorted(costs)


def test_without_evidence_no_accuracy_is_invented(cases):
    for plan in plans(cases):
        if plan.request.evidence is None:
            assert all(found.accuracy is None for found in plan.alternatives)


def test_a_budget_error_names_a_time_that_would_do(cases):
    refused = 0
    for profile, budget, _ in cases:
        for strategy in ("auto", "finetune"):
            roomy = replace(budget, memory_bytes=None, disk_bytes=None)
            try:
                plan_transfer(replace(profile, memory_available_bytes=10**13), roomy, strategy=strategy)
            except BudgetError as error:
                refused += 1
                least = int(re.search(r"time_budget=(\d+) would do", str(error)).group(1))
                assert least > roomy.seconds
                roomy = replace(roomy, seconds=least)
                plan_transfer(replace(profile, memory_available_bytes=10**13), roomy, strategy=strategy)
    assert refused > 20


def test_the_time_said_to_change_the_plan_makes_the_alternative_feasible(profile_of, evidence_of):
    for evidence in (None, evidence_of()):
        plan = plan_transfer(profile_of(), Budget(seconds=120), evidence=evidence)
        change = next(change for change in plan.what_would_change if change.rule == "time_budget")
        least = int(re.match(r"time_budget=(\d+) gives fine-tuning", change.sentence).group(1))

        assert "finetune" not in feasible(plan)
        assert "finetune" in feasible(plan_transfer(profile_of(), Budget(seconds=least), evidence=evidence))
        assert "finetune" not in feasible(plan_transfer(profile_of(), Budget(seconds=least - 1), evidence=evidence))


# --- before the probes ---


def test_with_time_for_everything_the_decision_waits_for_the_probes(profile_of):
    plan = plan_transfer(profile_of(), AMPLE)

    assert plan.strategy == PENULTIMATE
    assert plan.needs_probe
    assert feasible(plan) == {"probe", "all_stages_probe", "finetune"}
    assert rules(plan) == ["feature_pass", "wait_for_probe", "wait_for_probe"]


def test_without_time_to_fine_tune_only_the_layers_wait_for_the_probes(profile_of):
    plan = plan_transfer(profile_of(), Budget(seconds=90))

    assert feasible(plan) == {"probe", "all_stages_probe"}
    assert plan.needs_probe
    assert rules(plan) == ["feature_pass", "wait_for_probe", "does_not_fit"]


def test_with_one_strategy_left_nothing_waits(profile_of):
    plan = plan_transfer(profile_of(n_features_all_stages=1_280), Budget(seconds=90))

    assert feasible(plan) == {"probe"}
    assert not plan.needs_probe


def test_a_budget_too_small_for_the_probe_is_refused_with_the_smallest_that_would_do(profile_of):
    needed = plan_transfer(profile_of(), AMPLE).alternatives[0].seconds.value

    with pytest.raises(BudgetError, match=rf"time_budget allows 5 s \(time_budget={ceil(needed)} would do\)"):
        plan_transfer(profile_of(), Budget(seconds=5))


@pytest.mark.parametrize(
    "budget",
    [
        Budget(memory_bytes=1_000_000),
        Budget(memory_bytes=300_000_000, disk_bytes=1_000),
        Budget(memory_bytes=1_000_000, disk_bytes=1_000),
        Budget(seconds=3, memory_bytes=1_000_000, disk_bytes=1_000),
    ],
)
def test_the_smallest_of_every_limit_that_is_short_is_said_and_would_do(profile_of, budget):
    profile = profile_of(n_samples=200_000, smallest_class=1, forward_bytes_per_image=1_000_000)
    with pytest.raises(BudgetError) as raised:
        plan_transfer(profile, budget)

    found = re.findall(r"(time_budget|memory_limit|disk_limit)=(\d+) would do", str(raised.value))
    smallest = {NAMED[name]: int(value) for name, value in found}

    plan_transfer(profile, replace(budget, **smallest))
    for name in smallest:
        with pytest.raises(BudgetError):
            plan_transfer(profile, replace(budget, **{**smallest, name: smallest[name] - 1}))


def test_memory_that_the_machine_does_not_have_is_not_asked_of_the_user(profile_of):
    with pytest.raises(BudgetError, match=r"it needs .* of memory and 1 MB are free\."):
        plan_transfer(profile_of(memory_available_bytes=1_000_000), Budget(memory_bytes=2_000_000))


def test_a_disk_limit_alone_refuses_nothing_that_fits_in_memory(profile_of):
    assert plan_transfer(profile_of(), Budget(disk_bytes=0)).chosen.disk_bytes == 0


def test_fine_tuning_must_fit_memory(profile_of, evidence_of):
    profile = profile_of(n_parameters=100_000_000)

    plan = plan_transfer(profile, Budget(memory_bytes=2_000_000_000), evidence=evidence_of())

    assert plan.strategy == ALL_STAGES
    assert "of memory and memory_limit allows 2 GB" in plan.alternatives[-1].why_not


def test_free_memory_counts_like_a_budget(profile_of, evidence_of):
    profile = profile_of(memory_available_bytes=2_000_000_000, n_parameters=100_000_000)

    plan = plan_transfer(profile, AMPLE, evidence=evidence_of())

    assert "memory" in plan.alternatives[-1].why_not


# --- after the probes ---


def test_a_promising_signal_leads_to_fine_tuning(profile_of, evidence_of):
    plan = plan_transfer(profile_of(), AMPLE, evidence=evidence_of())

    assert isinstance(plan.strategy, FineTune)
    assert (plan.strategy.steps, plan.strategy.folds) == (FULL_STEPS, 1)
    assert rules(plan) == [
        "probe_accuracy", "imbalance", "delta_multi", "more_labels", "predicted_gain", "rates", "steps", "acceptance",
    ]  # fmt: skip
    assert "prior" in next(reason.sentence for reason in plan.reasons if reason.rule == "predicted_gain")


def test_less_time_means_fewer_steps_until_fine_tuning_is_dropped(profile_of, evidence_of):
    ample = plan_transfer(profile_of(), AMPLE, evidence=evidence_of())
    whole = training_cost(ample.request, FULL_STEPS, shape_of(ample.strategy, ample.request)).seconds.high

    shortened = plan_transfer(profile_of(), Budget(seconds=0.5 * whole), evidence=evidence_of())
    short = plan_transfer(profile_of(), Budget(seconds=0.13 * whole), evidence=evidence_of())
    dropped = plan_transfer(profile_of(), Budget(seconds=0.05 * whole), evidence=evidence_of())

    assert FULL_STEPS / 2 <= shortened.strategy.steps < FULL_STEPS
    assert SHORTEST_FINETUNING <= short.strategy.steps < FULL_STEPS / 6
    assert short.chosen.seconds.high <= 0.13 * whole
    assert dropped.strategy == ALL_STAGES
    assert rules(dropped)[-1] == "does_not_fit"


def test_little_time_means_smaller_images_where_the_network_takes_them(profile_of, evidence_of):
    little, near = Budget(seconds=250), evidence_of(all_stages_accuracy=0.6)
    given = {"strategy": "finetune", "evidence": near}

    ample = plan_transfer(profile_of(takes_smaller_images=True), AMPLE, **given).strategy
    small = plan_transfer(profile_of(takes_smaller_images=True), little, **given)
    full = plan_transfer(profile_of(), little, **given).strategy
    tiny = plan_transfer(profile_of(takes_smaller_images=True, image_side=64), little, **given).strategy

    assert ample.image_scale == 1.0
    assert small.strategy.image_scale == pytest.approx(160 / 224)
    assert small.strategy.steps == pytest.approx(full.steps / small.strategy.image_scale**2, rel=0.15)
    assert "smaller_images" in rules(small)
    assert (full.image_scale, tiny.image_scale) == (1.0, 1.0)


@pytest.mark.parametrize(("n", "folds"), [(99, (3, 3, 1)), (100, (1, 1, 1))])
def test_very_little_time_means_one_hold_out_where_there_were_folds(profile_of, evidence_of, n, folds):
    given = {"strategy": "finetune", "evidence": evidence_of(all_stages_accuracy=0.6, head_seconds=1.0)}
    few = profile_of(n_samples=n, rows_cached=0, largest_class=20, smallest_class=5, takes_smaller_images=True)
    # A third of sixty steps of 32 images of 160 pixels at the slow end of the estimate in each fold, and two thirds.
    shortest = SHORTEST_FINETUNING / 3 * 32 * 0.03 * (160 / 224) ** 2 * 1.25
    enough = (10_000, 1.3 * (folds[1] + 2) * shortest, 1.3 * (folds[2] + 2) * shortest)

    ample, little, least = (plan_transfer(few, Budget(seconds=seconds), **given).strategy for seconds in enough)

    assert (ample.folds, little.folds, least.folds) == folds
    assert little.image_scale == least.image_scale == pytest.approx(160 / 224)
    assert ample.image_scale == 1.0
    assert min(little.steps, least.steps) >= SHORTEST_FINETUNING
    assert max(little.steps, least.steps) < ample.steps


def test_a_probe_near_its_ceiling_is_kept(profile_of, evidence_of):
    sure = evidence_of(accuracy=0.985, standard_error=0.01, all_stages_accuracy=0.985)

    plan = plan_transfer(profile_of(), AMPLE, evidence=sure)

    assert plan.strategy == PENULTIMATE
    assert rules(plan)[-1] == "headroom"


@pytest.mark.parametrize("accuracy", [0.9, 1.0])
def test_no_headroom_at_all_stops_at_the_probe(profile_of, evidence_of, accuracy):
    perfect = evidence_of(accuracy=accuracy, standard_error=0.0, all_stages_accuracy=1.0)

    plan = plan_transfer(profile_of(), AMPLE, evidence=perfect)

    assert isinstance(plan.strategy, LinearProbe)
    assert rules(plan)[-1] == "headroom"


def test_the_headroom_is_that_of_the_better_probe(profile_of, evidence_of):
    recovered = evidence_of(accuracy=0.9, all_stages_accuracy=0.985, standard_error=0.01)

    plan = plan_transfer(profile_of(), AMPLE, evidence=recovered)

    assert plan.strategy == ALL_STAGES
    assert rules(plan)[-1] == "headroom"


def test_a_gain_that_is_unlikely_stops_at_the_probe(profile_of, evidence_of):
    near = evidence_of(accuracy=0.9, all_stages_accuracy=0.88)

    plan = plan_transfer(profile_of(), AMPLE, evidence=near)

    assert plan.strategy == PENULTIMATE
    assert rules(plan)[-1] == "predicted_gain"


def test_the_gain_must_be_over_the_better_probe_not_over_the_penultimate_one(profile_of, evidence_of):
    recovered = evidence_of(accuracy=0.97, all_stages_accuracy=0.98, standard_error=0.002)

    plan = plan_transfer(profile_of(), AMPLE, evidence=recovered)

    assert predict_gain(recovered, profile_of()).chance_above(WORTHWHILE_GAIN) > CHANCE_NEEDED
    assert plan.strategy == ALL_STAGES
    assert rules(plan)[-1] == "predicted_gain"


def test_all_stages_are_taken_only_if_better_by_more_than_a_standard_error(profile_of, evidence_of):
    for delta, expected in ((0.011, ALL_STAGES), (0.009, PENULTIMATE), (-0.05, PENULTIMATE)):
        evidence = evidence_of(accuracy=0.6, all_stages_accuracy=0.6 + delta, standard_error=0.01)
        plan = plan_transfer(profile_of(), Budget(), evidence=evidence)
        assert plan.strategy == expected


def test_few_near_images_are_judged_by_the_gain_alone(profile_of, evidence_of):
    profile = profile_of(n_samples=399, smallest_class=5, largest_class=50, rows_cached=0)

    plan = plan_transfer(profile, AMPLE, evidence=evidence_of(all_stages_accuracy=0.6))

    assert "predicted_gain" in rules(plan)


def test_rates_are_those_for_far_images_whatever_their_number(profile_of, evidence_of):
    for n in (500, 50_000):
        profile = profile_of(n_samples=n, smallest_class=20, largest_class=100)
        for evidence in (None, evidence_of(), evidence_of(all_stages_accuracy=0.6)):
            strategy = plan_transfer(profile, AMPLE, evidence=evidence, strategy="finetune").strategy
            assert (strategy.regime, strategy.lr, strategy.lr_decay) == ("far", 0.1, 1.3)


@pytest.mark.parametrize(("delta", "error"), [(0.015, 0.001), (0.03, 0.04)])
def test_a_delta_that_is_small_or_uncertain_is_not_far(evidence_of, delta, error):
    assert looks_far(evidence_of())
    assert not looks_far(evidence_of(all_stages_accuracy=0.6 + delta, standard_error=error))


@pytest.mark.parametrize(("risk", "z"), [("balanced", 0.25), ("safe", 1.64)])
def test_risk_sets_how_clearly_the_network_must_win(profile_of, evidence_of, risk, z):
    plan = plan_transfer(profile_of(), replace(AMPLE, risk=risk), evidence=evidence_of())

    assert plan.strategy.accept_z == z


@pytest.mark.parametrize(
    ("risk", "wish", "z"), [("balanced", None, 1.64), ("safe", None, 1.64), ("balanced", 0.5, 0.5)]
)
def test_fine_tuning_that_promises_next_to_nothing_must_be_clearly_better(profile_of, evidence_of, risk, wish, z):
    evidence = evidence_of(accuracy=0.99, all_stages_accuracy=0.985, train_accuracy=1.0)
    budget, wishes = replace(AMPLE, risk=risk), Wishes(accept_z=wish)

    plan = plan_transfer(profile_of(), budget, evidence=evidence, strategy="finetune", wishes=wishes)

    assert plan.strategy.accept_z == z
    accept = {reason.rule: reason.sentence for reason in plan.reasons}["acceptance"]
    assert ("because the probes promise less than +1.0 points" in accept) is (risk == "balanced" and wish is None)
    assert "risk" not in {change.rule for change in plan.what_would_change}


def test_a_run_that_overran_its_budget_still_has_its_probe(profile_of, evidence_of):
    plan = plan_transfer(profile_of(), Budget(seconds=60), evidence=evidence_of(spent_seconds=75.0))

    assert plan.strategy == PENULTIMATE
    assert rules(plan)[-1] == "does_not_fit"


def test_evidence_of_stages_that_the_backbone_lacks_is_refused(profile_of, evidence_of):
    with pytest.raises(InvalidInputError, match="all_stages_accuracy"):
        plan_transfer(profile_of(n_features_all_stages=1_280), AMPLE, evidence=evidence_of())


# --- asked for ---


@pytest.mark.parametrize("strategy", ["fine_tune", "prob", None, ["probe"]])
def test_a_mistyped_strategy_is_refused_with_the_names(profile_of, strategy):
    with pytest.raises(InvalidInputError, match="'auto', 'probe', 'all_stages_probe', 'finetune', 'scratch'"):
        plan_transfer(profile_of(), AMPLE, strategy=strategy)


def test_a_near_miss_is_suggested(profile_of):
    with pytest.raises(InvalidInputError, match=r"Got 'fine_tune' instead\. Did you mean 'finetune'\?"):
        plan_transfer(profile_of(), AMPLE, strategy="fine_tune")


def test_fine_tuning_that_was_asked_for_waits_only_for_its_rates(profile_of, evidence_of):
    assert plan_transfer(profile_of(), AMPLE, strategy="finetune").needs_probe
    assert not plan_transfer(profile_of(n_features_all_stages=1_280), AMPLE, strategy="finetune").needs_probe
    assert not plan_transfer(profile_of(), AMPLE, strategy="finetune", evidence=evidence_of()).needs_probe


def test_a_strategy_asked_for_that_does_not_fit_is_refused(profile_of):
    with pytest.raises(BudgetError, match=r"strategy='finetune' does not fit the budget: it needs .* would do"):
        plan_transfer(profile_of(), Budget(seconds=120), strategy="finetune")


def test_a_strategy_asked_for_that_no_longer_fits_after_the_probes_leaves_the_probe(profile_of, evidence_of):
    plan = plan_transfer(profile_of(), Budget(seconds=120), strategy="finetune", evidence=evidence_of())

    assert plan.strategy == ALL_STAGES
    assert rules(plan)[-1] == "does_not_fit"


def test_without_a_time_budget_training_stays_short_and_says_what_more_time_would_allow(profile_of, evidence_of):
    unasked = plan_transfer(profile_of(), Budget(), evidence=evidence_of())
    asked = plan_transfer(profile_of(), Budget(), evidence=evidence_of(), strategy="finetune")
    quick = plan_transfer(profile_of(train_seconds_per_image=0.0005), Budget(), evidence=evidence_of())

    assert isinstance(unasked.strategy, LinearProbe)
    assert "without a time_budget" in unasked.alternatives[-1].why_not
    assert (unasked.training_limit, asked.training_limit) == (600, None)
    assert isinstance(asked.strategy, FineTune)
    assert isinstance(quick.strategy, FineTune)
    assert quick.chosen.seconds.high <= 600
