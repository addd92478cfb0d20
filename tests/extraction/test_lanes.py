"""Lanes keep the order, raise in turn, and leave nothing behind."""

import threading
import time

import pytest
import torch

from bottleneck.extraction.lanes import LOOK_AHEAD, map_in_lanes
from bottleneck.extraction.threads import using_threads


def same(value):
    return value


def lane_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("bottleneck-lane")]


def test_results_come_in_the_order_of_the_items_whatever_each_takes():
    def slow_where_even(number: int) -> int:
        time.sleep(0.01 * (number % 2 == 0))
        return 10 * number

    results = list(map_in_lanes(range(20), same, slow_where_even, lanes=3, threads=1))

    assert results == [10 * number for number in range(20)]
    assert lane_threads() == []


@pytest.mark.parametrize("step", ["load", "compute"])
def test_error_is_raised_when_its_item_is_due(step):
    def fail_at_five(number: int) -> int:
        if number == 5:
            raise KeyError(number)
        return number

    steps = {"load": same, "compute": same, step: fail_at_five}
    done = []

    with pytest.raises(KeyError, match="5"):
        done.extend(map_in_lanes(range(1000), steps["load"], steps["compute"], lanes=2, threads=1))
    assert lane_threads() == []


def test_items_before_the_error_are_delivered():
    def fail_at_five(number: int) -> int:
        if number == 5:
            raise KeyError(number)
        return number

    results = map_in_lanes(range(1000), same, fail_at_five, lanes=3, threads=1)

    done = [next(results) for _ in range(5)]

    with pytest.raises(KeyError):
        next(results)
    assert done == [0, 1, 2, 3, 4]


def test_closing_early_stops_before_the_next_step_and_joins():
    loaded, computed = [], []

    def load(number: int) -> int:
        time.sleep(0.05)
        loaded.append(number)
        return number

    results = map_in_lanes(range(1000), load, lambda number: computed.append(number) or number, lanes=2, threads=1)
    next(results)
    results.close()

    assert lane_threads() == []
    assert len(loaded) < 20
    n_computed = len(computed)
    time.sleep(0.1)
    assert len(computed) == n_computed


def test_no_more_is_computed_ahead_than_the_consumer_can_wait_for():
    taken = []

    def items():
        for number in range(1000):
            taken.append(number)
            yield number

    results = map_in_lanes(items(), same, same, lanes=2, threads=1)
    next(results)
    time.sleep(0.05)

    assert len(taken) <= 2 * LOOK_AHEAD + 1
    results.close()


def test_each_lane_computes_with_its_own_threads_and_others_keep_theirs():
    barrier = threading.Barrier(2, timeout=10)

    def count(_: int) -> tuple[str, int]:
        barrier.wait()  # so that both lanes take part
        return threading.current_thread().name, torch.get_num_threads()

    def in_new_thread() -> int:
        seen: list[int] = []
        thread = threading.Thread(target=lambda: seen.append(torch.get_num_threads()))
        thread.start()
        thread.join()
        return seen[0]

    with using_threads(2):
        counted = map_in_lanes(range(4), same, count, lanes=2, threads=1)
        first = next(counted)
        while_running = torch.get_num_threads(), in_new_thread()
        rest = list(counted)
        afterwards = torch.get_num_threads(), in_new_thread()

    assert {threads for _, threads in [first, *rest]} == {1}
    assert len({name for name, _ in [first, *rest]}) == 2
    assert while_running == afterwards == (2, 2)
