"""What the table of cells says of planners and of signals, in lines and as a picture."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter

from tests.benchmarks.planner_cells import Record
from tests.benchmarks.planner_gain_fit import DELIVERY, describe_model, describe_signals, fit_delivered, learned_policy
from tests.benchmarks.planner_policies import POLICIES, picky_planner
from tests.benchmarks.planner_replay import (
    RIVALS,
    PlayedCell,
    choose_all,
    describe,
    leave_one_out,
    per_dataset,
    per_dataset_sum,
    positions_by_task,
    score,
)

LEARNED = "learned, leave one out"
HINDSIGHT = "best of the other seeds"
"""The limit: whoever knows how all strategies did with other seeds of the same cell has still this much regret, because
the best of them is not the best of every draw."""
BASELINE = "rule of thumb"
FRONTIER = "planner, a quarter of the steps, likelier gains alone"
"""The cheapest of these planners that has no more regret than always fine-tuning: what that much accuracy costs."""
CHANCES = np.arange(0.4, 0.7, 0.01)
LEAST_DATASETS = 3


def policy_lines(cells: Sequence[PlayedCell]) -> list[Record]:
    """Return a line a policy, the least regret first."""
    choices = {name: choose_all(cells, policy, None) for name, policy in POLICIES.items()}
    if len({cell.task for cell in cells}) > LEAST_DATASETS:
        choices[LEARNED] = leave_one_out(cells, fit_delivered, learned_policy)
    if (best := best_of_other_seeds(cells)) is not None:
        choices[HINDSIGHT] = best
    if (cheapest := cheapest_as_good(cells, choices["always fine-tune"])) is not None:
        choices[FRONTIER] = cheapest
    baseline = score(cells, choices[BASELINE])
    lines = [
        {**describe(name, score(cells, chosen), baseline), "chosen": counted(chosen)}
        for name, chosen in choices.items()
    ]
    return sorted(lines, key=lambda line: line["regret"])


def best_of_other_seeds(cells: Sequence[PlayedCell]) -> list[str] | None:
    """Return in every cell the strategy that was best in those that differ in their seed; None if one has no such."""
    choices = []
    for cell in cells:
        others = [other for other in cells if other.place == cell.place and other.seed != cell.seed]
        names = [name for name in RIVALS if all(name in other.deliveries for other in (cell, *others))]
        if not others:
            return None
        choices.append(max(names, key=lambda name: sum(other.deliveries[name].accuracy for other in others)))
    return choices


def cheapest_as_good(cells: Sequence[PlayedCell], rival: Sequence[str]) -> list[str] | None:
    """Return the choices of the hurried planner that is picky enough to cost least at no more regret than a rival's."""
    allowed, groups = mean_regret(cells, rival), positions_by_task(cells)
    found = []
    for needed in CHANCES:
        choices = choose_all(cells, picky_planner(float(needed)), None)
        if mean_regret(cells, choices) <= allowed:
            found.append((float(per_dataset_sum(score(cells, choices).seconds, groups).sum()), choices))
    return min(found)[1] if found else None


def mean_regret(cells: Sequence[PlayedCell], choices: Sequence[str]) -> float:
    """Return the mean over datasets, in which each counts alike."""
    return float(per_dataset(score(cells, choices).regret, positions_by_task(cells)).mean())


def signal_lines(cells: Sequence[PlayedCell]) -> Iterator[Record]:
    """Yield a line for the gain model and one a signal; nothing for too few datasets."""
    if len({cell.task for cell in cells}) > LEAST_DATASETS:
        yield describe_model(cells, delivery=DELIVERY)
        yield from describe_signals(cells, delivery=DELIVERY)


def counted(chosen: Sequence[str]) -> dict[str, int]:
    """Return how often each delivery was chosen."""
    return {name: list(chosen).count(name) for name in sorted(set(chosen))}


def draw_frontier(lines: Sequence[Record], path: Path) -> None:
    """Draw the regret of each policy against its cost, both with their intervals."""
    figure = Figure(figsize=(9, 5.5), layout="constrained")
    axes = figure.subplots()
    for line in lines:
        across = [[line["k"] - line["k_interval"][0]], [line["k_interval"][1] - line["k"]]]
        up = [[line["regret"] - line["regret_interval"][0]], [line["regret_interval"][1] - line["regret"]]]
        ours = line["policy"].startswith("planner")
        colour = "tab:red" if ours else "tab:blue"
        axes.errorbar(line["k"], line["regret"], xerr=across, yerr=up, fmt="o", color=colour, alpha=0.8, capsize=2)
    # Names stand in the margin, in the order of regret, so that none lies upon another.
    top = axes.get_ylim()[1]
    for rank, line in enumerate(sorted(lines, key=lambda line: line["regret"])):
        height = (rank + 0.5) / len(lines)
        axes.annotate(
            f"{line['policy']}  ({line['regret']:.1f} points, K {line['k']:.2f})",
            (line["k"], min(line["regret"], top)),
            xytext=(1.03, height),
            textcoords="axes fraction",
            fontsize=8,
            va="center",
            arrowprops={"arrowstyle": "-", "color": "0.75", "linewidth": 0.6, "relpos": (0, 0.5)},
        )
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("cost: seconds over those of always fine-tuning (K)")
    axes.set_ylabel("mean regret in points of accuracy")
    n_cells, n_datasets = lines[0]["cells"], lines[0]["datasets"]
    axes.set_title(f"{n_cells} cells of {n_datasets} datasets; 95 % intervals over datasets", fontsize=10)
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=150)
