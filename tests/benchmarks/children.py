"""Work in forked processes that may be killed, may crash and may hang: what each of them came to."""

import faulthandler
import multiprocessing
import os
import signal
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

FORK = multiprocessing.get_context("fork")
"""Forked, a child has everything imported: a job starts in milliseconds. The parent must not have run a network."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What became of a child.

    Attributes
    ----------
    status : int or None
        Exit status, minus the number of the signal that ended it; None if it hung and had to be killed.
    result : object
        What the work returned; None if it did not come to its end.
    complaint : str
        Its standard error stream.
    """

    status: int | None
    result: Any
    complaint: str

    @property
    def trouble(self) -> str:
        """What is wrong with how it ended, an empty string if nothing is: a traceback, a crash, a hang."""
        if self.status is None:
            return "it hung"
        if "Traceback" in self.complaint or "Fatal Python error" in self.complaint:
            return "\n".join(self.complaint.splitlines()[-12:])
        return "" if self.status == 0 else f"it ended with status {self.status}: {self.complaint[-500:]}"


class Child:
    """A forked process at work, started when it is made."""

    def __init__(self, work: Callable[..., object], *arguments: object) -> None:
        self._complaint = tempfile.TemporaryFile()  # noqa: SIM115 (closed by finish)
        self._receiver, sender = FORK.Pipe(duplex=False)
        self.process = FORK.Process(target=_work, args=(work, arguments, self._complaint.fileno(), sender))
        self.process.start()
        sender.close()
        self._receiver.recv()  # it has started

    def send(self, number: int) -> None:
        """Send a signal, unless it has ended."""
        if self.process.exitcode is None:
            os.kill(self.process.pid, number)

    def wait(self, seconds: float) -> bool:
        """Wait at most this long, and say whether the work has ended."""
        return self._receiver.poll(seconds)

    def finish(self, *, timeout: float = 120.0) -> Outcome:
        """Wait for the end, and kill it if it does not come."""
        result, hung = None, not self._receiver.poll(timeout)
        if hung:
            self.process.kill()
        else:
            try:
                result = self._receiver.recv()
            except (EOFError, OSError):  # it died before, or while, it told
                result = None
        self.process.join()
        self._receiver.close()
        self._complaint.seek(0)
        complaint = self._complaint.read().decode(errors="replace")
        self._complaint.close()
        return Outcome(status=None if hung else self.process.exitcode, result=result, complaint=complaint)


def run_in_child(work: Callable[..., object], *arguments: object, timeout: float = 120.0) -> Outcome:
    """Do the work in a forked process."""
    return Child(work, *arguments).finish(timeout=timeout)


def _work(work: Callable[..., object], arguments: tuple[object, ...], complaint: int, sender: Any) -> None:
    os.dup2(complaint, 2)
    os.dup2(complaint, 1)
    faulthandler.enable(file=2)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sender.send("started")
    try:
        result = work(*arguments)
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    sender.send(result)
