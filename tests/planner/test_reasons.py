import re
from dataclasses import fields

import pytest

from bottleneck.errors import BudgetError
from bottleneck.planner import Budget, FineTune, LinearProbe, plan_transfer
from bottleneck.planner.alternatives import SCRATCH_FROM, TINY_NETWORK, TINY_SCRATCH_FROM, shortest_seconds
from bottleneck.planner.decide import CHANCE_NEEDED, STOP_HEADROOM_SE, WORTHWHILE_GAIN
from bottleneck.planner.gain import SEEN_ACCURACIES, SEEN_COUNTS, accuracy_with_twice_the_images, predict_gain
from bottleneck.planner.reasons import IMBALANCED, THUMB_FEW
from bottleneck.planner.shapes import finetuning_steps, n_held_out, scratch_steps
from bottleneck.planner.wording import duration, size
from tests.planner.conftest import AMPLE


def sourced_numbers(plan):
    """Return every way in which a number of the request, of an alternative or of a named constant may be said."""
    profile, budget, evidence = plan.request.profile, plan.request.budget, plan.request.evidence
    n = profile.n_samples
    counts = [n, n - profile.rows_cached, profile.n_parameters, 90]
    counts += [finetuning_steps(plan.request), scratch_steps(plan.request)]
    counts += [SCRATCH_FROM, TINY_NETWORK, TINY_SCRATCH_FROM, THUMB_FEW]
    seconds = [plan.training_limit] if plan.training_limit is not None else []
    n_bytes = [profile.memory_available_bytes, budget.memory_bytes or 0, budget.disk_bytes or 0]
    shares, plain = [CHANCE_NEEDED, WORTHWHILE_GAIN], [STOP_HEADROOM_SE]
    for found in plan.alternatives:
        counts += [getattr(found.strategy, name) for name in ("steps", "batch_size") if hasattr(found.strategy, name)]
        settings = ("lr", "lr_decay", "accept_z")
        plain += [getattr(found.strategy, name) for name in settings if hasattr(found.strategy, name)]
        seconds += [found.seconds.value, found.seconds.high]
        n_bytes += [found.memory_bytes, found.disk_bytes]
        plain += [str(found.memory_bytes)]
    training = [found.strategy for found in plan.alternatives if not isinstance(found.strategy, LinearProbe)]
    counts += [number for strategy in training for number in (n_held_out(n, strategy.folds), strategy.folds + 1)]
    seconds += [shortest_seconds(plan.request, strategy) for strategy in training]
    finetuning = [strategy for strategy in training if isinstance(strategy, FineTune)]
    counts += [profile.image_side, *(float(f"{strategy.lr:.2g}") for strategy in finetuning)]
    shares += [strategy.image_scale for strategy in finetuning]
    if profile.largest_class >= IMBALANCED * profile.smallest_class:
        counts += [profile.largest_class, profile.smallest_class]
        plain.append(f"{profile.largest_class / profile.smallest_class:,.1f}")
    if evidence is not None:
        lead, gain = evidence.delta_multi or 0.0, predict_gain(evidence, profile)
        shares += [evidence.accuracy, evidence.standard_error, evidence.train_accuracy, lead]
        shares += [1 - evidence.accuracy, evidence.train_accuracy - evidence.accuracy]
        shares += [
            known for known in (evidence.early_stages_accuracy, evidence.neighbours_accuracy) if known is not None
        ]
        plain += [f"{shift:.2f}" for shift in [evidence.batch_norm_shift] if shift is not None]
        counts += [count for seen in SEEN_COUNTS.values() for count in (seen.low, seen.high, seen.of(profile))]
        shares += [share for seen in SEEN_ACCURACIES.values() for share in (seen.low, seen.high)]
        if (trial := evidence.trial) is not None:
            counts += [trial.steps, trial.n_images]
            seconds.append(trial.seconds)
            shares += [share for run in trial.runs for share in (run.gain, run.standard_error)]
    if plan.trial is not None:
        counts.append(plan.trial.recipes[0].steps)
        seconds.append(plan.trial.seconds.value)
    if evidence is not None:
        for better in (0.0, lead):
            shares += [gain.mean - better, *(bound - better for bound in gain.interval), gain.headroom - better]
            shares.append(gain.chance_above(better + WORTHWHILE_GAIN))
        if len(evidence.learning_curve) > 2:
            last, accuracy = evidence.learning_curve[-1]
            counts += [last, 2 * last]
            shares += [accuracy, accuracy_with_twice_the_images(evidence.learning_curve) - accuracy]
    said = {f"{count:,}" for count in counts} | {value if isinstance(value, str) else f"{value:g}" for value in plain}
    said |= {duration(value) for value in seconds} | {size(value) for value in n_bytes}
    said |= {str(int(value) + extra) for value in seconds for extra in (0, 1)}
    said |= {f"{100 * share:.1f} %" for share in shares} | {f"{100 * share:+.1f} points" for share in shares}
    return said


