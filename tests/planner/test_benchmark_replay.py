"""Replaying policies on records: regret, harm and cost as they are defined, checked against cells made by hand."""

import base64
import json
from dataclasses import asdict

import numpy as np
import pytest
from numpy.typing import NDArray

from bottleneck.planner import ProbeEvidence, Profile
from tests.benchmarks.planner import VERSION, read_records
from tests.benchmarks.planner_cells import Record, packed
from tests.benchmarks.planner_gain_fit import describe_signals, fit_delivered, learned_policy
from tests.benchmarks.planner_policies import POLICIES, always, planner, rule_of_thumb
from tests.benchmarks.planner_replay import (
    HARM_POINTS,
    NEEDED,
    Known,
    choose_all,
    compared_anew,
    describe,
    harms,
    known_fields,
    leave_one_out,
    play,
    score,
)
from tests.benchmarks.planner_summary import (
    FRONTIER,
    LEARNED,
    best_of_other_seeds,
    cheapest_as_good,
    draw_frontier,
    policy_lines,
    signal_lines,
)
from tests.planner.conftest import EVERYDAY, PROMISING

N_TEST = 200
NO_FURTHER, HALFWAY, TO_THE_END = (
    np.where(np.arange(100)[:, None] < [60, 80, 80, 80, at_the_end], 1, -1).astype(np.float16)
    for at_the_end in (60, 66, 70)
)
"""Of these held-out images (n, n_alphas) networks have more right than the probe (alpha = 0) on the way; at the end as
many, or more too. Of the last two today's comparison delivers alpha = 0.5."""
ALIKE = -np.ones((4, 5), dtype=np.float16)
"""These few do not tell the networks apart."""
ACCURACIES = {"probe": 0.6, "all_stages_probe": 0.65, "finetune_far": 0.8, "finetune_short": 0.72}
ACCURACIES |= {"raw_near": 0.7, "raw_far": 0.75}
START, FURTHER = 0.55, (-0.1, 0.0, -0.05, -0.15)
"""Share of test images that the probe which fine-tuning began with has right, and how much more than the accuracy given
for it fine-tuning has right at each alpha above 0."""
SHARED = {"open": [1.0, 0.5], "extract": [4.0, 2.0], "probe": [5.0, 2.5]}
TUNING = {"start": [2.0, 1.0], "decode": [1.5, 0.75], "mirror": [0.5, 0.25]}
FOLDS = {"folds": [60.0, 30.0], "refit": [25.0, 12.5], "check": [3.0, 1.5]}


def predictions(accuracy: float) -> str:
    """Return classes of the test images of which such a share is right."""
    codes = np.arange(N_TEST) % 2
    codes[round(accuracy * N_TEST) :] ^= 1
    return packed(codes)


def records_of(
    task: str,
    *,
    seed: int = 0,
    accuracies: dict[str, float] | None = None,
    delta: float = 0.1,
    margins: NDArray[np.float16] = HALFWAY,
    starts_from: str = "probe",
) -> list[Record]:
    """Return the lines of one cell, of which each strategy has such a share of the test images right."""
    lines = []
    for strategy, accuracy in (ACCURACIES | (accuracies or {})).items():
        line = {"task": task, "backbone": "tiny", "n": 3409, "seed": seed, "strategy": strategy, "accuracy": accuracy}
        line |= {"predictions": predictions(accuracy), "parts": SHARED}
        match strategy:
            case "probe":
                evidence = asdict(PROMISING) | {"all_stages_accuracy": PROMISING.accuracy + delta}
                layers = {"penultimate": 0.6, "early": 0.5, "all_stages": 0.6 + delta, "all_stages_gain_se": 0.01}
                line |= {"profile": asdict(EVERYDAY), "evidence": evidence, "test_labels": predictions(1.0)}
                line["signals"] = {"layers": layers, "neighbours": 0.5, "batch_norm_shift": None}
            case "all_stages_probe":
                parts = SHARED | {"all_stages_head": [10.0, 5.0]}
                line |= {"accuracy_cv": PROMISING.accuracy + delta, "parts": parts}
            case "finetune_near" | "finetune_far" | "finetune_short":
                line |= compared(accuracy, margins=margins, starts_from=starts_from)
            case "raw_near" | "raw_far":
                line["parts"] = SHARED | TUNING | {"training 0": [36.0, 18.0]}
            case "scratch":
                line["parts"] = SHARED | {"scratch": [500.0, 250.0]}
        lines.append(line)
    return lines


