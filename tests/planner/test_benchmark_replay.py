"""Replaying policies on records: regret, harm and cost as they are defined, checked against cells made by hand."""

import base64
from dataclasses import asdict

import numpy as np
import pytest

from tests.benchmarks.planner_cells import Record, packed
from tests.benchmarks.planner_gain_fit import describe_signals, fit_gain_model, fit_gain_models, learned_policy
from tests.benchmarks.planner_replay import (
    HARM_POINTS,
    always,
    choose_all,
    describe,
    harms,
    leave_one_out,
    planner,
    play,
    rule_of_thumb,
    score,
)
from tests.benchmarks.planner_summary import draw_frontier, policy_lines
from tests.planner.conftest import EVERYDAY, PROMISING

N_TEST = 200
MARGINS = np.where(np.arange(100)[:, None] < [60, 80, 80, 80, 60], 1, -1).astype(np.float16)
HELD_OUT = {name: base64.b64encode(MARGINS.tobytes()).decode() for name in ("margin", "log_loss")}
"""Of these images the network is right more often than the probe on the way to its end."""
ACCURACIES = {"probe": 0.6, "all_stages_probe": 0.65, "finetune_near": 0.7, "finetune_far": 0.8}


def records_of(
    task: str, *, seed: int = 0, accuracies: dict[str, float] | None = None, delta: float = 0.1
) -> list[Record]:
    """Return the lines of one cell, of which each strategy has so many test images right."""
    labels = np.arange(N_TEST) % 2
    reached = ACCURACIES | (accuracies or {})

    def predictions(accuracy: float) -> str:
        codes = labels.copy()
        codes[round(accuracy * N_TEST) :] ^= 1
        return packed(codes)

    lines = []
    for strategy, accuracy in reached.items():
        line = {"task": task, "backbone": "tiny", "n": 3409, "seed": seed, "strategy": strategy, "accuracy": accuracy}
        parts = {"open": [1.0, 0.5], "extract": [4.0, 2.0], "probe": [5.0, 2.5]}
        line |= {"predictions": predictions(accuracy), "parts": parts}
        if strategy == "probe":
            evidence = asdict(PROMISING) | {"all_stages_accuracy": PROMISING.accuracy + delta}
            layers = {"penultimate": 0.6, "early": 0.5, "all_stages": 0.6 + delta, "all_stages_gain_se": 0.01}
            line |= {"profile": asdict(EVERYDAY), "evidence": evidence, "test_labels": packed(labels)}
            line["signals"] = {"layers": layers, "neighbours": 0.5, "batch_norm_shift": None}
        elif strategy == "all_stages_probe":
            line |= {"accuracy_cv": PROMISING.accuracy + delta, "parts": parts | {"all_stages_head": [10.0, 5.0]}}
        else:
            tuning = {"decode": [1.0, 1.0], "mirror": [1.0, 1.0], "folds": [60.0, 30.0], "refit": [28.0, 14.0]}
            path = [{"alpha": 0.0, "accuracy": 0.6}, {"alpha": 1.0, "accuracy": accuracy - 0.2}]
            line |= {
                "parts": parts | tuning,
                "accepted": True,
                "path_predictions": [*[predictions(accuracy)] * 3, predictions(accuracy - 0.05)],
                "comparison": {"gain": accuracy - 0.6, "path": path, "z": 0.5},
                "held_out": HELD_OUT,
                "starts_from": "probe",
                "stopped": "",
            }
        lines.append(line)
    return lines


def test_regret_is_against_the_best_strategy_averaged_over_seeds():
    cells = play(
        [*records_of("a", accuracies={"finetune_far": 0.9}), *records_of("a", seed=1, accuracies={"finetune_far": 0.8})]
    )

    scored = score(cells, choose_all(cells, always("probe"), None))

    np.testing.assert_allclose(scored.regret, 0.85 - 0.6)


def test_harm_needs_half_a_point_and_a_standard_error():
    same, little, much = (
        play(records_of("a", accuracies={"finetune_near": accuracy}))[0].deliveries
        for accuracy in (0.6, 0.6 - HARM_POINTS, 0.5)
    )

    assert not harms(same["probe"], same["finetune_near"])
    assert not harms(little["probe"], little["finetune_near"])
    assert harms(much["probe"], much["finetune_near"])


