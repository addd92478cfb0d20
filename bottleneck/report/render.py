"""From a page of records to HTML: the only place that knows Jinja."""

import unicodedata

from bottleneck.optional import require
from bottleneck.planner.wording import duration, label, percent, size
from bottleneck.report import charts
from bottleneck.report.page import Page

UNPRINTABLE = frozenset({"Cc", "Cs"})
"""Unicode categories that HTML cannot hold: control characters, and surrogates (bytes of a name that are no UTF-8)."""


def render(page: Page) -> str:
    """Return the report as one HTML document.

    Raises
    ------
    MissingDependencyError
        Jinja2 is not installed.
    """
    jinja2 = require("jinja2", extra="report")
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("bottleneck.report", ""),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=printable,  # every value on its way into the page, so that no name can be forgotten
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"duration": duration, "percent": percent, "size": size, "score": score, "count": count}
    environment.filters["strategy"] = label
    html: str = environment.get_template("report.html.jinja").render(page=page, frame=charts)
    return html


def printable(value: object) -> object:
    """Write control characters and lone surrogates of a text as the escapes that Python shows for them."""
    if not isinstance(value, str) or hasattr(value, "__html__"):  # markup of a macro, whose values went through here
        return value
    return "".join(_escaped(found) if unicodedata.category(found) in UNPRINTABLE else found for found in value)


def score(share: float) -> str:
    """Say a share in percent, without the sign."""
    return f"{100 * share:.1f}"


def count(number: int) -> str:
    """Say a whole number."""
    return f"{number:,}"


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")
