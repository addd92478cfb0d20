"""Charts of lines: the training, and what more labelled images would bring."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from bottleneck.finetune import EpochRecord
from bottleneck.planner import ProbeEvidence, percent
from bottleneck.planner.gain import accuracy_with
from bottleneck.planner.wording import points
from bottleneck.report.charts import CURVE_BOTTOM, LEFT, RIGHT, TOP, Axis, Tick, round_ticks

DOTTED_EPOCHS = 12
"""Up to this many epochs each gets a dot."""

RATE_DECADES = 5.0
"""A learning rate this many decades below the highest one is as good as none, and leaves the chart."""


SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")

LEAST_STEP = 1.1
"""How much farther than the last point a prediction must reach to be worth a point of its own."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Dot:
    """A point of a curve that is marked, and what is written beside it."""

    x: float
    y: float
    text: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Curve:
    """One line of a chart: its name, its path, the dots on it, and whether it is a prediction."""

    label: str
    path: str
    dots: tuple[Dot, ...]
    predicted: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class CurveChart:
    """Curves over a common axis. ``fading``: they are steps of one scale rather than different things."""

    title: str
    x_name: str
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    curves: tuple[Curve, ...]
    fading: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class MoreLabels:
    """What the learning curve of the probe says: the chart, and a sentence for the present and one for the future."""

    chart: CurveChart
    present: str
    future: str


def history_charts(history: Sequence[EpochRecord], groups: Sequence[str] = ()) -> tuple[CurveChart, ...]:
    """Lay out loss and accuracy by epoch, one curve for each training, and its learning rates; nothing without one.

    Parameters
    ----------
    history : sequence of EpochRecord
    groups : sequence of str
        Names of the layer groups, from the input to the head.
    """
    if not history:
        return ()
    return (
        _by_stage("Loss", history, lambda record: record.loss),
        _by_stage("Accuracy (%)", history, lambda record: 100 * record.accuracy),
        *_rates_chart(history, groups),
    )


def more_labels(evidence: ProbeEvidence | None, *, n_labelled: int) -> MoreLabels | None:
    """Lay out the learning curve of the probe, extended to twice the labelled images; None with too few points.

    Of many images only a sample is measured, so that the curve may end before ``n_labelled``.
    """
    curve = () if evidence is None else tuple(sorted(evidence.learning_curve))
    if len(curve) < 2:
        return None
    n_last, last = curve[-1]
    ahead = [n for n in (n_labelled, 2 * n_labelled) if n > LEAST_STEP * n_last]
    predicted = [(n, found) for n in ahead if (found := accuracy_with(n, curve)) is not None]
    if not predicted:
        future = "Too few points to say what more would bring."
    else:
        n, accuracy = predicted[-1]
        now = predicted[-2][1] if len(predicted) > 1 else last
        future = f"Twice as many, {n:,}, would bring it to about {percent(accuracy)}: {points(accuracy - now)}."
    return MoreLabels(
        chart=_learning_chart(curve, ((n_last, last), *predicted)),
        present=f"With {n_last:,} labelled images the curve stands at {percent(last)}{_sample(ahead)}.",
        future=future,
    )


def _sample(ahead: Sequence[int]) -> str:
    """Say that not all labelled images are in the curve, if so."""
    return f"; that is a sample of the {ahead[0]:,} there are" if len(ahead) > 1 else ""


def _learning_chart(measured: Sequence[tuple[int, float]], predicted: Sequence[tuple[int, float]]) -> CurveChart:
    """Lay out accuracy by the logarithm of the number of images; what is predicted starts where measuring ends."""
    shown = [*measured, *predicted[1:]]
    y_values = round_ticks(*(100 * bound for bound in _bounds([accuracy for _, accuracy in shown])), most=4)
    x = Axis(low=math.log(shown[0][0]), high=math.log(shown[-1][0]), start=LEFT + 24, end=RIGHT - 24)
    y = Axis(low=y_values[0], high=y_values[-1], start=CURVE_BOTTOM, end=TOP)

    def lay_out(label: str, curve: Sequence[tuple[int, float]], *, is_predicted: bool) -> Curve:
        dots = tuple(
            Dot(x=x.at(math.log(n)), y=y.at(100 * accuracy), text=f"{100 * accuracy:.1f}") for n, accuracy in curve
        )
        path = _path([(dot.x, dot.y) for dot in dots])
        return Curve(label=label, path=path, dots=dots[1:] if is_predicted else dots, predicted=is_predicted)

    return CurveChart(
        title="Accuracy (%)",
        x_name="labelled images",
        x_ticks=tuple(Tick(at=x.at(math.log(n)), text=f"{n:,}") for n, _ in shown),
        y_ticks=tuple(Tick(at=y.at(value), text=f"{value:g}") for value in y_values),
        curves=(
            lay_out("measured", measured, is_predicted=False),
            *([lay_out("predicted", predicted, is_predicted=True)] if predicted[1:] else []),
        ),
    )


