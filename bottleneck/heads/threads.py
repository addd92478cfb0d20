"""Keeps small matrix products on one core, where waiting for other threads costs more than they save."""

from contextlib import AbstractContextManager, nullcontext
from functools import cache

from threadpoolctl import ThreadpoolController

FLOPS_PER_THREAD = 1e9
"""Work for about 20 ms of one core. Measured on two shared cores, products and eigendecompositions smaller than this
ran 4 to 30 times slower with two threads than with one, because each waits for a core that is busy elsewhere."""


@cache
def _controller() -> ThreadpoolController:
    # Looking for the libraries takes some 10 ms; those that NumPy and SciPy use are loaded by now.
    return ThreadpoolController()


def limited_threads(flops: float) -> AbstractContextManager[object]:
    """Return a context in which linear algebra uses no more threads than products of ``flops`` are worth."""
    pools = _controller().select(user_api="blas")
    worth = max(1, int(flops / FLOPS_PER_THREAD))
    if all(pool["num_threads"] <= worth for pool in pools.info()):
        return nullcontext()
    limits: AbstractContextManager[object] = pools.limit(limits=worth)
    return limits


def one_thread() -> AbstractContextManager[object]:
    """Return a context in which linear algebra of this process stays on one core, entered and left by one thread.

    The limit is one for all threads. Whoever starts threads that compute so has to hold it around them, or the first
    to leave lifts it under the others.
    """
    limits: AbstractContextManager[object] = _controller().select(user_api="blas").limit(limits=1)
    return limits