@pytest.mark.parametrize(
    ("name", "wall"),
    [
        ("probe", 10),
        ("all_stages_probe", 20),
        ("finetune_near", 100),
        ("raw_near", 40),
        ("bake_off_near", 72),  # refused at alpha = 1, so nothing is trained on all images
        ("bake_off_all", 10 + 10 + 90 + 90),
    ],
)
def test_seconds_are_those_of_the_whole_procedure(name, wall):
    cell = play(records_of("a"))[0]

    assert cell.deliveries[name].seconds == pytest.approx(wall)


def test_bake_off_keeps_the_probe_that_was_better_out_of_fold():
    deliveries = play(records_of("a", accuracies={"finetune_far": 0.9}))[0].deliveries

    assert deliveries["bake_off_near"].accuracy == deliveries["probe"].accuracy
    assert deliveries["bake_off_far"].accuracy == deliveries["raw_far"].accuracy
    assert deliveries["bake_off_all"].accuracy == deliveries["finetune_far"].accuracy


def test_planner_and_rule_of_thumb_choose_from_the_record_alone():
    cells = play([*records_of("far", delta=0.1), *records_of("near", delta=-0.02)])

    assert choose_all(cells, planner, None) == ["finetune_far", "probe"]
    assert choose_all(cells, rule_of_thumb, None) == ["scratch", "raw_near"]
    assert score(cells, ["scratch", "raw_near"]).accuracy[0] == cells[0].deliveries["raw_far"].accuracy


def test_a_dataset_that_is_left_out_is_not_learned_from():
    cells = play([record for task in "abcd" for record in records_of(task)])
    seen = []

    def fit(others):
        seen.append({cell.task for cell in others})
        return seen[-1]

    chosen = leave_one_out(cells, fit, lambda evidence, profile, tasks: "probe" if "a" in tasks else "finetune_far")

    assert chosen == ["finetune_far", "probe", "probe", "probe"]
    assert all(len(tasks) == 3 for tasks in seen)


def test_incomplete_and_failed_cells_are_left_out():
    failed = {"task": "b", "backbone": "tiny", "n": 3409, "seed": 0, "strategy": "finetune_far", "error": "none"}

    assert [cell.task for cell in play([*records_of("a"), *records_of("b")[:3], failed])] == ["a"]


def test_gain_model_finds_what_the_gain_depends_on():
    cells = play(
        [
            record
            for i, delta in enumerate(np.linspace(-0.05, 0.2, 9).round(3).tolist())
            for record in records_of(f"task {i}", delta=delta, accuracies={"finetune_far": 0.6 + max(0, delta)})
        ]
    )

    model = fit_gain_model(cells, delivery="finetune_far", names=("delta_share",))
    best = describe_signals(cells, delivery="finetune_far")[0]

    assert 0.6 < model.coefficients["delta_share"] < 1.1
    assert model.residual < 0.05
    assert best["spearman"] > 0.95
    assert set(leave_one_out(cells, fit_gain_models, learned_policy)) <= set(cells[0].deliveries)


def test_summary_and_figure_cover_every_policy(tmp_path):
    cells = play([record for task in "abcde" for record in records_of(task, delta=0.05)])

    lines = policy_lines(cells)
    draw_frontier(lines, tmp_path / "frontier.png")

    by_name = {line["policy"]: line for line in lines}
    assert by_name["always fine-tune"]["k"] == 1
    assert by_name["always probe"]["k"] == 0.25
    assert by_name["always fine-tune hot, fallback"]["regret"] == 0
    assert by_name["rule of thumb"]["over_rule_of_thumb"] == 0
    assert (tmp_path / "frontier.png").stat().st_size > 10_000


def test_p95_and_differences_are_in_points():
    cells = play([*records_of("a"), *records_of("b", accuracies={"probe": 0.75})])
    baseline = score(cells, ["probe", "probe"])

    line = describe("hot", score(cells, ["finetune_far", "finetune_far"]), baseline)

    assert line["over_rule_of_thumb"] == pytest.approx((20 + 5) / 2)
    assert line["worst_dataset"] == "b"
