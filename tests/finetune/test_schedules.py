import json

import numpy as np
import pytest

from bottleneck.finetune.schedules import MEASURED_STEPS, Pace, n_open_groups, rate_factor


class SteppedClock:
    """Time that passes by a given number of seconds a step."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def run(pace: Pace, clock: SteppedClock, seconds_a_step: float) -> list[float]:
    positions = []
    for position in pace.positions():
        positions.append(position)
        clock.now += seconds_a_step
    return positions


def make_pace(steps: int, clock: SteppedClock, *, seconds: float | None = None, reserve: float = 0) -> Pace:
    return Pace(steps, deadline=None if seconds is None else clock.now + seconds, reserve=reserve, clock=clock)


def test_rates_rise_in_a_line_and_fall_to_zero():
    factors = [rate_factor(position, warmup_fraction=0.1) for position in np.linspace(0, 1, 1001)]

    assert factors[0] == 0
    assert factors[50] == pytest.approx(0.5)
    assert factors[100] == 1
    assert factors[550] == pytest.approx(0.5)
    assert factors[-1] == pytest.approx(0)
    assert np.all(np.diff(factors[100:]) < 0)


def test_schedule_without_warmup_starts_at_the_top():
    assert rate_factor(0.0, warmup_fraction=0.0) == 1


def test_schedule_has_the_steps_it_was_given_evenly_spread():
    clock = SteppedClock()
    pace = make_pace(200, clock)

    positions = run(pace, clock, 1.0)

    np.testing.assert_allclose(positions, (np.arange(200) + 0.5) / 200)
    assert pace.step == pace.expected_steps == 200


def test_deadline_far_away_changes_nothing():
    clock = SteppedClock()

    assert run(make_pace(50, clock, seconds=1000), clock, 1.0) == run(make_pace(50, clock), clock, 1.0)


def test_schedule_too_long_for_the_deadline_still_ends_at_zero_and_in_time():
    clock = SteppedClock()
    pace = make_pace(1000, clock, seconds=60, reserve=10)

    positions = run(pace, clock, 1.0)

    assert len(positions) == pace.step == 50
    assert positions[-1] > 0.98
    assert clock.now == 150


def test_step_that_compiles_does_not_count_as_the_pace():
    clock = SteppedClock()
    pace = make_pace(100, clock, seconds=130)
    positions = pace.positions()
    next(positions)
    clock.now += 30

    n_steps = 1
    for _ in positions:
        n_steps += 1
        clock.now += 1

    assert n_steps == 100


def test_schedule_adapts_when_the_machine_slows_down():
    clock = SteppedClock()
    pace = make_pace(100, clock, seconds=110)
    deadline = pace.deadline
    positions = []
    for position in pace.positions():
        positions.append(position)
        clock.now += 1 if len(positions) < 50 else 3

    assert clock.now <= deadline + 3
    assert len(positions) < 100
    assert positions[-1] > 0.9
    assert np.all(np.diff(positions) > 0)


def test_nothing_but_the_measured_steps_is_done_after_the_deadline():
    clock = SteppedClock()

    assert len(run(make_pace(100, clock, seconds=-1), clock, 1.0)) == MEASURED_STEPS


def test_steps_of_another_kind_are_measured_anew():
    """Where nothing is forgotten, 50 cheap steps would hide for a while how dear the new ones are."""
    clock = SteppedClock()
    pace = make_pace(200, clock, seconds=300)
    deadline = pace.deadline
    positions = []
    for position in pace.positions():
        positions.append(position)
        if len(positions) == 50:
            pace.forget()
        clock.now += 1 if len(positions) < 50 else 10

    assert clock.now <= deadline + 10
    assert positions[-1] > 0.9


def interrupted(pace: Pace, clock: SteppedClock, *, steps: int) -> list[float]:
    """Take so many steps of a second each."""
    positions = []
    for position in pace.positions():
        positions.append(position)
        clock.now += 1
        if len(positions) == steps:
            return positions
    raise AssertionError("the schedule is shorter")


@pytest.mark.parametrize("steps", [1, 4, 19, 20])
def test_interrupted_schedule_goes_on_as_if_nothing_had_been(steps: int):
    clock = SteppedClock()
    whole = run(make_pace(20, clock), clock, 1.0)
    first, second = make_pace(20, clock), make_pace(20, clock)

    positions = interrupted(first, clock, steps=steps)
    second.restore(json.loads(json.dumps(first.state())))

    assert positions + run(second, clock, 1.0) == whole
    assert second.step == second.expected_steps == 20


def test_interrupted_schedule_ends_at_its_end_by_the_new_deadline():
    clock = SteppedClock()
    first = make_pace(1000, clock, seconds=60)
    positions = interrupted(first, clock, steps=30)
    clock.now += 5000
    second = make_pace(1000, clock, seconds=100)

    second.restore(json.loads(json.dumps(first.state())))
    positions += run(second, clock, 1.0)

    assert clock.now == second.deadline
    assert len(positions) == 130
    assert positions[-1] > 0.98
    assert np.all(np.diff(positions) > 0)


def test_what_is_left_out_is_no_part_of_a_step():
    """A checkpoint of 20 seconds after every tenth step, which the deadline has to pay for once and not as a pace."""
    clock = SteppedClock()
    pace = make_pace(1000, clock, seconds=200)
    left = []
    for _ in pace.positions():
        clock.now += 1
        left.append(pace.expected_steps - pace.step)
        if pace.step == 30:
            clock.now += 20
            pace.leave_out(20)

    assert clock.now == pace.deadline
    assert left[29] - left[30] == 21


@pytest.mark.parametrize(
    "freeze_epochs, unfreeze_every, opened",
    [(0, 0, [3, 3, 3, 3]), (2, 0, [0, 0, 3, 3]), (0, 1, [1, 2, 3, 3]), (1, 2, [0, 1, 1, 2])],
)
def test_groups_open_from_the_head_down(freeze_epochs: int, unfreeze_every: int, opened: list[int]):
    schedule = {"n_groups": 3, "freeze_epochs": freeze_epochs, "unfreeze_every": unfreeze_every}

    assert [n_open_groups(epoch, **schedule) for epoch in (1, 2, 3, 4)] == opened