def compared(accuracy: float, *, margins: NDArray[np.float16], starts_from: str) -> Record:
    """Return what lines of fine-tuning with a comparison have of their own."""
    return {
        "parts": SHARED | TUNING | FOLDS,
        # What the library of that day delivered: today's comparison may make something else of the same images.
        "predictions": predictions(0.0),
        "start_predictions": predictions(START),
        "path_predictions": [predictions(accuracy + further) for further in FURTHER],
        "comparison": {"path": [{"accuracy": share} for share in (margins > 0).mean(axis=0)]},
        "held_out": {
            "margin": as_text(margins),
            "log_loss": as_text(np.where(margins > 0, 0.1, 2.0).astype(np.float16)),
        },
        "starts_from": starts_from,
        "stopped": "",
    }


def as_text(scores: NDArray[np.float16]) -> str:
    """Return scores as records have them."""
    return base64.b64encode(scores.tobytes()).decode()


def test_regret_is_against_the_best_strategy_averaged_over_seeds():
    cells = play(
        [*records_of("a", accuracies={"finetune_far": 0.9}), *records_of("a", seed=1, accuracies={"finetune_far": 0.8})]
    )

    scored = score(cells, choose_all(cells, always("probe"), None))

    np.testing.assert_allclose(scored.regret, 0.85 - 0.6)


@pytest.mark.parametrize("name", ["finetune_near", "raw_near", "raw_far", "scratch"])
def test_every_strategy_that_a_cell_has_may_be_its_best(name):
    cells = play(records_of("a", accuracies={name: 0.95}))

    scored = score(cells, choose_all(cells, always("all_stages_probe"), None))

    np.testing.assert_allclose(scored.regret, 0.95 - 0.65)


def test_harm_needs_half_a_point_and_a_standard_error():
    same, little, much = (
        play(records_of("a", accuracies={"raw_near": accuracy}))[0].deliveries
        for accuracy in (0.6, 0.6 - HARM_POINTS, 0.5)
    )

    assert not harms(same["probe"], same["raw_near"])
    assert not harms(little["probe"], little["raw_near"])
    assert harms(much["probe"], much["raw_near"])


def test_fine_tuning_delivers_the_alpha_that_todays_comparison_chooses():
    deliveries = play(records_of("a", accuracies={"finetune_near": 0.7}))[0].deliveries

    assert deliveries["finetune_far"].accuracy == 0.8
    assert deliveries["finetune_near"].accuracy == 0.7


@pytest.mark.parametrize(
    ("delta", "starts_from", "gains"),
    [
        # Four images on which all agree say nothing, so that what is expected remains: about 0.08 * headroom +
        # 1.3 * delta over the penultimate probe (planner.gain) is +16 or -3 points here, and over the probe on all
        # stages delta less: +2.
        (0.1, "probe", True),
        (-0.05, "probe", False),
        (-0.05, "all_stages_probe", True),
    ],
)
def test_fine_tuning_is_judged_by_what_was_expected_over_the_probe_that_it_starts_from(delta, starts_from, gains):
    records = {line["strategy"]: line for line in records_of("a", delta=delta, margins=ALIKE, starts_from=starts_from)}
    probe = records["probe"]
    profile, evidence = known_fields(Profile, probe["profile"]), known_fields(ProbeEvidence, probe["evidence"])

    comparison = compared_anew(records["finetune_far"], Known(profile=profile, evidence=evidence, z=0.0))

    assert (comparison.gain > 0) == gains


def test_refused_fine_tuning_delivers_the_probe_that_it_started_from():
    deliveries = play(records_of("a"), z=100.0)[0].deliveries

    assert deliveries["finetune_far"].accuracy == START
    assert deliveries["finetune_far"].seconds == pytest.approx(10 + 4 + 60)  # without the training on all images


