"""How the learning rates move, and how a schedule reaches its end on time."""

import math
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from itertools import accumulate, pairwise
from typing import Any

from bottleneck.errors import BudgetError

MEASURED_STEPS = 3
"""Steps whose ends must be known before the seconds between them are believed."""

RECENT_STEPS = 50
"""Steps over which they are averaged: one that stalls changes little, a machine that slows down is noticed."""

SLOW_QUANTILE = 0.9
"""The last step is allowed to be as slow as this share of the recent ones was not."""

LEAST_STEPS, LEAST_SHARE = 14, 0.5
"""Choice: to fewer steps, or under half of them where there are few, no training is cut; one more is 7 % of these."""

OVERTIME = 0.05
"""Share of its time by which a training may be late, if that ends a schedule that a stalled step has cut off."""

ENDED, COOLING_STEPS = 0.8, 3
"""Where on the schedule, with rates below an eighth of the highest, a training may stop when no further step fits, and
the steps in which it is otherwise brought to its end."""


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


def least_steps(steps: int) -> int:
    """Return how many of the steps of a training must fit."""
    return min(LEAST_STEPS, math.ceil(LEAST_SHARE * steps))


class Pace:
    """The positions of one schedule: ``steps`` of them, or as many as the deadline leaves time for.

    With a deadline the seconds a step takes are measured all along, and what is left of the schedule is spread
    over the steps that still fit, so that it always ends at its end. A deadline far away changes nothing.

    Parameters
    ----------
    steps : int
        Steps without a deadline.
    deadline : float or None
        Value of ``clock`` at which the last step must be over.
    clock : callable returning seconds
    step_seconds : float
        What a step took in an earlier training like this one; 0 is not known.
    decide : callable
        From how many steps fit, as this process measured it, to how many shall be done: of several processes that
        train together all do as one says.
    """

    def __init__(
        self,
        steps: int,
        *,
        deadline: float | None,
        clock: Callable[[], float],
        step_seconds: float = 0.0,
        decide: Callable[[int], int] = int,
    ) -> None:
        self.steps = steps
        self.deadline = deadline
        self.clock = clock
        self.decide = decide
        self.step = 0
        self.expected_steps = steps
        self._position, self._left = 0.0, steps
        self._overtime = 0.0 if deadline is None else OVERTIME * max(0.0, deadline - clock())
        self._step_ends: deque[float] = deque(maxlen=RECENT_STEPS + 1)
        self._recent = [step_seconds]

    @property
    def step_seconds(self) -> float:
        """What a step took lately, on average; 0 while that is not known."""
        return sum(self._recent) / len(self._recent)

    @property
    def seconds_left(self) -> float:
        """Time until the deadline."""
        return math.inf if self.deadline is None else self.deadline - self.clock()

    def positions(self) -> Iterator[float]:
        """Yield the middle of each step's share of the schedule, from 0 to 1.

        Raises
        ------
        BudgetError
            Too few steps fit to be worth taking, or the machine has become too slow to end the schedule.
        """
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
        """Measure anew how long a step takes: from now on they are of another kind."""
        self._step_ends.clear()

    def leave_out(self, seconds: float) -> None:
        """Do not count what just took ``seconds`` beside the steps as a part of one."""
        self._step_ends = deque((end + seconds for end in self._step_ends), maxlen=RECENT_STEPS + 1)

    def _steps_left(self) -> int:
        """Return the steps from here to the end, if those that are left take as long as the recent ones."""
        left = 0 if self._left == 1 and self.step > 0 else min(self.steps - self.step, self._affordable_steps())
        self.expected_steps = self.step + left
        return left

    def _affordable_steps(self) -> int:
        """Return how many more steps fit before the deadline, on all processes the same."""
        now = self._measure()
        if self.deadline is None:
            return self.steps
        seconds = self.deadline - now
        fitting = self.decide(self._fitting(seconds))
        least = least_steps(self.steps) - self.step
        if fitting < least:
            if self.decide(self._fitting_at_best(seconds + self._overtime)) < least:
                raise BudgetError(
                    f"of {self.steps} steps only about {self.step + fitting} fit into the time left, and it takes at "
                    f"least {least_steps(self.steps)}"
                )
            return least
        if fitting >= COOLING_STEPS or self._position >= ENDED:
            return fitting
        late = self.decide(self._fitting(seconds + self._overtime))
        if late < 1:
            raise BudgetError(f"the machine became too slow to end the schedule after step {self.step}")
        return max(fitting, min(late, COOLING_STEPS))

    def _measure(self) -> float:
        """Note that a step is over, if one is, and return the time."""
        now = self.clock()
        if self.step > 0:
            # The first step also allocates and compiles; timing begins where it ends.
            self._step_ends.append(now)
        if len(self._step_ends) >= MEASURED_STEPS:
            self._recent = sorted(later - earlier for earlier, later in pairwise(self._step_ends))
        return now

    def _fitting(self, seconds: float) -> int:
        """Return how many steps fit if they take as long as the recent ones did on average, and the last is slow."""
        slow = self._recent[math.ceil(SLOW_QUANTILE * len(self._recent)) - 1]
        return self._count(seconds - max(0.0, slow - self.step_seconds), each=self.step_seconds)

    def _fitting_at_best(self, seconds: float) -> int:
        """Return how many steps fit if each is as fast as the fastest of the recent ones."""
        return self._count(seconds, each=self._recent[0])

    def _count(self, seconds: float, *, each: float) -> int:
        if each == 0:  # not measured yet
            return self.steps if seconds > 0 else 0
        return max(0, math.floor(seconds / each))
