"""The number of threads follows what is measured, and leaves torch as it was."""

import pytest
import torch

from bottleneck.extraction import threads as threads_module
from bottleneck.extraction.threads import RECHECK_CALLS, ThreadChoice, using_threads


@pytest.fixture
def clock(monkeypatch):
    """Return a clock that stands still until it is moved."""

    class Clock:
        now = 0.0

    monkeypatch.setattr(threads_module.time, "perf_counter", lambda: Clock.now)
    return Clock


@pytest.fixture(autouse=True)
def _two_threads():
    with using_threads(2):
        yield


def run(choice: ThreadChoice, clock, costs: dict[int, float], calls: int, *, n_images: int = 10) -> list[int]:
    used = []
    for _ in range(calls):
        with choice.timed(n_images):
            used.append(torch.get_num_threads())
            clock.now += costs[used[-1]]
    return used


@pytest.mark.parametrize(("costs", "best"), [({1: 1.0, 2: 7.0}, 1), ({1: 2.0, 2: 1.0}, 2)])
def test_faster_number_is_used_after_both_were_tried(clock, costs, best):
    choice = ThreadChoice()

    used = run(choice, clock, costs, 10)

    assert used == [2, 1, 2, *[best] * 7]
    assert torch.get_num_threads() == 2


def test_number_changes_when_the_load_does(clock):
    choice = ThreadChoice()
    run(choice, clock, {1: 1.0, 2: 7.0}, RECHECK_CALLS)

    used = run(choice, clock, {1: 1.0, 2: 0.5}, 3)

    assert used == [2, 2, 2]


def test_small_batches_say_nothing_about_large_ones(clock):
    choice = ThreadChoice()
    run(choice, clock, {1: 1.0, 2: 7.0}, 5, n_images=1)

    large = run(choice, clock, {1: 7.0, 2: 1.0}, 5, n_images=32)
    small = run(choice, clock, {1: 0.1, 2: 7.0}, 2, n_images=3)

    assert large == [2, 1, 2, 2, 2]
    assert small == [2, 2]


def test_number_is_set_back_after_an_error():
    with pytest.raises(ZeroDivisionError), using_threads(1):
        _ = 1 / 0

    assert torch.get_num_threads() == 2
