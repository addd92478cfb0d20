"""A plan for people: a table and its reasons, as plain text for terminals and as HTML for notebooks."""

import textwrap
from collections.abc import Callable
from html import escape
from typing import TYPE_CHECKING

from bottleneck.planner.parts import LABELS, PartCost
from bottleneck.planner.records import Alternative, Estimate
from bottleneck.planner.wording import duration, label, percent, size

if TYPE_CHECKING:
    from bottleneck.planner.plan import Plan

WIDTH = 98
LINE = "\n"
HEADER = ("", "strategy", "accuracy", "time", "at most", "memory", "disk", "fits")
COSTS, COSTS_BEFORE = "Predicted and actual", "Predicted"
COST_HEADER = ("part", "predicted", "within", "after the probes", "took")
HEALTH = "The images"
OPEN_SECTIONS = (HEALTH, "Why")
"""The lists that a notebook shows at once; the others open when pressed."""

STYLE = (
    ".bottleneck-plan table{border-collapse:collapse;font-variant-numeric:tabular-nums}"
    ".bottleneck-plan th,.bottleneck-plan td{padding:.25em .8em;text-align:right;background:none;vertical-align:top}"
    ".bottleneck-plan tr>:first-child,.bottleneck-plan tr>:last-child{text-align:left}"
    ".bottleneck-plan td:last-child{max-width:24em;white-space:normal}"
    ".bottleneck-plan tbody th{font-weight:normal}"
    ".bottleneck-plan .chosen>th,.bottleneck-plan .chosen>td{font-weight:bold}"
    ".bottleneck-plan small{opacity:.7;font-weight:normal}"
    ".bottleneck-plan summary{cursor:pointer}"
)


def as_text(plan: "Plan") -> str:
    """Return a plan as aligned plain text, under 100 columns wide."""
    parts = [_wrap(_headline(plan)), _wrap(_facts(plan)), "", *_aligned(_rows(plan))]
    if plan.costs:
        parts += ["", _cost_title(plan.costs), *_aligned(_cost_rows(plan.costs))]
    for title, sentences in _sections(plan):
        parts += ["", title, *(_bullet(sentence) for sentence in sentences)]
    return "\n".join(parts)


def as_html(plan: "Plan") -> str:
    """Return a plan as a small HTML table and lists, all text escaped; colours are those of the notebook."""
    cells = (_html_row(found, chosen=found.strategy == plan.strategy) for found in plan.alternatives)
    header = "".join(f"<th>{escape(cell)}</th>" for cell in (*HEADER[1:3], "", *HEADER[3:]))
    lists = "".join(
        f"<details{' open' if title in OPEN_SECTIONS else ''}><summary>{escape(title)}</summary><ul>"
        + "".join(f"<li>{escape(sentence).replace(LINE, '<br>')}</li>" for sentence in sentences)
        + "</ul></details>"
        for title, sentences in _sections(plan)
    )
    return (
        f'<div class="bottleneck-plan"><style>{STYLE}</style>'
        f"<p><b>{escape(_headline(plan))}</b><br><small>{escape(_facts(plan))}</small></p>"
        f"<table><thead><tr>{header}</tr></thead><tbody>{''.join(cells)}</tbody></table>{_html_costs(plan)}{lists}</div>"
    )


def _html_row(found: Alternative, *, chosen: bool) -> str:
    """Return an alternative as a table row: its accuracy drawn from 0 to 1, and why it does not fit if it does not."""
    _, name, accuracy, *costs, fits = _row(found, chosen=chosen)
    drawn = "" if found.accuracy is None else _html_range(found.accuracy)
    reason = f": {found.why_not}" if found.why_not else ""
    cells = "".join(f"<td>{escape(cell)}</td>" for cell in costs)
    label_cell = f"<th>{escape(name)}{' <small>planned</small>' if chosen else ''}</th>"
    return (
        f"<tr{' class=chosen' if chosen else ''}>{label_cell}<td>{escape(accuracy)}</td>"
        f"<td>{drawn}</td>{cells}<td>{escape(fits + reason)}</td></tr>"
    )


def _html_costs(plan: "Plan") -> str:
    """Return the table of what was predicted and what it took, to be opened; nothing for a plan without one."""
    if not plan.costs:
        return ""
    header, *rows = _cost_rows(plan.costs)
    head = "".join(f"<th>{escape(cell)}</th>" for cell in header)
    body = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    return f"<details><summary>{_cost_title(plan.costs)}</summary>{table}</details>"


