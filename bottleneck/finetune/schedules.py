"""How the learning rates move, and how a schedule reaches its end on time."""

import math
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from itertools import accumulate, pairwise
from typing import Any

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
    decide : callable
        From how many steps fit, as this process measured it, to how many shall be done: of several processes that
        train together all do as one says.
    """

    def __init__(
        self,
        steps: int,
        *,
        deadline: float | None,
        reserve: float,
        clock: Callable[[], float],
        decide: Callable[[int], int] = int,
    ) -> None:
        self.steps = steps
        self.deadline = deadline
        self.reserve = reserve
        self.clock = clock
        self.decide = decide
        self.step = 0
        self.expected_steps = steps
        self._position, self._left = 0.0, steps
        self._step_ends: deque[float] = deque(maxlen=RECENT_STEPS + 1)

    def positions(self) -> Iterator[float]:
        """Yield the middle of each step's share of the schedule, from 0 to 1."""
        while (left := self._steps_left()) > 0:
            self._left, width = left, (1 - self._position) / left
            middle = self._position + width / 2
            self._position += width
            self.step += 1
            yield middle

    def state(self) -> dict[str, Any]:
        """Return in plain values where the schedule is after a step, and how long the recent ones took."""
        ends = list(self._step_ends)
        return {
            "step": self.step,
            "expected_steps": self.expected_steps,
            "position": self._position,
            "left": self._left,
            "seconds": [later - earlier for earlier, later in pairwise(ends)],
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on where another pace was: what it decided stays, what is left follows the deadline of this one."""
        self.step, self.expected_steps = state["step"], state["expected_steps"]
        self._position, self._left = state["position"], state["left"]
        self._step_ends.clear()
        if seconds := state["seconds"]:
            # As if those steps and one more had just been done: the time between two runs is no part of a step.
            began = self.clock() - sum(seconds) * (1 + 1 / len(seconds))
            self._step_ends.extend(accumulate(seconds, initial=began))

    def forget(self) -> None:
        """Believe no longer how long a step took: from now on they are of another kind."""
        self._step_ends.clear()

    def leave_out(self, seconds: float) -> None:
        """Do not count what just took ``seconds`` beside the steps as a part of one."""
        self._step_ends = deque((end + seconds for end in self._step_ends), maxlen=RECENT_STEPS + 1)

    def _steps_left(self) -> int:
        """Return the steps from here to the end, if those that are left take as long as the recent ones."""
        if self.step == 0:
            return self.steps
        left = 0 if self._left == 1 else min(self.steps - self.step, self._affordable_steps())
        self.expected_steps = self.step + max(left, 0)
        return left

    def _affordable_steps(self) -> int:
        return self.steps if self.deadline is None else self.decide(self._measured_steps(self.deadline))

    def _measured_steps(self, deadline: float) -> int:
        # The first step also allocates and compiles; timing begins where it ends.
        self._step_ends.append(self.clock())
        began, now = self._step_ends[0], self._step_ends[-1]
        if self.step < MEASURED_STEPS or now == began:
            return self.steps
        seconds_a_step = (now - began) / (len(self._step_ends) - 1)
        return math.floor((deadline - now) / seconds_a_step - self.reserve)
