"""Replays planners on the table of cells: what each would have delivered, how far from the best, at what cost.

Nothing is trained here. A policy looks at what a planner sees in a cell, the evidence of the probes and the profile,
and names one of the deliveries that the records hold:

- ``probe``, ``all_stages_probe`` (``all_stages`` falls back on the penultimate probe where that is better out of fold);
- ``finetune_far``, in some cells ``finetune_near``: with comparison, blend and fallback, as the library delivers them;
  held-out images are compared anew, as it does today; ``finetune_short``: the same with a quarter of the steps;
- ``raw_near``, ``raw_far``: one training on all images, without comparison, blend or fallback;
- ``bake_off``: the network of ``raw_far`` if that of the fold beat the probe on its held-out images, else the probe;
- ``bake_off_all``: whichever of both probes and fine-tuning was best out of fold, after all were run;
- ``scratch``, in the cells that have it.

**Regret** of a cell: the best of all strategies there, raw ones included, each averaged over the seeds of this
backbone, task and n, minus the accuracy delivered. **Harm**: worse than the penultimate probe by more than half a point
and by more than one paired standard error. **K**: the policy's seconds over always-fine-tuning's (``raw_near``), all
cells together. Means are over datasets of the means of their cells, intervals 95 % of a bootstrap over datasets. Cells
that lack a strategy are left out.
"""

import base64
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from bottleneck.finetune import Comparison, Expected
from bottleneck.finetune.compare import ALPHAS, HeldOut, compare
from bottleneck.finetune.recipe import MOST_GENTLER
from bottleneck.planner import ProbeEvidence, Profile
from bottleneck.planner.alternatives import ACCEPT_Z, z_to_accept
from bottleneck.planner.evidence import Layers
from bottleneck.planner.gain import expected_gain
from tests.benchmarks.planner_cells import FINETUNINGS, Record, unpacked

Clock = Literal["wall", "cpu"]
NEEDED = ("probe", "all_stages_probe", "finetune_far", "finetune_short", "raw_near", "raw_far")
RIVALS = (*NEEDED, "finetune_near", "scratch")
"""What the best of is taken, to measure regret."""
SHARED_PARTS = ("open", "extract", "probe")
TUNING_PARTS = ("start", "decode", "mirror", "folds")
TRAINING_PARTS = tuple(f"training {times}" for times in range(MOST_GENTLER + 1))
PLAIN_PARTS = ("start", "decode", "mirror", *TRAINING_PARTS)
HARM_POINTS = 0.005
N_BOOTSTRAP = 2000
INTERVAL = (2.5, 97.5)

Constants = TypeVar("Constants")
Policy = Callable[[ProbeEvidence, Profile, Constants], str]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Delivery:
    """Which test images the delivered classifier has right, and the seconds until it was there."""

    correct: NDArray[np.bool_]
    seconds: float

    @property
    def accuracy(self) -> float:
        """Share of the test images."""
        return float(self.correct.mean())


@dataclass(frozen=True, kw_only=True, slots=True)
class Known:
    """What a planner sees of a cell, and how clearly a network must win in it."""

    profile: Profile
    evidence: ProbeEvidence
    z: float


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class PlayedCell:
    """All that is known of a cell: what a planner sees, and what every delivery came to."""

    task: str
    backbone: str
    n: int
    seed: int
    profile: Profile
    evidence: ProbeEvidence
    signals: dict[str, Any]
    deliveries: dict[str, Delivery]

    @property
    def place(self) -> tuple[str, str, int]:
        """Backbone, task and number of images: cells that differ in their seed alone share it."""
        return self.backbone, self.task, self.n


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Score:
    """How one policy did in each cell."""

    cells: Sequence[PlayedCell]
    accuracy: NDArray[np.float64]
    regret: NDArray[np.float64]
    harmed: NDArray[np.bool_]
    seconds: NDArray[np.float64]
    seconds_raw: NDArray[np.float64]