@pytest.mark.parametrize(
    ("name", "margins", "wall"),
    [
        ("probe", HALFWAY, 10),
        ("all_stages_probe", HALFWAY, 10 + 10),
        ("all_stages", HALFWAY, 10 + 10),
        ("finetune_far", HALFWAY, 10 + 4 + 60 + 25 + 3),
        ("raw_near", HALFWAY, 10 + 4 + 36),
        ("raw_far", HALFWAY, 10 + 4 + 36),
        ("bake_off", NO_FURTHER, 10 + 4 + 60),  # no better at alpha = 1, so nothing is trained on all images
        ("bake_off", TO_THE_END, 10 + 4 + 60 + 36),
        ("bake_off_all", HALFWAY, 10 + 10 + 4 + 60 + 25 + 3),
        ("scratch", HALFWAY, 1 + 500),
    ],
)
def test_seconds_are_those_of_the_whole_procedure(name, margins, wall):
    records = records_of("a", accuracies={"scratch": 0.5}, margins=margins)

    [by_wall], [by_cpu] = play(records), play(records, clock="cpu")

    assert by_wall.deliveries[name].seconds == pytest.approx(wall)
    assert by_cpu.deliveries[name].seconds == pytest.approx(wall / 2)


def test_plain_fine_tuning_pays_for_trainings_that_diverged():
    records = records_of("a")
    [raw] = [record for record in records if record["strategy"] == "raw_far"]
    raw["parts"] = SHARED | TUNING | {"training 0": [7.0, 7.0], "training 1": [11.0, 11.0], "training 4": [36.0, 36.0]}

    [cell] = play(records)

    assert cell.deliveries["raw_far"].seconds == pytest.approx(10 + 4 + 7 + 11 + 36)


@pytest.mark.parametrize(("delta", "kept"), [(0.0, "all_stages_probe"), (-0.02, "probe")])
def test_all_stages_fall_back_on_the_probe_that_was_better_out_of_fold(delta, kept):
    deliveries = play(records_of("a", delta=delta))[0].deliveries

    assert deliveries["all_stages"].accuracy == deliveries[kept].accuracy


@pytest.mark.parametrize(("margins", "kept"), [(NO_FURTHER, "probe"), (TO_THE_END, "raw_far")])
def test_the_bake_off_looks_at_the_end_of_the_path_alone(margins, kept):
    deliveries = play(records_of("a", margins=margins))[0].deliveries

    assert deliveries["bake_off"].accuracy == deliveries[kept].accuracy


@pytest.mark.parametrize(
    ("delta", "z", "kept"),
    [
        # Halfway 20 of 100 more are right, at probabilities of exp(-0.1) instead of exp(-2): 18.85 points.
        (0.188, 0.5, "finetune_far"),
        (0.189, 0.5, "all_stages_probe"),
        (0.188, 100.0, "all_stages_probe"),
        (-0.02, 100.0, "probe"),
    ],
)
def test_bake_off_of_everything_keeps_what_was_best_out_of_fold(delta, z, kept):
    deliveries = play(records_of("a", delta=delta), z=z)[0].deliveries

    assert deliveries["bake_off_all"].accuracy == deliveries[kept].accuracy


def test_planner_and_rule_of_thumb_choose_from_the_record_alone():
    cells = play([*records_of("far", delta=0.1), *records_of("near", delta=-0.08)])

    assert choose_all(cells, planner, None) == ["finetune_far", "probe"]
    assert choose_all(cells, rule_of_thumb, None) == ["scratch", "raw_near"]
    np.testing.assert_allclose(score(cells, ["scratch", "raw_near"]).accuracy, [0.75, 0.7])  # no scratch: raw_far


def test_what_did_not_change_since_is_read_with_the_records_of_today(tmp_path):
    file = tmp_path / "cells.jsonl"
    stored = [("probe", 3), ("probe", 4), ("finetune_far", 4), ("finetune_far", 5)]
    file.write_text("".join(f"{json.dumps({'strategy': name, 'version': version})}\n" for name, version in stored))

    read = {
        version: [(record["strategy"], record["version"]) for record in read_records([file], version)]
        for version in (3, 4, VERSION)
    }

    assert VERSION == 5
    assert read == {3: stored[:1], 4: stored[1:3], 5: [stored[1], stored[3]]}


def test_a_dataset_that_is_left_out_is_not_learned_from():
    cells = play([record for task in "abcd" for record in records_of(task)])
    seen = []

    def fit(others):
        seen.append({cell.task for cell in others})
        return seen[-1]

    chosen = leave_one_out(cells, fit, lambda evidence, profile, tasks: "probe" if "a" in tasks else "finetune_far")

    assert chosen == ["finetune_far", "probe", "probe", "probe"]
    assert all(len(tasks) == 3 for tasks in seen)


