"""Where the marks of a chart go: geometry in SVG units, no markup."""

import math
from dataclasses import dataclass

from bottleneck.report.calibration import Calibration

WIDTH, LEFT, RIGHT, TOP = 400, 46, 390, 10
"""Small enough that text stays legible where a narrow window shrinks the chart."""

SQUARE_BOTTOM = TOP + RIGHT - LEFT
COUNTS_TOP, COUNTS_BOTTOM = SQUARE_BOTTOM + 32, SQUARE_BOTTOM + 78
CURVE_BOTTOM = 220


@dataclass(frozen=True, kw_only=True, slots=True)
class Axis:
    """A linear scale from the values ``low`` to ``high`` to the positions ``start`` to ``end``."""

    low: float
    high: float
    start: float
    end: float

    def at(self, value: float) -> float:
        """Return the position of a value."""
        share = (value - self.low) / (self.high - self.low)
        return round(self.start + share * (self.end - self.start), 2)


@dataclass(frozen=True, kw_only=True, slots=True)
class Tick:
    """A position on an axis and what is written there."""

    at: float
    text: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Bar:
    """One confidence bin: its bar, its interval, how many images it has, and all of that in words."""

    x: float
    width: float
    top: float
    low: float
    high: float
    count_top: float
    words: str


@dataclass(frozen=True, kw_only=True, slots=True)
class ReliabilityChart:
    """Accuracy by confidence, and below it the number of images by confidence."""

    ticks: tuple[Tick, ...]
    bars: tuple[Bar, ...]
    largest: int


def reliability_chart(calibration: Calibration) -> ReliabilityChart:
    """Lay out a reliability diagram; both of its axes run from 0 to 1 over the same length."""
    x = Axis(low=0, high=1, start=LEFT, end=RIGHT)
    y = Axis(low=0, high=1, start=SQUARE_BOTTOM, end=TOP)
    largest = max(found.accuracy.n for found in calibration.bins)
    count = Axis(low=0, high=largest, start=COUNTS_BOTTOM, end=COUNTS_TOP)
    bars = tuple(
        Bar(
            x=x.at(found.low) + 1,
            width=round(x.at(found.high) - x.at(found.low) - 2, 2),
            top=y.at(found.accuracy.value),
            low=y.at(found.accuracy.low),
            high=y.at(found.accuracy.high),
            count_top=count.at(found.accuracy.n),
            words=f"{found.accuracy.n:,} images, {100 * found.confidence:.1f} % sure on average, "
            f"{100 * found.accuracy.value:.1f} % right",
        )
        for found in calibration.bins
    )
    ticks = tuple(Tick(at=y.at(share), text=f"{100 * share:.0f}") for share in (0, 0.25, 0.5, 0.75, 1))
    return ReliabilityChart(ticks=ticks, bars=bars, largest=largest)


def round_ticks(low: float, high: float, *, most: int) -> list[float]:
    """Return evenly spaced round numbers that enclose ``low`` to ``high``: at least two, about ``most``."""
    span = high - low or abs(high) or 1.0
    magnitude = 10.0 ** math.floor(math.log10(span / most))
    step = next(factor * magnitude for factor in (1, 2, 5, 10) if factor * magnitude >= span / most * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [float(f"{number * step:.12g}") for number in range(first, max(last, first + 1) + 1)]
