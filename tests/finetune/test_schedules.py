import json

import numpy as np
import pytest

from bottleneck.errors import BudgetError
from bottleneck.finetune.schedules import Pace, n_open_groups, rate_factor
from tests.finetune.slow import WorkClock


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


def make_pace(steps: int, clock: SteppedClock, *, seconds: float | None = None) -> Pace:
    return Pace(steps, deadline=None if seconds is None else clock.now + seconds, clock=clock)


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
    pace = make_pace(1000, clock, seconds=50)

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


@pytest.mark.parametrize("seconds, taken", [(-1.0, 0), (0.5, 1), (10.0, 3), (13.0, 3)])
def test_schedule_of_which_too_little_fits_is_refused_as_soon_as_that_is_known(seconds: float, taken: int):
    clock = SteppedClock()

    with pytest.raises(BudgetError, match=r"^of 100 steps only about \d+ fit into the time left, .* at least 14$"):
        run(make_pace(100, clock, seconds=seconds), clock, 1.0)

    assert clock.now == 100 + taken


def test_earlier_training_says_what_a_step_takes_before_there_is_one():
    clock = SteppedClock()
    known = {"clock": clock, "step_seconds": 1.0}

    with pytest.raises(BudgetError, match="only about 12 fit"):
        run(Pace(100, deadline=clock.now + 12, **known), clock, 1.0)
    assert clock.now == 100
    np.testing.assert_allclose(run(Pace(100, deadline=clock.now + 40, **known), clock, 1.0), (np.arange(40) + 0.5) / 40)


def test_step_that_stalls_at_the_end_costs_a_little_overtime_rather_than_the_end_of_the_schedule():
    clock = SteppedClock()
    pace = make_pace(100, clock, seconds=60)
    positions = []
    for position in pace.positions():
        positions.append(position)
        clock.now += 16 if len(positions) == 45 else 1

    assert positions[44] < 0.8 < positions[-1]
    assert 160 < clock.now <= 163


def test_schedule_that_cannot_be_ended_any_more_is_an_error():
    clock = SteppedClock()
    pace = make_pace(100, clock, seconds=60)

    interrupted(pace, clock, steps=30)
    clock.now += 40

    with pytest.raises(BudgetError, match="became too slow to end the schedule after step 30"):
        next(pace.positions())


@pytest.mark.parametrize("noise, stalls", [(0.0, 0.0), (0.1, 0.0), (0.3, 0.0), (0.5, 0.0), (0.3, 0.02)])
@pytest.mark.parametrize("slowdown", [1.0, 2.0])
def test_whatever_the_machine_does_a_schedule_ends_at_its_end_and_in_time(noise: float, stalls: float, slowdown: float):
    """Budgets of 40 to 400 steps, of which the schedule would take more or fewer; the first step is slow."""
    draw = np.random.default_rng(1)
    late, last = [], []
    for seed in range(60):
        budget = 40 * 10 ** draw.random()
        clock = WorkClock(
            noise=noise, stalls=stalls, slow_from=budget * draw.uniform(0.3, 1), slowdown=slowdown, seed=seed
        )
        pace = Pace(round(budget * 10 ** draw.uniform(-0.5, 1)), deadline=budget, clock=clock)
        positions = []
        for position in pace.positions():
            positions.append(position)
            clock.take(5.0 if pace.step == 1 else 1.0)
        late.append(clock.now / budget - 1)
        last.append(rate_factor(positions[-1], warmup_fraction=0.1))

    assert max(late) <= (0.05 if stalls == 0 else 0.15)
    assert max(last) < 1 / 8


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
