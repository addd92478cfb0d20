"""Python processes that find the same package and helpers as the tests."""

import os
import subprocess
import sys
import time
from pathlib import Path

import bottleneck

HERE = Path(__file__).parent
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(bottleneck.__file__).parents[1]), str(HERE)])}


def start_python(*arguments: object, in_own_group: bool = False) -> subprocess.Popen[str]:
    """Start Python with the given arguments; its standard output is a pipe, in a group of its own its errors too."""
    command = [sys.executable, "-W", "error", *map(str, arguments)]
    errors = subprocess.PIPE if in_own_group else None
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=errors, text=True, env=ENVIRONMENT, start_new_session=in_own_group
    )


def finish(*processes: subprocess.Popen[str]) -> list[str]:
    """Wait for processes to succeed and return what they printed."""
    outputs = [process.communicate(timeout=120)[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * len(processes)
    return outputs


def kill_after(process: subprocess.Popen[str], seconds: float) -> list[str]:
    """Kill a process with SIGKILL some time after its first line, and return the lines it finished."""
    first = process.stdout.readline()
    assert first, "the process ended before it did anything"
    time.sleep(seconds)
    process.kill()
    return (first + process.communicate()[0]).splitlines()
