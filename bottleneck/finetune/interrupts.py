"""Ctrl-C and the system's request to end, kept waiting until a step is over: half a step cannot be resumed."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

ENDINGS = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
"""What is kept waiting, and what Python does by default: with any other handler the signal is the program's affair."""


@contextmanager
def kept_waiting() -> Iterator[Callable[[], signal.Signals | None]]:
    """Yield a function that says which signal is waiting; a second one does what it always does, at once.

    Only the main thread receives signals; in others nothing changes.
    """
    waiting: list[signal.Signals] = []
    replaced: dict[signal.Signals, Any] = {}

    def put_back() -> None:
        for number, usual in replaced.items():
            signal.signal(number, usual)

    def note(number: int, frame: FrameType | None) -> None:
        waiting.append(signal.Signals(number))
        put_back()

    if threading.current_thread() is threading.main_thread():
        replaced = {number: usual for number, usual in ENDINGS.items() if signal.getsignal(number) == usual}
    for number in replaced:
        signal.signal(number, note)
    try:
        yield lambda: waiting[0] if waiting else None
    finally:
        put_back()


def raise_again(waiting: signal.Signals | None) -> None:
    """Let a signal that was kept waiting do what it does."""
    if waiting is not None:
        signal.raise_signal(waiting)
