"""Which arrangement of threads gets most images through here and now: many narrow lanes, or one wide one.

Every arrangement computes the same features. Which is fastest depends on the network, the images and on what else
the machine is doing, so it is decided by the rates of real batches: those of a window in each arrangement, and now
and then again. Nothing is computed for the sake of measuring.
"""

from dataclasses import dataclass

WIDE_LANE_THREADS = 4
"""Threads of a lane in the arrangement between the extremes, which only machines with two such lanes or more have."""
RECHECK_WINDOWS = 20
"""Windows in the fastest arrangement before the others get another chance: at twice the time, one costs 5 %."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Arrangement:
    """``lanes`` threads that load and compute whole batches, each computing with ``threads`` threads.

    With one lane the caller computes, and ``workers`` threads load batches ahead; 0 load in the caller too.
    """

    lanes: int
    threads: int
    workers: int = 0


def arrangements(*, workers: int | None, cores: int, threads: int, most_lanes: int) -> tuple[Arrangement, ...]:
    """Return the arrangements to choose from, the one that is likely to be fastest first.

    Parameters
    ----------
    workers : int or None
        Threads that the user asks for, if any.
    cores, threads : int
        Cores that this program may use, and threads that torch computes with.
    most_lanes : int
        Lanes that can have the network at once: 1 unless it runs on the processor too.
    """
    loaders = cores if workers is None else workers
    ahead = Arrangement(lanes=1, threads=threads, workers=loaders)
    lanes = min(most_lanes, min(cores, threads) if workers is None else workers)
    if lanes < 2:
        return (ahead,)
    narrow = Arrangement(lanes=lanes, threads=max(1, threads // lanes))
    if workers is None and lanes >= 2 * WIDE_LANE_THREADS:
        return (narrow, Arrangement(lanes=lanes // WIDE_LANE_THREADS, threads=WIDE_LANE_THREADS), ahead)
    return (narrow, ahead)


class ArrangementChoice:
    """The fastest of some arrangements, by the seconds an image that each took when it was last tried."""

    def __init__(self, candidates: tuple[Arrangement, ...]) -> None:
        self.candidates = candidates
        self.seconds: dict[Arrangement, float] = {}
        self._to_try = list(candidates[1:])

    @property
    def best(self) -> Arrangement:
        """The fastest of those tried, and before that the likeliest."""
        return min(self.seconds, key=lambda tried: self.seconds[tried], default=self.candidates[0])

    def next(self, windows_left: float) -> tuple[Arrangement, int | None]:
        """Return the arrangement to use next and for how many windows; None is all that are left.

        Others than the best are tried only while enough is left for the answer to be of use, for one window each.
        """
        others = [candidate for candidate in self.candidates if candidate != self.best]
        if not others or windows_left < RECHECK_WINDOWS * len(others):
            return self.best, None
        if not self.seconds:
            return self.best, 1
        if self._to_try:
            return self._to_try.pop(0), 1
        self._to_try = others
        return self.best, RECHECK_WINDOWS

    def note(self, arrangement: Arrangement, seconds_per_image: float) -> None:
        """Record what a window took."""
        self.seconds[arrangement] = seconds_per_image


def split_rows(n_rows: int, *, batch_size: int, lanes: int) -> list[int]:
    """Return the sizes of the batches: full ones while every lane gets one, then what is left in equal shares.

    Seven images in two lanes are four and three, so that no lane idles while another has all of the rest.
    """
    full = n_rows // (batch_size * lanes) * lanes
    rest = n_rows - full * batch_size
    shares = [(rest + lane) // lanes for lane in range(lanes)]
    return [batch_size] * full + sorted((share for share in shares if share), reverse=True)
