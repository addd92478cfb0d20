"""How long a moment of work on a few images takes, an image."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

TIMED_SECONDS, MOST_SECONDS = 0.2, 1.0
"""A rate is measured on as many images as take about this long, and on one if that takes longer than the second."""
LONG_ENOUGH = 0.75
"""Of the former: a batch that takes this share of it is not doubled."""
MOST_RUNS, SHORTEST_SECONDS = 3, 1e-9
FASTEST_GROWTH = 4
"""By this factor, at most, and at least by two, one batch is larger than that before."""

Work = Callable[[NDArray[np.uint8]], object]


def seconds_of(work: Work, pixels: NDArray[np.uint8]) -> float:
    """Return the seconds that work takes."""
    began = time.perf_counter()
    work(pixels)
    return max(time.perf_counter() - began, SHORTEST_SECONDS)


@dataclass(frozen=True, kw_only=True, slots=True)
class Timed:
    """The seconds that so many images took."""

    n_images: int
    seconds: float


def seconds_per_image(work: Work, pixels: NDArray[np.uint8]) -> float:
    """Return the seconds an image of the largest batch for which there is time."""
    batch = largest_timed(work, pixels)
    return batch.seconds / batch.n_images


def largest_timed(work: Work, pixels: NDArray[np.uint8], *, known: Timed | None = None) -> Timed:
    """Return what the largest batch for which there is time takes, the median of some runs.

    One image alone only where that takes long: what it costs to start is no part of the rate, and other programs
    on the same cores make it many times longer. What a smaller batch took may be ``known``.
    """
    if known is None:
        work(pixels[:1])  # the first call also sets up the device
        known = Timed(n_images=1, seconds=seconds_of(work, pixels[:1]))
    n, seconds = known.n_images, known.seconds
    if seconds > MOST_SECONDS:
        return known
    while (n < len(pixels) and seconds < LONG_ENOUGH * TIMED_SECONDS) or n == 1 < len(pixels):
        n = next_size(n, seconds, most=len(pixels))
        seconds = seconds_of(work, pixels[:n])
    # The first batch of a size is slower than those that follow.
    n_runs = min(max(round(TIMED_SECONDS / seconds), 1), MOST_RUNS)
    return Timed(n_images=n, seconds=statistics.median(seconds_of(work, pixels[:n]) for _ in range(n_runs)))


def next_size(n: int, seconds: float, *, most: int) -> int:
    """Return how many images to take after ``n`` of them took so long."""
    growth = min(max(round(TIMED_SECONDS / seconds), 2), FASTEST_GROWTH)
    return min(growth * n, most)
