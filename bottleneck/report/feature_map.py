"""Where each image is drawn on the map of the features."""

from collections import Counter
from dataclasses import dataclass

from bottleneck.report.gallery import Gallery

WIDTH, HEIGHT, MARGIN = 1000, 620, 14
COLOURS = 10
"""With more labels than this, no colours can be told apart, and all points have one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Point:
    """One image: its position in the gallery, its place in SVG units, its label, and whether it is recognised."""

    image: int
    x: float
    y: float
    label: int
    right: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class LegendEntry:
    """A label on the map, and how many points it has."""

    label: int
    name: str
    n: int


@dataclass(frozen=True, kw_only=True, slots=True)
class MapChart:
    """The map: mistakes are drawn last, so that no other point hides them."""

    points: tuple[Point, ...]
    legend: tuple[LegendEntry, ...]
    coloured: bool


def map_chart(gallery: Gallery) -> MapChart | None:
    """Lay out the map; None with fewer than two images."""
    points = [
        Point(
            image=i,
            x=round(MARGIN + image.place[0] * (WIDTH - 2 * MARGIN), 1),
            y=round(HEIGHT - MARGIN - image.place[1] * (HEIGHT - 2 * MARGIN), 1),
            label=image.true,
            right=image.true == image.predicted,
        )
        for i, image in enumerate(gallery.images)
        if image.place is not None
    ]
    if len(points) < 2:
        return None
    found = Counter(point.label for point in points)
    return MapChart(
        points=tuple(sorted(points, key=lambda point: not point.right)),
        legend=tuple(LegendEntry(label=label, name=gallery.labels[label], n=n) for label, n in sorted(found.items())),
        coloured=len(gallery.labels) <= COLOURS,
    )
