"""A Dask cluster of real processes over TCP, some of them slow or short of disk, on this host or on several."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from tests.features.hosts import Hosts

PRELOAD = Path(__file__).with_name("worker_preload.py")
START_SECONDS = 120.0
ROOT = Path(__file__).parents[2]


class DaskCluster:
    """``dask scheduler`` on a port of its own and any number of ``dask worker``, until ``close``.

    With ``hosts`` the scheduler is on their hub.
    """

    def __init__(self, folder: Path, *, hosts: Hosts | None = None) -> None:
        self.folder = folder
        self.hosts = hosts
        self.host = "127.0.0.1" if hosts is None else hosts.hub
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.address = f"tcp://{self.host}:{self.port}"
        self.workers: list[subprocess.Popen[bytes]] = []
        self.start_scheduler()

    def start_scheduler(self) -> None:
        arguments = ("scheduler", "--host", self.host, "--port", str(self.port), "--no-show")
        self.scheduler = self._start(*arguments, on=None if self.hosts is None else self.host)
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and self.scheduler.poll() is None:
            if self._answers():
                return
            time.sleep(0.2)
        raise RuntimeError((self.folder / "scheduler.log").read_text())

    def add_worker(
        self, *, seconds_a_batch: float = 0.0, file_bytes: int = 0, on: str | None = None
    ) -> "subprocess.Popen[bytes]":
        """Start a worker, which sleeps in each forward pass, or cannot write files larger than that."""
        arguments = ("worker", self.address, "--nthreads", "1", "--no-nanny", "--preload", str(PRELOAD))
        if on is not None:
            arguments += ("--host", on)
        trouble = {"SECONDS_A_BATCH": str(seconds_a_batch), "FILE_BYTES": str(file_bytes)}
        self.workers.append(self._start(*arguments, on=on, **trouble))
        return self.workers[-1]

    def _answers(self) -> bool:
        if self.hosts is not None:  # not to be reached from here
            return "Scheduler at:" in (self.folder / "scheduler.log").read_text()
        try:
            socket.create_connection((self.host, self.port), timeout=1).close()
        except OSError:
            return False
        return True

    def kill_scheduler(self) -> None:
        """Kill the scheduler, and the workers, which do not outlive it."""
        for process in (self.scheduler, *self.workers):
            _kill(process)
        self.workers.clear()

    def close(self) -> None:
        for process in (*self.workers, self.scheduler):
            _kill(process)

    def _start(self, *arguments: str, on: str | None = None, **environment: str) -> "subprocess.Popen[bytes]":
        inside = [] if on is None or self.hosts is None else self.hosts.inside(on)
        command = [*inside, sys.executable, "-m", "dask", *arguments, "--dashboard-address", ":0"]
        variables = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), **environment}
        with (self.folder / f"{arguments[0]}.log").open("ab") as log:
            return subprocess.Popen(command, stdout=log, stderr=log, env=variables, cwd=self.folder)


def _kill(process: "subprocess.Popen[bytes]") -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGKILL)
    process.wait()
