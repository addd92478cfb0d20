"""Results of workers come in order, what becomes of a worker is one clear error, and Ctrl-C is not theirs."""

import os
import signal
import sys
import time

import joblib
import pytest
from joblib import delayed
from joblib.parallel import BACKENDS

from bottleneck.errors import InvalidInputError, WorkerError
from bottleneck.workers import parse_n_jobs, results_in_order, results_of, runs_here


def after(seconds: float, number: int) -> int:
    time.sleep(seconds)
    return number


def kill_yourself() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def interrupt_yourself() -> str:
    os.kill(os.getpid(), signal.SIGINT)
    return "still there"


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_results_come_in_the_order_of_their_tasks(n_jobs: int) -> None:
    tasks = (delayed(after)(seconds, number) for number, seconds in enumerate((0.2, 0.0, 0.1, 0.0)))

    assert list(results_in_order(tasks, n_jobs=n_jobs)) == [0, 1, 2, 3]


def test_results_are_left_without_a_word() -> None:
    results = results_of((delayed(after)(0.01, number) for number in range(20)), n_jobs=2, in_order=False)

    assert next(results) in range(20)
    results.close()


def test_backends_that_return_all_results_at_the_end_are_backends_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(BACKENDS["threading"], "supports_return_generator", False)

    with joblib.parallel_config(backend="threading", n_jobs=2):
        assert list(results_in_order((delayed(after)(0.01, number) for number in range(5)), n_jobs=None)) == [*range(5)]


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
def test_death_of_a_process_is_one_clear_error() -> None:
    with pytest.raises(WorkerError, match="A worker process died"):
        list(results_in_order([delayed(kill_yourself)()] * 2, n_jobs=2))


@pytest.mark.skipif(sys.platform == "win32", reason="signals of its own")
def test_interrupt_is_not_for_workers_to_answer() -> None:
    assert list(results_in_order([delayed(interrupt_yourself)()] * 2, n_jobs=2)) == ["still there"] * 2
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_none_is_this_process_unless_joblib_says_otherwise() -> None:
    assert runs_here(None)
    assert runs_here(1)
    assert not runs_here(2)
    with joblib.parallel_config(n_jobs=2):
        assert not runs_here(None)
        assert runs_here(1)


@pytest.mark.parametrize("n_jobs", [0, True, "2", 1.0])
def test_what_is_no_number_of_workers_is_refused(n_jobs: object) -> None:
    assert parse_n_jobs(-1, owner="fit") == -1
    with pytest.raises(InvalidInputError, match="The 'n_jobs' parameter of fit must be None or a positive number"):
        parse_n_jobs(n_jobs, owner="fit")  # type: ignore[arg-type]
