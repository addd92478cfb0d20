"""Progress through one callback, and the only door to rich's progress bars."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from time import monotonic

SHOW_AFTER = 2.0
"""Seconds after which a running stage gets a bar; shorter ones stay silent."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Progress:
    """How far a stage is: ``done`` of ``total`` (in ``unit``), with a short ``note`` for people."""

    stage: str
    done: int
    total: int
    unit: str = "images"
    note: str = ""


ProgressCallback = Callable[[Progress], None]


def silent(event: Progress) -> None:
    """Show nothing."""


def as_rate(per_second: float) -> str:
    """Return a rate in digits that say something: steps of a large network take seconds each."""
    return f"{per_second:.0f}" if per_second >= 10 else f"{per_second:.1f}"


@contextmanager
def progress_bars(*, enabled: bool = True) -> Iterator[ProgressCallback]:
    """Yield a callback that draws bars with rate and time left on the standard error stream."""
    if not enabled:
        yield silent
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    bars = Bars(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
        console=Console(stderr=True),
    )
    started: dict[str, tuple[float, int]] = {}
    tasks = {}

    def show(event: Progress) -> None:
        if event.stage not in started:
            # What was done before the first event, by a run that was stopped, says nothing about how fast this one is.
            started[event.stage] = monotonic(), event.done
            tasks[event.stage] = bars.add_task(
                event.stage, completed=event.done, total=event.total, rate="", note="", visible=False
            )
        began, done_before = started[event.stage]
        elapsed, done = monotonic() - began, event.done - done_before
        rate = f"{as_rate(done / elapsed)} {event.unit}/s" if done and elapsed > 0 else ""
        if elapsed > SHOW_AFTER:
            bars.start()
        bars.update(
            tasks[event.stage],
            completed=event.done,
            total=event.total,
            rate=rate,
            note=event.note,
            visible=elapsed > SHOW_AFTER,
        )

    try:
        yield show
    finally:
        if bars.live.is_started:
            bars.stop()