def play(records: Iterable[Record], *, clock: Clock = "wall", z: float = ACCEPT_Z["balanced"]) -> list[PlayedCell]:
    """Return the cells in which every strategy that is needed was run; networks are accepted at ``z``."""
    found: dict[tuple[object, ...], dict[str, Record]] = {}
    for record in records:
        if "error" not in record:
            key = (record["seed"], record["n"], record["backbone"], record["task"])
            found.setdefault(key, {})[record["strategy"]] = record
    return [played(runs, clock=clock, z=z) for runs in found.values() if all(name in runs for name in NEEDED)]


def played(runs: dict[str, Record], *, clock: Clock, z: float) -> PlayedCell:
    """Return one cell from the records of its strategies."""
    probe = runs["probe"]
    known = Known(
        profile=known_fields(Profile, probe["profile"]),
        evidence=known_fields(ProbeEvidence, probe["evidence"]),
        z=z,
    )
    return PlayedCell(
        task=probe["task"],
        backbone=probe["backbone"],
        n=probe["n"],
        seed=probe["seed"],
        profile=known.profile,
        evidence=known.evidence,
        signals=probe["signals"],
        deliveries=all_deliveries(runs, unpacked(probe["test_labels"]), known, clock=clock),
    )


def known_fields(kind: type[Any], stored: dict[str, Any]) -> Any:
    """Return a record of today's kind from the stored fields that it still has; new ones have their defaults."""
    names = {field.name for field in fields(kind)}
    values = {name: value for name, value in stored.items() if name in names}
    if "learning_curve" in values:
        values["learning_curve"] = tuple((n, accuracy) for n, accuracy in values["learning_curve"])
    return kind(**values)


def all_deliveries(
    runs: dict[str, Record], labels: NDArray[np.uint8], known: Known, *, clock: Clock
) -> dict[str, Delivery]:
    """Return every delivery of a cell by its name."""

    def seconds(strategy: str, parts: Iterable[str]) -> float:
        spent = runs[strategy]["parts"]
        return float(sum(spent[part][clock == "cpu"] for part in parts if part in spent))

    def right(predictions: str | None) -> NDArray[np.bool_]:
        # Training that diverged leaves no network: nothing is right.
        return np.zeros(len(labels), bool) if predictions is None else unpacked(predictions) == labels

    shared = SHARED_PARTS
    found = {
        "probe": Delivery(correct=right(runs["probe"]["predictions"]), seconds=seconds("probe", shared)),
        "all_stages_probe": Delivery(
            correct=right(runs["all_stages_probe"]["predictions"]),
            seconds=seconds("all_stages_probe", (*shared, "all_stages_head")),
        ),
    }
    stages_kept = runs["all_stages_probe"]["accuracy_cv"] >= runs["probe"]["evidence"]["accuracy"]
    found["all_stages"] = replace(
        found["all_stages_probe" if stages_kept else "probe"], seconds=found["all_stages_probe"].seconds
    )
    for name in ("raw_near", "raw_far"):
        correct = right(runs[name]["predictions"])
        found[name] = Delivery(correct=correct, seconds=seconds(name, (*shared, *PLAIN_PARTS)))
    for name in FINETUNINGS:
        if name in runs:
            run, alpha = runs[name], alpha_of(runs[name], known)
            codes = run["path_predictions"][ALPHAS.index(alpha) - 1] if alpha else run["start_predictions"]
            ending = ("refit", "check") if alpha else ()
            found[name] = Delivery(correct=right(codes), seconds=seconds(name, (*shared, *TUNING_PARTS, *ending)))
    won = raw_gain(runs["finetune_far"]) > 0
    trained = seconds("raw_far", TRAINING_PARTS) if won else 0.0
    found["bake_off"] = Delivery(
        correct=found["raw_far" if won else "probe"].correct,
        seconds=seconds("finetune_far", (*shared, *TUNING_PARTS)) + trained,
    )
    found["bake_off_all"] = bake_off_all(runs, found, known)
    if "scratch" in runs:
        found["scratch"] = Delivery(
            correct=right(runs["scratch"]["predictions"]), seconds=seconds("scratch", ("open", "scratch"))
        )
    return found