@pytest.mark.parametrize("missing", NEEDED)
def test_incomplete_and_failed_cells_are_left_out(missing):
    records = [*records_of("a"), *(record for record in records_of("b") if record["strategy"] != missing)]
    failed = {"task": "b", "backbone": "tiny", "n": 3409, "seed": 0, "strategy": missing, "error": "none"}

    assert set(NEEDED) == set(ACCURACIES)  # neither near rates with a comparison nor scratch
    assert [cell.task for cell in play([*records, failed])] == ["a"]


def test_gain_model_finds_what_the_gain_depends_on():
    deltas = (-0.04, -0.02, 0.01, 0.04, 0.07, 0.1, 0.13, 0.16, 0.2)
    cells = play(
        [
            record
            for i, delta in enumerate(deltas)
            for record in records_of(f"task {i}", delta=delta, accuracies={"finetune_far": 0.6 + 1.5 * delta})
        ]
    )

    model = fit_delivered(cells)
    best = describe_signals(cells, delivery="finetune_far")[0]
    chosen = leave_one_out(cells, fit_delivered, learned_policy)

    # Both are shares of the same headroom, and the gain is half as much again as delta in each cell.
    assert model.coefficients == pytest.approx({"delta_share": 1.5, "log_per_class": 0, "fit_gap": 0, "headroom": 0})
    assert model.intercept == pytest.approx(0, abs=1e-6)
    assert model.residual == pytest.approx(0, abs=1e-6)
    assert best["spearman"] == 1
    # That is a point more than the better probe has from the fourth on, also as the other cells predict it.
    assert chosen == ["probe"] * 2 + ["all_stages"] + ["finetune_far"] * 6


def test_hindsight_takes_what_was_best_with_other_seeds():
    both = [*records_of("a", accuracies={"raw_far": 0.9}), *records_of("a", seed=1, accuracies={"raw_near": 0.9})]
    cells = play(both)

    assert best_of_other_seeds(cells) == ["raw_near", "raw_far"]
    assert best_of_other_seeds(cells[:1]) is None


def test_summary_and_figure_cover_every_policy(tmp_path):
    cells = play([record for task in "abcde" for record in records_of(task, delta=0.05)])

    lines = policy_lines(cells)
    draw_frontier(lines, tmp_path / "frontier.png")

    by_name = {line["policy"]: line for line in lines}
    assert set(by_name) == {*POLICIES, LEARNED, FRONTIER}
    assert by_name["always fine-tune"]["k"] == 1
    assert by_name["always probe"]["k"] == 10 / 50
    assert by_name["always fine-tune hot, fallback"]["k"] == 102 / 50
    assert by_name["always fine-tune hot, fallback"]["regret"] == 0
    assert by_name["BiT-HyperRule"]["regret"] == 5
    assert by_name["bake-off"]["chosen"] == {"bake_off": 5}
    assert by_name["rule of thumb"]["over_rule_of_thumb"] == 0
    assert (tmp_path / "frontier.png").stat().st_size > 10_000


def test_the_frontier_is_the_pickiest_planner_that_is_as_good_as_its_rival():
    cells = play([*records_of("far", delta=0.15), *records_of("near", delta=-0.08)])

    assert cheapest_as_good(cells, ["probe", "probe"]) == ["finetune_short", "probe"]
    assert cheapest_as_good(cells, ["raw_far", "raw_far"]) is None


def test_signals_are_of_what_the_library_delivers_and_need_more_than_three_datasets():
    cells = play([record for task in "abcd" for record in records_of(task)])

    model, *signals = signal_lines(cells)

    assert model["model"] == "finetune_far"
    assert model["mean_gain_points"] == 20
    assert {line["delivery"] for line in signals} == {"finetune_far"}
    assert not list(signal_lines(cells[:3]))


def test_p95_and_differences_are_in_points():
    cells = play([*records_of("a"), *records_of("b", accuracies={"probe": 0.75})])
    baseline = score(cells, ["probe", "probe"])

    line = describe("hot", score(cells, ["finetune_far", "finetune_far"]), baseline)

    assert line["over_rule_of_thumb"] == pytest.approx((20 + 5) / 2)
    assert line["worst_dataset"] == "b"
