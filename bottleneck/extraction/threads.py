"""How many threads compute fastest here and now.

More are not always faster: where other programs use the cores too, threads wait for each other at every layer, and
two have been seen to be seven times slower than one. So both are timed on real batches, and now and then again. The
number of threads does not change what is computed for an image.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch

RECHECK_CALLS = 50
"""Calls after which the slower number gets another chance: load on a shared machine comes and goes."""


class ThreadChoice:
    """One thread or all, whichever was faster when it was last tried."""

    def __init__(self) -> None:
        self.candidates = sorted({1, torch.get_num_threads()}, reverse=True)
        self.seconds: dict[int, float] = {}
        self.calls = 0
        self.largest = 0

    @property
    def best(self) -> int:
        """The number of threads that was fastest when it was last tried; all of them before that."""
        return min(self.candidates, key=lambda threads: self.seconds.get(threads, 0.0))

    @contextmanager
    def timed(self, n_images: int) -> Iterator[None]:
        """Compute ``n_images`` images inside with the number of threads that is next to try, or the best."""
        if n_images >= 2 * self.largest:  # rates of smaller batches say little about this one
            self.largest, self.calls, self.seconds = n_images, 0, {}
        is_telling = 2 * n_images >= self.largest
        threads = self._next() if is_telling else self.best
        began = time.perf_counter()
        with using_threads(threads):
            yield
        if is_telling:
            self.seconds[threads] = (time.perf_counter() - began) / n_images
            self.calls += 1

    def _next(self) -> int:
        # The first call also sets the network up, so its time says nothing: it is measured again as the third.
        warm_up = [self.candidates[0], self.candidates[-1], self.candidates[0]]
        if self.calls < len(warm_up):
            return warm_up[self.calls]
        if self.calls % RECHECK_CALLS == 0 and len(self.candidates) > 1:
            return next(threads for threads in self.candidates if threads != self.best)
        return self.best


@contextmanager
def using_threads(threads: int) -> Iterator[None]:
    """Set the number of threads that torch computes with on the processor, and set it back afterwards."""
    before = torch.get_num_threads()
    if threads == before:
        yield
        return
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
