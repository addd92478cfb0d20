"""How the learning rates move, and how a schedule reaches its end on time."""

import math
from collections import deque
from collections.abc import Callable, Iterator

MEASURED_STEPS = 5
"""Steps after which the seconds a step takes are believed."""

RECENT_STEPS = 50
"""Steps over which they are averaged: one that stalls changes little, a machine that slows down is noticed."""


def rate_factor(position: float, *, warmup_fraction: float) -> float:
    """Return the factor on the learning rates at ``position`` (0 to 1): up in a line, then down a cosine to zero."""
    if position < warmup_fraction:
        return position / warmup_fraction
    return 0.5 * (1 + math.cos(math.pi * (position - warmup_fraction) / (1 - warmup_fraction)))


def n_open_groups(epoch: int, *, n_groups: int, freeze_epochs: int, unfreeze_every: int) -> int:
    """Return how many layer groups, from the head down, learn in an epoch (from 1) beside the head."""
    since = epoch - freeze_epochs - 1
    if since < 0:
        return 0
    return n_groups if unfreeze_every == 0 else min(n_groups, 1 + since // unfreeze_every)


class Pace:
    """The positions of one schedule: ``steps`` of them, or as many as the deadline leaves time for.

    With a deadline the seconds a step takes are measured all along, and what is left of the schedule is spread
    over the steps that still fit, so that it always ends at its end. A deadline far away changes nothing.

    Parameters
    ----------
    steps : int
        Steps without a deadline.
    deadline : float or None
        Value of ``clock`` at which all must be over.
    reserve : float
        Time to leave for what comes after the last step, counted in steps.
    clock : callable returning seconds
    """

    def __init__(self, steps: int, *, deadline: float | None, reserve: float, clock: Callable[[], float]) -> None:
        self.steps = steps
        self.deadline = deadline
        self.reserve = reserve
        self.clock = clock
        self.step = 0
        self.expected_steps = steps
        self._step_ends: deque[float] = deque(maxlen=RECENT_STEPS + 1)

    def positions(self) -> Iterator[float]:
        """Yield the middle of each step's share of the schedule, from 0 to 1."""
        position, left = 0.0, self.steps
        while left > 0:
            width = (1 - position) / left
            self.step += 1
            yield position + width / 2
            position += width
            left = 0 if left == 1 else min(self.steps - self.step, self._affordable_steps())
            self.expected_steps = self.step + max(left, 0)

    def forget(self) -> None:
        """Believe no longer how long a step took: from now on they are of another kind."""
        self._step_ends.clear()

    def _affordable_steps(self) -> int:
        if self.deadline is None:
            return self.steps
        # The first step also allocates and compiles; timing begins where it ends.
        self._step_ends.append(self.clock())
        began, now = self._step_ends[0], self._step_ends[-1]
        if self.step < MEASURED_STEPS or now == began:
            return self.steps
        seconds_a_step = (now - began) / (len(self._step_ends) - 1)
        return math.floor((self.deadline - now) / seconds_a_step - self.reserve)