def test_every_number_in_a_sentence_comes_from_the_request_the_costs_or_a_named_constant(cases):
    checked = 0
    for number, (profile, budget, evidence) in enumerate(cases[:200]):
        strategy = ("auto", "auto", "finetune", "scratch")[number % 4]
        try:
            plan = plan_transfer(profile, budget, evidence=evidence, strategy=strategy)
        except BudgetError:
            continue
        longest_first = sorted(sourced_numbers(plan), key=len, reverse=True)
        sourced = re.compile("|".join(rf"(?<![\d.,]){re.escape(said)}(?!\d|[.,]\d)" for said in longest_first))
        for reason in (*plan.reasons, *plan.what_would_change):
            rest = sourced.sub("", reason.sentence)
            assert not re.search(r"\d", rest), f"{reason.sentence!r} leaves {rest!r}"
            checked += 1
    assert checked > 400


def test_every_reason_has_a_rule_and_ends_as_a_sentence(cases):
    for profile, budget, evidence in cases:
        try:
            plan = plan_transfer(profile, budget, evidence=evidence)
        except BudgetError:
            continue
        assert plan.reasons
        for reason in (*plan.reasons, *plan.what_would_change):
            assert re.fullmatch(r"[a-z_]+", reason.rule)
            assert reason.sentence.endswith(".")
            assert {field.name for field in fields(reason)} == {"rule", "sentence"}


def test_the_same_rule_says_other_numbers_of_other_evidence(profile_of, evidence_of):
    plans = [plan_transfer(profile_of(), AMPLE, evidence=evidence_of(accuracy=share)) for share in (0.6, 0.61)]

    assert "60.0 %" in plans[0].reasons[0].sentence
    assert "61.0 %" in plans[1].reasons[0].sentence


@pytest.mark.parametrize(
    ("n", "with_evidence", "choice"),
    [(999, False, "probe"), (999, True, "probe"), (1_000, False, "finetune"), (1_000, True, "scratch")],
)
def test_the_rule_of_thumb_goes_by_size_and_domain(profile_of, evidence_of, n, with_evidence, choice):
    profile = profile_of(n_samples=n, largest_class=500, rows_cached=0)

    plan = plan_transfer(profile, AMPLE, evidence=evidence_of() if with_evidence else None)

    assert plan.rule_of_thumb.strategy == choice
    assert f"{n:,} images" in plan.rule_of_thumb.sentence


def test_a_plan_to_train_says_that_rates_may_turn_out_lower(profile_of):
    plan = plan_transfer(profile_of(), AMPLE, strategy="finetune")

    sentence = next(reason.sentence for reason in plan.reasons if reason.rule == "rates")
    assert "rate is 0.1, divided by 1.3" in sentence
    assert sentence.endswith("and lower if the network does not bear that.")


