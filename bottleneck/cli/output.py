"""How the commands print: plain text for people, one JSON object as the last line for programs."""

import json
import logging
import sys
from collections.abc import Sequence
from typing import Any, Literal

from bottleneck.planner import Plan
from bottleneck.planner.health import SHOWN_SETS

STYLES = {"error": "bold red", "warning": "yellow"}
"""Colours of the first word. Rich leaves them out where NO_COLOR is set or nobody looks: in a file, through a pipe."""


def emit(wanted: bool, **fields: Any) -> None:
    """Print the fields as one line of JSON if it was asked for."""
    if wanted:
        print(json.dumps(fields, default=str), flush=True)


def complain(label: Literal["error", "warning"], message: str) -> None:
    """Print a message after its label on the standard error stream."""
    from rich.console import Console
    from rich.text import Text

    console = Console(stderr=True, soft_wrap=True, highlight=False, markup=False, emoji=False)
    console.print(Text.assemble((f"{label}:", STYLES[label]), " ", message))


def log_to_stderr() -> None:
    """Print what the library logs: what it measures, tries and gives up."""
    log = logging.StreamHandler(sys.stderr)
    log.setFormatter(logging.Formatter("%(name)s: %(message)s"))
    logger = logging.getLogger("bottleneck")
    logger.handlers = [log]
    logger.setLevel(logging.DEBUG)


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return aligned columns: the first to the left, the others to the right."""
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    lines = [
        "  ".join(cell.ljust(width) if i == 0 else cell.rjust(width) for i, (cell, width) in enumerate(cells)).rstrip()
        for cells in (list(zip(row, widths, strict=True)) for row in [header, *rows])
    ]
    return "\n".join(lines)


def plan_fields(plan: Plan) -> dict[str, Any]:
    """Return what `bottleneck plan --json` prints: the strategy by its name, the rest as in the plan's own JSON."""
    whole = json.loads(plan.to_json())
    return {
        "strategy": plan.strategy_name,
        "needs_probe": plan.needs_probe,
        "reasons": [{"rule": reason.rule, "sentence": reason.sentence} for reason in plan.reasons],
        "alternatives": whole["alternatives"],
        "costs": whole["costs"],
        "rule_of_thumb": whole["rule_of_thumb"],
        "what_would_change": whole["what_would_change"],
        "health": whole["health"],
    }


def health_fields(plan: Plan) -> list[dict[str, Any]]:
    """Return what `bottleneck fit --json` prints of the images: every finding, with their rows and names."""
    found: list[dict[str, Any]] = plan_fields(plan)["health"]
    return found


def say_more_images(plan: Plan) -> None:
    """Say where more images are than the plan's findings name, if there are more."""
    if any(found.n_sets > SHOWN_SETS for found in plan.health):
        print("\nThe images named are the first of each finding; --json lists more.")
