"""The way in: every mistake of a user becomes one message and exit status 2, never a traceback.

Errors and warnings of the API are put into the words of the command line here, and nowhere else.
"""

import os
import signal
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import FrameType

from typer.exceptions import Abort, Exit, TyperException

from bottleneck.cli.app import app, typer_commands
from bottleneck.cli.output import complain
from bottleneck.cli.wording import as_typed, options_of
from bottleneck.errors import TransferError, TransferWarning

USER_MISTAKE = 2
INTERNAL_ERROR = 1
INTERRUPTED = 130
TERMINATED = 143
"""What shells report of a program that SIGTERM ended: 128 and the number of the signal."""
KEPT = "Features that were extracted so far stay in the cache."
DEBUG_VARIABLE = "BOTTLENECK_DEBUG"


def main(arguments: list[str] | None = None) -> None:
    """Run one command and leave with its exit status."""
    sys.exit(run(sys.argv[1:] if arguments is None else arguments))


def run(arguments: list[str]) -> int:
    """Run one command and return its exit status: 0, 1 (our fault), 2 (the user's mistake), 130 (Ctrl-C) or 143."""
    try:
        with _ending_cleanly_on_sigterm():
            return _run(as_command(arguments))
    except KeyboardInterrupt:
        return _say(f"Interrupted. {KEPT}", INTERRUPTED)
    except SystemExit as exc:  # wherever it came: also before the command was known, or while it was ending
        if exc.code != TERMINATED:
            raise
        return _say(f"Stopped by SIGTERM. {KEPT}", TERMINATED)


def as_command(arguments: list[str]) -> list[str]:
    """Return the arguments with `cache verify` and `cache compact` as the commands that they are."""
    match arguments:
        case ["cache", ("verify" | "compact") as name, *others] if not Path(name).exists():
            return [name, *others]
    return arguments


@contextmanager
def _ending_cleanly_on_sigterm() -> Iterator[None]:
    """Let SIGTERM, which batch systems send before they kill, end a command like Ctrl-C: work done so far is kept."""
    if threading.current_thread() is not threading.main_thread():  # Python gives signals to the main thread only
        yield
        return

    def leave(number: int, frame: FrameType | None) -> None:
        raise SystemExit(TERMINATED)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _run(arguments: list[str]) -> int:
    name, options = _command_of(arguments)
    warnings.showwarning = partial(_show_warning, options)
    try:
        status = app(arguments, prog_name="bottleneck", standalone_mode=False)
        if status == INTERRUPTED:  # what typer makes of Ctrl-C
            raise KeyboardInterrupt
        if sys.stdout is not None:
            sys.stdout.flush()  # or what cannot be written would be said after the end
        return status if isinstance(status, int) else 0
    except Exit as exc:
        return exc.exit_code
    except TyperException as exc:
        if not exc.format_message():  # no command at all: the help has been printed
            return exc.exit_code
        return _say(f"{exc.format_message().rstrip('.')}. See: bottleneck {name}--help", exc.exit_code)
    except TransferError as exc:
        return _say(as_typed(str(exc), options), USER_MISTAKE)
    except Abort as exc:
        raise KeyboardInterrupt from exc
    except SystemExit as exc:
        if exc.code != TERMINATED and isinstance(exc.__context__, BrokenPipeError):  # typer's way to end then
            return _close_output()
        raise
    except BrokenPipeError:
        return _close_output()
    except OSError as exc:
        said = f"{exc.strerror or exc} ({exc.filename})" if exc.filename else str(exc.strerror or exc)
        return _say(f"The system refused: {said}. Make room, change permissions or name another file.", USER_MISTAKE)
    except Exception as exc:
        if os.environ.get(DEBUG_VARIABLE):
            raise
        what = f"{type(exc).__name__}: {exc}".splitlines()[0]
        return _say(
            f"Internal error, not a mistake of yours: {what}. Set {DEBUG_VARIABLE}=1 to see where, and report it.",
            INTERNAL_ERROR,
        )


def _command_of(arguments: list[str]) -> tuple[str, dict[str, str]]:
    """Return the command that the arguments call, as it is typed, and its options by the parameters they stand for."""
    commands = typer_commands()
    name = next((word for word in arguments if word in commands), None)
    return ("", {}) if name is None else (f"{name} ", options_of(commands[name]))


def _close_output() -> int:
    """Close an output that nobody reads any more (`| head`), or Python complains about it at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _say(message: str, status: int) -> int:
    complain("error", message)
    return status


def _show_warning(options: dict[str, str], message: Warning | str, category: type[Warning], *where: object) -> None:
    """Print our own warnings as a sentence, and keep the libraries' to those who debug.

    Of the processes that torch's launcher starts, the first speaks for all.
    """
    if os.environ.get("RANK", "0") != "0":
        return
    if issubclass(category, TransferWarning) or os.environ.get(DEBUG_VARIABLE):
        complain("warning", as_typed(str(message), options))