def _bounds(shares: Sequence[float]) -> tuple[float, float]:
    """Return what an axis must enclose: the shares with a point to either side, so that no curve looks like a cliff."""
    return max(0.0, min(shares) - 0.01), min(1.0, max(shares) + 0.01)


def _by_stage(title: str, history: Sequence[EpochRecord], value_of: Callable[[EpochRecord], float]) -> CurveChart:
    """Lay out one value by epoch, a curve for each training."""
    values = [value_of(record) for record in history]
    y_values = round_ticks(min(values), max(values), most=5)
    y = Axis(low=y_values[0], high=y_values[-1], start=CURVE_BOTTOM, end=TOP)
    stages = dict.fromkeys(record.stage for record in history)
    return CurveChart(
        title=title,
        x_name="epoch",
        x_ticks=_epoch_ticks(history),
        y_ticks=tuple(Tick(at=y.at(value), text=f"{value:g}") for value in y_values),
        curves=tuple(
            _epoch_curve(stage, history, [record for record in history if record.stage == stage], value_of, y)
            for stage in stages
        ),
    )


def _rates_chart(history: Sequence[EpochRecord], groups: Sequence[str]) -> tuple[CurveChart, ...]:
    """Lay out the learning rates of the last training by epoch, on a logarithmic axis: the head's and each group's."""
    last = [record for record in history if record.stage == history[-1].stage]
    highest = max(max(record.learning_rates, default=0.0) for record in last)
    if not highest:
        return ()
    lowest = highest * 10**-RATE_DECADES
    rates = [rate for record in last for rate in record.learning_rates if rate > lowest]
    first, final = math.floor(math.log10(min(rates))), math.ceil(math.log10(max(rates)))
    y = Axis(low=first, high=max(final, first + 1), start=CURVE_BOTTOM, end=TOP)
    n_groups = len(last[0].learning_rates)
    names = groups if len(groups) == n_groups else [f"group {number + 1}" for number in range(n_groups)]
    curves = [
        _epoch_curve(names[number], history, shown, partial(_decade_of_rate, number), y)
        for number in reversed(range(n_groups))
        if (shown := [record for record in last if record.learning_rates[number] > lowest])
    ]
    return (
        CurveChart(
            title=f"Learning rates at the end of each epoch ({history[-1].stage})",
            x_name="epoch",
            x_ticks=_epoch_ticks(history),
            y_ticks=tuple(
                Tick(at=y.at(decade), text=_power_of_ten(decade)) for decade in range(first, max(final, first + 1) + 1)
            ),
            curves=tuple(curves),
            fading=True,
        ),
    )


def _power_of_ten(decade: int) -> str:
    """Write 0.001 as it is, and smaller ones as 10 to the power, which is shorter."""
    if decade >= -3:
        return f"{10.0**decade:g}"
    return "10" + str(decade).translate(SUPERSCRIPT)


def _decade_of_rate(group: int, record: EpochRecord) -> float:
    return math.log10(record.learning_rates[group])


def _epoch_axis(history: Sequence[EpochRecord]) -> Axis:
    return Axis(low=1, high=max(2, *(record.epoch for record in history)), start=LEFT + 6, end=RIGHT - 6)


def _epoch_ticks(history: Sequence[EpochRecord]) -> tuple[Tick, ...]:
    x, n_epochs = _epoch_axis(history), max(record.epoch for record in history)
    whole = [value for value in round_ticks(1, n_epochs, most=7) if value == int(value) and 1 <= value <= n_epochs]
    return tuple(Tick(at=x.at(value), text=f"{value:g}") for value in whole or [1])


def _epoch_curve(
    label: str,
    history: Sequence[EpochRecord],
    shown: Sequence[EpochRecord],
    value_of: Callable[[EpochRecord], float],
    y: Axis,
) -> Curve:
    x = _epoch_axis(history)
    places = [(x.at(record.epoch), y.at(value_of(record))) for record in shown]
    dots = tuple(Dot(x=left, y=top) for left, top in places) if len(places) <= DOTTED_EPOCHS else ()
    return Curve(label=label, path=_path(places), dots=dots)


def _path(places: Sequence[tuple[float, float]]) -> str:
    return "M" + " L".join(f"{left:g} {top:g}" for left, top in places)
