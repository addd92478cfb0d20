"""From Python's words to what is typed: an error of the API names a parameter, and a person typed an option."""

import re
from collections.abc import Mapping
from typing import Any

SAME_AS = (("random_state", "seed"), ("path", "out"), ("path", "file"))
"""Parameters that have another name on the command line."""
SETTINGS = {"FineTuneSettings": "finetune", "LogisticHead": "head", "SVMHead": "head"}
"""Records and estimators whose parameters are reached with --set."""

_WRONG = re.compile(r"The '(?P<param>\w+)' parameter of (?P<owner>[\w ]+?) must be (?P<allowed>.*?)\. Got ", re.DOTALL)
_VALUE = r"""(?P<value>"[^"\n]*"|'[^'\n]*'|[\w./:-]*[\w/])?"""


def options_of(command: Any) -> dict[str, str]:
    """Return what is typed for each parameter of the API: an option of this typer command, or an argument's NAME."""
    typed = {param.name: _as_shown(max(param.opts, key=len)) for param in command.params}
    return typed | {parameter: typed[name] for parameter, name in SAME_AS if name in typed}


def _as_shown(name: str) -> str:
    return name if name.startswith("-") else name.upper()


def as_typed(message: str, options: Mapping[str, str]) -> str:
    """Return a message of the API in the words of a command with these options.

    ``The 'risk' parameter of TransferClassifier must be`` becomes ``--risk must be``, ``on_error="skip"`` becomes
    ``--on-error skip``, and a bare ``time_budget`` becomes ``--time-budget``. Parameters that the command has no option
    for stay as they are.
    """
    message = _WRONG.sub(lambda found: _as_rule(found, options), message)
    for parameter, option in options.items():
        assigned = re.compile(rf"(?<![\w/.'\"-]){parameter}={_VALUE}")
        message = assigned.sub(lambda found, option=option: _with_value(option, found["value"]), message)  # type: ignore[misc]
        if "_" in parameter:  # a word of its own, unlike "head" or "weights"
            message = re.sub(rf"(?<![\w/.'\"-]){parameter}(?![\w/'\"-]|\.\w)", option, message)
    return message


def _as_rule(found: re.Match[str], options: Mapping[str, str]) -> str:
    param, owner = found["param"], found["owner"]
    if owner in SETTINGS and "settings" in options:
        name = f"--set {SETTINGS[owner]}.{param}"
    elif param in options:
        name = options[param]
    else:
        return found[0]
    return f"{name} must be {found['allowed'].removeprefix('None or ')}. Got "


def _with_value(option: str, value: str | None) -> str:
    """Write an option with its value; None of Python is "none" on a command line."""
    if not value:
        return option
    plain = value.strip("'\"")
    return f"{option} {'none' if plain == 'None' else plain}"