@pytest.mark.parametrize(
    ("n", "strategy", "held_out"),
    [
        (99, "finetune", "all images, fold by fold,"),
        (300, "finetune", "100 images, or on more where these leave it in doubt,"),
        (4_000, "finetune", "1,000 images, or on more where these leave it in doubt,"),
        (300, "scratch", "100 images"),
    ],
)
def test_a_plan_to_train_says_on_which_images_the_network_must_win(profile_of, n, strategy, held_out):
    profile = profile_of(n_samples=n, smallest_class=5, largest_class=20, rows_cached=0)

    plan = plan_transfer(profile, AMPLE, strategy=strategy)

    asked_next = " If not, the one a quarter of the way to it is asked the same, and to be right on more."
    careful = asked_next if strategy == "finetune" else ""
    assert sentences(plan)["acceptance"] == (
        f"The network replaces the probe only if it is better on {held_out} that neither has seen, and its gain, "
        f"weighed against what is expected, exceeds 0.25 times what is left of doubt.{careful}"
    )


def test_a_plan_names_the_other_strategies_that_fit_and_how_to_ask_for_them(profile_of, evidence_of):
    plan = plan_transfer(profile_of(), AMPLE, evidence=evidence_of())

    offered = [change.sentence.split()[0] for change in plan.what_would_change if change.rule == "strategy"]
    assert offered == ["strategy='probe'", "strategy='all_stages_probe'"]


def test_a_plan_to_train_says_what_would_keep_the_probe(profile_of, evidence_of):
    plan = plan_transfer(profile_of(), AMPLE, evidence=evidence_of())
    changes = {change.rule: change.sentence for change in plan.what_would_change}

    least = int(re.search(r"under (\d+)", changes["time_budget"]).group(1))
    tighter = plan_transfer(profile_of(), Budget(seconds=least - 1), evidence=evidence_of())
    assert tighter.strategy != plan.strategy
    assert "risk='safe'" in changes["risk"]
    assert "risk" not in {
        change.rule
        for change in plan_transfer(profile_of(), Budget(risk="safe"), evidence=evidence_of()).what_would_change
    }


def test_a_forced_plan_says_how_to_let_the_evidence_decide(profile_of):
    plan = plan_transfer(profile_of(), AMPLE, strategy="probe")

    assert any("strategy='auto'" in change.sentence for change in plan.what_would_change)


def sentences(plan):
    return {reason.rule: reason.sentence for reason in plan.reasons}


def test_headroom_gap_and_imbalance_are_said_with_their_numbers(profile_of, evidence_of):
    plan = plan_transfer(profile_of(), AMPLE, evidence=evidence_of(accuracy=0.61, train_accuracy=0.93))
    even = plan_transfer(profile_of(smallest_class=400), AMPLE, evidence=evidence_of())

    assert "leaves 39.0 % to gain" in sentences(plan)["probe_accuracy"]
    assert "a gap of +32.0 points" in sentences(plan)["probe_accuracy"]
    assert "16.6 times the images of the rarest (1,011 and 61)" in sentences(plan)["imbalance"]
    assert "imbalance" not in sentences(even)
    assert "3,409 images in 10 classes of 61 to 1,011" in str(plan).replace("\n", " ")


def test_signals_are_one_sentence_of_those_that_were_measured(profile_of, evidence_of):
    signals = {"early_stages_accuracy": 0.41, "neighbours_accuracy": 0.52, "batch_norm_shift": 0.347}

    all_three = sentences(plan_transfer(profile_of(), AMPLE, evidence=evidence_of(**signals)))["signals"]
    one = sentences(plan_transfer(profile_of(), AMPLE, evidence=evidence_of(neighbours_accuracy=0.52)))["signals"]

    assert [said in all_three for said in ("41.0 %", "52.0 %", "0.35 standard deviations")] == [True] * 3
    assert one == "For comparison: the nearest neighbours on 52.0 %."
    assert "signals" not in sentences(plan_transfer(profile_of(), AMPLE, evidence=evidence_of()))