def _html_range(accuracy: Estimate) -> str:
    """Draw an accuracy and its bounds as a line from 0 to 1."""
    low, at, high = (round(100 * value, 1) for value in (accuracy.low, accuracy.value, accuracy.high))
    return (
        '<svg width="100" height="12" aria-hidden="true" stroke="currentColor">'
        f'<path d="M0 6H100" opacity="0.2"/><path d="M{low} 6H{high}" stroke-width="5" opacity="0.4"/>'
        f'<path d="M{at} 1V11" stroke-width="2"/></svg>'
    )


def _headline(plan: "Plan") -> str:
    """Return the decision so far."""
    waits = "the probes decide" if plan.needs_probe else "a trial decides" if plan.needs_trial else ""
    so_far = f" (so far: {waits})" if waits else ""
    return f"Plan: {label(plan.strategy)}{so_far}"


def _facts(plan: "Plan") -> str:
    """Return what the plan was made for."""
    profile, budget = plan.request.profile, plan.request.budget
    smallest, largest = profile.smallest_class, profile.largest_class
    classes = f"{profile.n_classes:,} classes of {smallest:,}" + (f" to {largest:,}" if largest > smallest else " each")
    network = f"{profile.n_parameters:,} parameters at {profile.image_side} px on {profile.device}"
    time = "no time limit" if budget.seconds is None else f"{duration(budget.seconds)} allowed"
    return f"{profile.n_samples:,} images in {classes}; {network}; {time}, risk {budget.risk}"


def _sections(plan: "Plan") -> list[tuple[str, list[str]]]:
    """Return titles with their sentences, leaving out the empty ones."""
    thumb = plan.rule_of_thumb
    sections = [
        (HEALTH, [LINE.join((f"{found.sentence} [{found.rule}]", *found.names)) for found in plan.health]),
        ("Why", [f"{reason.sentence} [{reason.rule}]" for reason in plan.reasons]),
        ("What would change it", [reason.sentence for reason in plan.what_would_change]),
        ("The rule of thumb", [f"{thumb.sentence} (strategy={thumb.strategy!r})"]),
    ]
    return [section for section in sections if section[1]]


def _cost_rows(costs: tuple[PartCost, ...]) -> list[tuple[str, ...]]:
    """Return the cells of the table of parts, the header first, without columns that nothing is known for."""
    rows = [COST_HEADER, *(_cost_row(cost) for cost in costs)]
    known = [any(cells[1:]) for cells in zip(*rows, strict=True)]
    return [tuple(cell for cell, wanted in zip(row, known, strict=True) if wanted) for row in rows]


def _cost_title(costs: tuple[PartCost, ...]) -> str:
    return COSTS if any(cost.actual is not None for cost in costs) else COSTS_BEFORE


def _cost_row(cost: PartCost) -> tuple[str, ...]:
    said = size if cost.unit == "bytes" else duration
    return (
        LABELS[cost.part],
        *(_range(cost.predicted, said)),
        "" if cost.updated is None else said(cost.updated.value),
        "" if cost.actual is None else said(cost.actual),
    )


def _range(estimate: Estimate | None, said: Callable[[float], str]) -> tuple[str, str]:
    """Return a predicted value and its bounds."""
    if estimate is None:
        return "", ""
    return said(estimate.value), f"{said(estimate.low)} to {said(estimate.high)}"


def _rows(plan: "Plan") -> list[tuple[str, ...]]:
    """Return the table's cells, the header first."""
    return [HEADER, *(_row(found, chosen=found.strategy == plan.strategy) for found in plan.alternatives)]


def _row(found: Alternative, *, chosen: bool) -> tuple[str, ...]:
    """Return the cells of one alternative."""
    return (
        ">" if chosen else "",
        label(found.strategy),
        _accuracy(found),
        duration(found.seconds.value),
        duration(found.seconds.high),
        size(found.memory_bytes),
        size(found.disk_bytes),
        "yes" if found.feasible else "no",
    )


def _accuracy(found: Alternative) -> str:
    """Return a predicted accuracy with its interval."""
    if found.accuracy is None:
        return "unknown"
    return f"{percent(found.accuracy.value)} ({100 * found.accuracy.low:.0f}-{100 * found.accuracy.high:.0f})"


def _aligned(rows: list[tuple[str, ...]]) -> list[str]:
    """Return rows of cells as lines whose columns start together."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _bullet(sentence: str) -> str:
    """Return a sentence as a bullet; lines below its first are names, which no line end may part."""
    first, *names = sentence.split(LINE)
    return LINE.join((_wrap(first, bullet="  - "), *(f"      {name}" for name in names)))


def _wrap(sentence: str, *, bullet: str = "") -> str:
    """Break a sentence into lines."""
    return textwrap.fill(sentence, WIDTH, initial_indent=bullet, subsequent_indent=" " * len(bullet))