def compared_anew(run: Record, known: Known) -> Comparison | None:
    """Return what today's comparison of the held-out images makes of a run; None if there is no network to deliver."""
    if run["comparison"] is None or run["path_predictions"] is None:
        return None
    log_loss, margin = (
        np.frombuffer(base64.b64decode(run["held_out"][name]), np.float16).reshape(-1, len(ALPHAS)).astype(float)
        for name in ("log_loss", "margin")
    )
    held_out = HeldOut(
        correct=margin > 0, log_loss=log_loss, margin=margin, weights=np.ones(len(margin), dtype=np.float32)
    )
    starts_from: Layers = "penultimate" if run["starts_from"] == "probe" else "all_stages"
    gain = expected_gain(known.evidence, known.profile, starts_from=starts_from)
    expected = Expected(gain=gain.mean, spread=gain.spread)
    return compare(held_out, z=z_to_accept(gain.mean, z=known.z), expected=expected)


def alpha_of(run: Record, known: Known) -> float:
    """Return the alpha to deliver, 0 for the probe."""
    comparison = compared_anew(run, known)
    return 0.0 if comparison is None else comparison.alpha


def raw_gain(run: Record) -> float:
    """Return how much better the network at alpha = 1 was than the probe, out of fold; -1 if it diverged."""
    if run["comparison"] is None:
        return -1.0
    path = run["comparison"]["path"]
    return float(path[-1]["accuracy"] - path[0]["accuracy"])


def bake_off_all(runs: dict[str, Record], found: dict[str, Delivery], known: Known) -> Delivery:
    """Return the best out of fold of everything, at the cost of running everything."""
    base = runs["probe"]["evidence"]["accuracy"]
    gains = {"probe": 0.0, "all_stages_probe": runs["all_stages_probe"]["accuracy_cv"] - base}
    comparison = compared_anew(runs["finetune_far"], known)
    if comparison is not None and comparison.accepted:
        lead = gains["all_stages_probe"] if runs["finetune_far"]["starts_from"] == "all_stages_probe" else 0.0
        gains["finetune_far"] = lead + comparison.measured
    best = max(gains, key=lambda name: gains[name])
    extra = sum(found[name].seconds - found["probe"].seconds for name in ("all_stages_probe", "finetune_far"))
    return Delivery(correct=found[best].correct, seconds=found["probe"].seconds + extra)


def deliver(cell: PlayedCell, name: str) -> Delivery:
    """Return what a cell holds under a name."""
    return cell.deliveries["raw_far" if name == "scratch" and name not in cell.deliveries else name]


def choose_all(cells: Sequence[PlayedCell], policy: Policy[Constants], constants: Constants) -> list[str]:
    """Return a policy's choice in every cell."""
    return [policy(cell.evidence, cell.profile, constants) for cell in cells]


def leave_one_out(
    cells: Sequence[PlayedCell], fit: Callable[[Sequence[PlayedCell]], Constants], policy: Policy[Constants]
) -> list[str]:
    """Return a policy's choice in every cell, with constants fitted on the cells of all other datasets."""
    fitted = {task: fit([cell for cell in cells if cell.task != task]) for task in {cell.task for cell in cells}}
    return [policy(cell.evidence, cell.profile, fitted[cell.task]) for cell in cells]


def score(cells: Sequence[PlayedCell], choices: Sequence[str]) -> Score:
    """Return how well choices did."""
    best = best_accuracies(cells)
    chosen = [deliver(cell, name) for cell, name in zip(cells, choices, strict=True)]
    accuracy = np.array([delivery.accuracy for delivery in chosen])
    return Score(
        cells=cells,
        accuracy=accuracy,
        regret=np.array([best[cell.place] for cell in cells]) - accuracy,
        harmed=np.array([harms(c.deliveries["probe"], d) for c, d in zip(cells, chosen, strict=True)]),
        seconds=np.array([delivery.seconds for delivery in chosen]),
        seconds_raw=np.array([cell.deliveries["raw_near"].seconds for cell in cells]),
    )


