"""Which arrangement of threads is chosen, from rates alone."""

import pytest

from bottleneck.extraction.arrangement import (
    RECHECK_WINDOWS,
    Arrangement,
    ArrangementChoice,
    arrangements,
    split_rows,
)

NARROW, WIDE = Arrangement(lanes=2, threads=1), Arrangement(lanes=1, threads=2, workers=2)


def offered(**facts) -> list[tuple[int, int, int]]:
    given = {"workers": None, "cores": 2, "threads": 2, "most_lanes": 100, **facts}
    return [(each.lanes, each.threads, each.workers) for each in arrangements(**given)]


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        ({}, [(2, 1, 0), (1, 2, 2)]),
        ({"cores": 16, "threads": 16}, [(16, 1, 0), (4, 4, 0), (1, 16, 16)]),
        ({"threads": 1}, [(1, 1, 2)]),
        ({"cores": 1}, [(1, 2, 1)]),
        ({"most_lanes": 1}, [(1, 2, 2)]),
        ({"cores": 64, "threads": 64, "most_lanes": 3}, [(3, 21, 0), (1, 64, 64)]),
        ({"workers": 0}, [(1, 2, 0)]),
        ({"workers": 1}, [(1, 2, 1)]),
        ({"workers": 5}, [(5, 1, 0), (1, 2, 5)]),
    ],
    ids=str,
)
def test_lanes_come_first_where_there_are_cores_threads_and_memory_for_them(facts, expected):
    assert offered(**facts) == expected


def windows_of(choice: ArrangementChoice, seconds: dict[Arrangement, float], n_windows: int) -> list[Arrangement]:
    used: list[Arrangement] = []
    while len(used) < n_windows:
        arrangement, windows = choice.next(n_windows - len(used))
        used += [arrangement] * (n_windows - len(used) if windows is None else windows)
        choice.note(arrangement, seconds[arrangement])
    return used


def test_short_job_tries_nothing():
    assert set(windows_of(ArrangementChoice((NARROW, WIDE)), {NARROW: 9.0, WIDE: 1.0}, RECHECK_WINDOWS - 1)) == {NARROW}


@pytest.mark.parametrize(("seconds", "best"), [({NARROW: 1.0, WIDE: 2.0}, NARROW), ({NARROW: 2.0, WIDE: 1.0}, WIDE)])
def test_long_job_tries_each_and_keeps_the_faster(seconds, best):
    used = windows_of(ArrangementChoice((NARROW, WIDE)), seconds, 500)

    assert used[:2] == [NARROW, WIDE]
    assert used.count(best) / len(used) > 0.94


def test_choice_follows_the_load_of_the_machine():
    choice = ArrangementChoice((NARROW, WIDE))
    windows_of(choice, {NARROW: 1.0, WIDE: 2.0}, 100)

    used = windows_of(choice, {NARROW: 1.0, WIDE: 0.1}, 200)

    assert used[-20:] == [WIDE] * 20


@pytest.mark.parametrize(
    ("n_rows", "sizes"),
    [(7, [4, 3]), (1, [1]), (16, [8, 8]), (33, [8, 8, 8, 8, 1]), (40, [8, 8, 8, 8, 4, 4]), (24, [8, 8, 4, 4])],
)
def test_every_lane_gets_an_equal_share_of_the_rest(n_rows, sizes):
    assert split_rows(n_rows, batch_size=8, lanes=2) == sizes


def test_one_lane_gets_whole_batches():
    assert split_rows(20, batch_size=8, lanes=1) == [8, 8, 4]
