"""From a page of records to HTML: the only place that knows Jinja."""

import re
import unicodedata
from typing import Any

from bottleneck.optional import require
from bottleneck.planner.wording import duration, label, percent, size
from bottleneck.report import charts
from bottleneck.report.feature_map import map_chart
from bottleneck.report.gallery import Gallery
from bottleneck.report.page import Page

UNPRINTABLE = frozenset({"Cc", "Cs"})
"""Unicode categories that HTML cannot hold: control characters, and surrogates (bytes of a name that are no UTF-8)."""

BEFORE_UNIT = re.compile(r"(?<=\d) (?=(?:%|s|min|h|days|years|[kMGTP]?B|points?)(?!\w))")

COMPACT_JSON = {"separators": (",", ":")}
"""For thousands of images, spaces would be a tenth of what is not pictures."""


def render(page: Page) -> str:
    """Return the report as one HTML document.

    Raises
    ------
    MissingDependencyError
        Jinja2 is not installed.
    """
    jinja2 = require("jinja2", extra="report")
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("bottleneck.report", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=printable,  # every value on its way into the page, so that no name can be forgotten
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.policies["json.dumps_kwargs"] = COMPACT_JSON
    environment.filters |= {
        "count": count,
        "duration": duration,
        "percent": lambda share: unbroken(percent(share)),
        "score": score,
        "size": size,
        "strategy": label,
        "unbroken": unbroken,
    }
    html: str = environment.get_template("report.html.jinja").render(
        page=page, frame=charts, map=map_chart(page.gallery), images=gallery_columns(page.gallery)
    )
    return html


def gallery_columns(gallery: Gallery) -> dict[str, Any]:
    """Return what the scripts of the page read: a list for each property of the images, in their order."""
    images = gallery.images
    return {
        "labels": [printable(name) for name in gallery.labels],
        "rows": [image.row for image in images],
        "ids": [printable(image.id) for image in images],
        "names": [printable(image.name) for image in images],
        "true": [image.true for image in images],
        "predicted": [image.predicted for image in images],
        "certainty": [round(image.certainty, 5) for image in images],
        "likeliest": [[[code, round(score, 4)] for code, score in image.likeliest] for image in images],
        "neighbours": [image.neighbours for image in images],
        "suspects": [i for i, image in enumerate(images) if image.suspect],
        "copies": [image.copies for image in images],
        "seen": [i for i, image in enumerate(images) if image.seen],
        "pictures": [image.picture for image in images],
    }


def printable(value: object) -> object:
    """Write control characters and lone surrogates of a text as the escapes that Python shows for them."""
    if not isinstance(value, str) or hasattr(value, "__html__"):  # markup of a macro, whose values went through here
        return value
    return "".join(_escaped(found) if unicodedata.category(found) in UNPRINTABLE else found for found in value)


def score(share: float) -> str:
    """Say a share in percent, without the sign."""
    return f"{100 * share:.1f}"


def unbroken(text: str) -> str:
    """Keep every number of a sentence on one line with its unit."""
    return BEFORE_UNIT.sub("\u00a0", text)


def count(number: int) -> str:
    """Say a whole number."""
    return f"{number:,}"


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")