def best_accuracies(cells: Sequence[PlayedCell]) -> dict[tuple[str, str, int], float]:
    """Return the accuracy of the best strategy at each place, averaged over its seeds."""
    best = {}
    for place in {cell.place for cell in cells}:
        here = [cell for cell in cells if cell.place == place]
        names = [name for name in RIVALS if all(name in cell.deliveries for cell in here)]
        best[place] = max(float(np.mean([cell.deliveries[name].accuracy for cell in here])) for name in names)
    return best


def harms(probe: Delivery, delivered: Delivery) -> bool:
    """Say whether a delivery is clearly worse than the penultimate probe."""
    lost = probe.correct.astype(float) - delivered.correct
    error = float(lost.std() / np.sqrt(len(lost)))
    return bool(lost.mean() > HARM_POINTS and lost.mean() > error)


def describe(policy: str, scored: Score, baseline: Score) -> Record:
    """Return one line of the summary: accuracies, regrets and differences in points."""
    by_task = positions_by_task(scored.cells)
    lead = {task: 100 * float((scored.accuracy - baseline.accuracy)[rows].mean()) for task, rows in by_task.items()}
    regret = per_dataset(scored.regret, by_task)
    spent, raw = per_dataset_sum(scored.seconds, by_task), per_dataset_sum(scored.seconds_raw, by_task)
    low, high = resampled(lambda drawn: regret[drawn].mean(axis=1), len(by_task))
    k_low, k_high = resampled(lambda drawn: spent[drawn].sum(axis=1) / raw[drawn].sum(axis=1), len(by_task))
    return {
        "policy": policy,
        "cells": len(scored.cells),
        "datasets": len(by_task),
        "accuracy": rounded(100 * float(per_dataset(scored.accuracy, by_task).mean())),
        "regret": rounded(100 * float(regret.mean())),
        "regret_interval": [rounded(100 * low), rounded(100 * high)],
        "regret_p95": rounded(100 * float(np.percentile(scored.regret, 95))),
        "harm": rounded(100 * float(scored.harmed.mean())),
        "k": rounded(float(spent.sum() / raw.sum())),
        "k_interval": [rounded(k_low), rounded(k_high)],
        "k_median": rounded(float(np.median(scored.seconds / scored.seconds_raw))),
        "over_rule_of_thumb": rounded(float(np.mean(list(lead.values())))),
        "worst_dataset": min(lead, key=lambda task: lead[task]),
        "over_rule_of_thumb_by_dataset": {task: rounded(value) for task, value in sorted(lead.items())},
    }


def positions_by_task(cells: Sequence[PlayedCell]) -> dict[str, NDArray[np.int64]]:
    """Return the positions of each dataset's cells."""
    tasks = np.array([cell.task for cell in cells])
    return {str(task): np.flatnonzero(tasks == task) for task in np.unique(tasks)}


def resampled(values: Callable[[NDArray[np.int64]], NDArray[np.float64]], n_datasets: int) -> tuple[float, float]:
    """Return the interval of what ``values`` gives for datasets drawn with replacement, (n, n_datasets) positions."""
    drawn = np.random.default_rng(0).integers(n_datasets, size=(N_BOOTSTRAP, n_datasets))
    low, high = np.percentile(values(drawn), INTERVAL)
    return float(low), float(high)


def per_dataset(values: NDArray[np.float64], groups: dict[str, NDArray[np.int64]]) -> NDArray[np.float64]:
    """Return the mean of each dataset's cells."""
    return np.array([values[rows].mean() for rows in groups.values()])


def per_dataset_sum(values: NDArray[np.float64], groups: dict[str, NDArray[np.int64]]) -> NDArray[np.float64]:
    """Return the sum over each dataset's cells."""
    return np.array([values[rows].sum() for rows in groups.values()])


def rounded(value: float) -> float:
    return round(value, 3)
