"""Accuracy against cost, drawn on axes that the caller made."""

from collections.abc import Mapping, Sequence
from typing import Any

IMAGES = 1000
"""Cost is the seconds that so many images take."""


def draw_costs(axes: Any, rows: Sequence[Mapping[str, Any]], labels: Sequence[str], *, majority: float) -> None:
    """Draw one point a backbone with its interval, and a line through those that none beats in both respects."""
    seconds = [IMAGES / row["images_per_second"] for row in rows]
    accuracy = [100 * row["accuracy"] for row in rows]
    below = [100 * (row["accuracy"] - row["accuracy_low"]) for row in rows]
    above = [100 * (row["accuracy_high"] - row["accuracy"]) for row in rows]
    axes.errorbar(seconds, accuracy, yerr=[below, above], fmt="o", capsize=3)
    middle = (min(seconds) * max(seconds)) ** 0.5
    for label, x, y in zip(labels, seconds, accuracy, strict=True):
        towards = -1 if x > middle else 1  # into the axes, whatever the length of the name
        side = "right" if towards < 0 else "left"
        axes.annotate(label, (x, y), xytext=(6 * towards, 6), textcoords="offset points", ha=side)
    front = unbeaten(seconds, accuracy)
    axes.plot([seconds[i] for i in front], [accuracy[i] for i in front], linestyle="--", linewidth=1, alpha=0.6)
    axes.axhline(100 * majority, linestyle=":", linewidth=1, color="grey")
    axes.set_xscale("log", subs=(2, 5))
    axes.xaxis.set_major_formatter(_plain_number)
    axes.xaxis.set_minor_formatter(_plain_number)
    axes.margins(x=0.2, y=0.1)
    axes.set(
        xlabel=f"seconds for {IMAGES:,} images, none cached",
        ylabel="out-of-fold accuracy in %, with 95 % interval",
        title="Accuracy against cost",
    )


def unbeaten(costs: Sequence[float], values: Sequence[float]) -> list[int]:
    """Return the positions, by rising cost, of those that no cheaper one equals in value."""
    order = sorted(range(len(costs)), key=lambda i: (costs[i], -values[i]))
    found: list[int] = []
    for i in order:
        if not found or values[i] > values[found[-1]]:
            found.append(i)
    return found


def _plain_number(value: float, position: int | None = None) -> str:
    """Write a tick of a log axis as people do."""
    return f"{value:,g}"
