"""A comparison for people: a table and what it lets one choose, as plain text and as HTML for notebooks."""

from collections.abc import Iterator
from html import escape
from typing import TYPE_CHECKING

from bottleneck.planner.wording import duration, percent, size

if TYPE_CHECKING:
    from bottleneck.comparison.intervals import Interval
    from bottleneck.comparison.records import BackboneComparison, BackboneScore

HEADER = ("backbone", "accuracy", "95 % interval", "behind the best", "images/s", "network", "features", "took")

STYLE = (
    ".bottleneck-comparison table{border-collapse:collapse;font-variant-numeric:tabular-nums}"
    ".bottleneck-comparison th,.bottleneck-comparison td{padding:.25em .8em;text-align:right;background:none}"
    ".bottleneck-comparison tr>:first-child{text-align:left}"
    ".bottleneck-comparison tbody th{font-weight:normal}"
    ".bottleneck-comparison .best>th,.bottleneck-comparison .best>td{font-weight:bold}"
    ".bottleneck-comparison small{opacity:.7;font-weight:normal}"
)


def as_text(comparison: "BackboneComparison") -> str:
    """Return a comparison as aligned plain text."""
    cells = [HEADER, *_rows(comparison)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip() for row in cells]
    return "\n".join([_title(comparison), "", *lines, "", _verdict(comparison)])


def as_html(comparison: "BackboneComparison") -> str:
    """Return a comparison as a small HTML table, all text escaped; colours are those of the notebook."""
    header = "".join(f"<th>{escape(cell)}</th>" for cell in (*HEADER[:3], "", *HEADER[3:]))
    ends = _axis(comparison)
    rows = "".join(
        _html_row(row, score.accuracy, ends=ends, best=score is comparison.best)
        for row, score in zip(_rows(comparison), comparison, strict=True)
    )
    return (
        f'<div class="bottleneck-comparison"><style>{STYLE}</style>'
        f"<p><b>{escape(_verdict(comparison))}</b><br><small>{escape(_title(comparison))}</small></p>"
        f"<table><thead><tr>{header}</tr></thead><tbody>{rows}</tbody></table></div>"
    )


def _html_row(row: tuple[str, ...], accuracy: "Interval", *, ends: tuple[float, float], best: bool) -> str:
    """Return a backbone as a table row, its accuracy drawn on the axis that all share."""
    name, value, interval, *costs = row
    cells = "".join(f"<td>{escape(cell)}</td>" for cell in costs)
    return (
        f"<tr{' class=best' if best else ''}><th>{escape(name)}</th><td>{escape(value)}</td>"
        f"<td>{escape(interval)}</td><td>{_html_range(accuracy, ends)}</td>{cells}</tr>"
    )


def _html_range(accuracy: "Interval", ends: tuple[float, float]) -> str:
    """Draw an accuracy and its interval as a line between two ends."""
    low, at, high = (
        round(100 * (value - ends[0]) / (ends[1] - ends[0]), 1)
        for value in (accuracy.low, accuracy.value, accuracy.high)
    )
    return (
        '<svg width="100" height="12" aria-hidden="true" stroke="currentColor">'
        f'<path d="M0 6H100" opacity="0.2"/><path d="M{low} 6H{high}" stroke-width="5" opacity="0.4"/>'
        f'<path d="M{at} 1V11" stroke-width="2"/></svg>'
    )


def _axis(comparison: "BackboneComparison") -> tuple[float, float]:
    """Return the ends of the axis that accuracies are drawn on: differences are small beside 0 to 1."""
    return min(score.accuracy.low for score in comparison) - 0.01, max(
        score.accuracy.high for score in comparison
    ) + 0.01


def _title(comparison: "BackboneComparison") -> str:
    return (
        f"{comparison.n_images:,} images of {comparison.n_classes} classes, each held out by one of "
        f"{comparison.n_folds} folds; always the most frequent class: {percent(comparison.majority)}"
    )


def _rows(comparison: "BackboneComparison") -> list[tuple[str, ...]]:
    """Return the cells of each backbone."""
    labelled = zip(comparison.labels(), comparison, strict=True)
    return [(label, *_cells(score, best=score is comparison.best)) for label, score in labelled]


def _cells(score: "BackboneScore", *, best: bool) -> Iterator[str]:
    yield percent(score.accuracy.value)
    yield f"{100 * score.accuracy.low:.1f} to {percent(score.accuracy.high)}"
    behind = score.behind  # how far, so that a negative end is in front of the best
    yield "best" if best else f"{100 * behind.value:.1f} points ({100 * behind.low:.1f} to {100 * behind.high:.1f})"
    yield f"{score.images_per_second:,.0f}" if score.images_per_second >= 9.95 else f"{score.images_per_second:.1f}"
    yield size(score.weight_bytes)
    yield size(score.feature_bytes)
    yield duration(score.seconds)


def _verdict(comparison: "BackboneComparison") -> str:
    """Say what may be taken, given that differences within the interval may be luck."""
    labels = comparison.labels()
    open_ones = [label for label, score in zip(labels, comparison, strict=True) if score.may_be_best]
    if len(open_ones) == 1:
        others = " Those behind it are clearly worse." if len(comparison) > 1 else ""
        return f"{labels[0]} is the best of them.{others}"
    return (
        f"These images cannot tell {', '.join(open_ones[:-1])} and {open_ones[-1]} apart. "
        f"The fastest of them is {labels[comparison.scores.index(comparison.quickest)]}."
    )
