"""Work in lanes: threads that each take whole batches from the file to the features.

On the processor a lane computes with few threads of its own (usually one), so that lanes never wait for each other:
not at the barrier at the end of every layer, where a shared core holds all others up, and not at a queue between
decoding and computing. While one lane decodes, another computes.
"""

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import torch

Item = TypeVar("Item")
Loaded = TypeVar("Loaded")
Result = TypeVar("Result")

LOOK_AHEAD = 2
"""Results a lane may be ahead of the consumer: enough to ride out a slow one, and features take little memory."""


class _StoppedError(Exception):
    """The consumer has gone: what this lane was about to compute is not wanted any more."""


def map_in_lanes(
    items: Iterable[Item],
    load: Callable[[Item], Loaded],
    compute: Callable[[Loaded], Result],
    *,
    lanes: int,
    threads: int,
) -> Generator[Result]:
    """Yield ``compute(load(item))`` of each item, in order, computed in ``lanes`` threads.

    Parameters
    ----------
    threads : int
        Threads that torch computes with in each lane. The caller's own number, and that of threads started later,
        stays what it is.

    Notes
    -----
    An exception is raised when its item's turn comes. Closing the generator stops the lanes after the step that
    they are at, and joins them.
    """
    stopped = threading.Event()

    def go(item: Item) -> Result:
        loaded = load(item)
        if stopped.is_set():
            raise _StoppedError
        return compute(loaded)

    pool = ThreadPoolExecutor(lanes, thread_name_prefix="bottleneck-lane")
    waiting: deque[Future[Result]] = deque()
    try:
        _start(pool, lanes=lanes, threads=threads)
        for item in items:
            waiting.append(pool.submit(go, item))
            if len(waiting) > LOOK_AHEAD * lanes:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:  # also when the consumer stops early or is interrupted
        stopped.set()
        pool.shutdown(wait=True, cancel_futures=True)


def _start(pool: ThreadPoolExecutor, *, lanes: int, threads: int) -> None:
    """Start every lane and let it compute with ``threads``.

    The number belongs to the thread that sets it (OpenMP's rule), but when a thread first asks for it, torch gives it
    the last one that was set anywhere. Hence each lane asks before it sets, and the caller sets its own again once
    all lanes have theirs.
    """
    before = torch.get_num_threads()
    started = threading.Barrier(lanes + 1)

    def start() -> None:
        torch.get_num_threads()
        torch.set_num_threads(threads)
        started.wait()

    try:
        for _ in range(lanes):
            pool.submit(start)  # each waits for the others, so no thread takes two of them
        started.wait()
    finally:
        started.abort()
        torch.set_num_threads(before)
