"""How many workers a call may use, and what they return: joblib is the interface, any of its backends the engine."""

import signal
import threading
import warnings
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import BrokenExecutor
from contextlib import contextmanager
from typing import Any

from joblib import Parallel, effective_n_jobs
from joblib.parallel import get_active_backend

from bottleneck.errors import WorkerError, wrong_parameter


def parse_n_jobs(n_jobs: int | None, *, owner: str) -> int | None:
    """Refuse what is no number of workers."""
    if n_jobs is not None and (isinstance(n_jobs, bool) or not isinstance(n_jobs, int) or n_jobs == 0):
        allowed = "None or a positive number of processes, or -1 for all cores"
        raise wrong_parameter(owner, "n_jobs", allowed, n_jobs)
    return n_jobs


def runs_here(n_jobs: int | None) -> bool:
    """Say whether joblib would compute in this process: asked for one, or nobody has configured more."""
    backend, _ = get_active_backend()
    is_local = backend.default_n_jobs == 1  # -1 on a cluster, which may have a single worker
    return n_jobs == 1 or (n_jobs is None and is_local and effective_n_jobs(None) == 1)


def results_of(tasks: Iterable[Any], *, n_jobs: int | None, in_order: bool) -> Generator[Any]:
    """Yield what joblib's ``delayed`` tasks return, in their order or as they are done; closing ends all others.

    By processes unless ``joblib.parallel_config`` says otherwise: unlike threads they can be ended at any moment.
    """
    backend, _ = get_active_backend()
    if not backend.supports_return_generator:  # as Ray's: all results come at the end
        yield from Parallel(n_jobs=n_jobs, batch_size=1)(tasks)
        return
    parallel = Parallel(n_jobs=n_jobs, return_as="generator" if in_order else "generator_unordered", batch_size=1)
    with _uninterrupted():
        results = parallel(tasks)  # starts the processes
    try:
        for result in results:  # noqa: UP028 ("yield from" would close it outside of what follows)
            yield result
    finally:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*tasks", UserWarning)  # whoever closes this knows that some are left
            results.close()


def results_in_order(tasks: Iterable[Any], *, n_jobs: int | None) -> Generator[Any]:
    """Yield what tasks return, in their order; see ``results_of``.

    Raises
    ------
    WorkerError
        A process died.
    """
    try:
        yield from results_of(tasks, n_jobs=n_jobs, in_order=True)
    except BrokenExecutor as exc:
        raise WorkerError(
            "A worker process died, for lack of memory perhaps. Nothing that was finished is lost: run again, with "
            "fewer workers if it happens again."
        ) from exc


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Ignore Ctrl-C for the moment in which processes are started, and so in these processes for good.

    It reaches every process of a terminal. One of them is enough to answer, and it ends the others.
    """
    before = signal.getsignal(signal.SIGINT)
    # No other thread may say what becomes of signals; None is what other software than Python has installed.
    if before is None or threading.current_thread() is not threading.main_thread():
        yield
        return
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
