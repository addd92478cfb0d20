"""A file that equals a command line: read by --config, and written beside what the command made.

Every option is a key under its own name: ``--time-budget 60`` is ``time-budget = 60``, an argument under the name
that ``--help`` gives it in capitals (``data``), and ``--set finetune.lr=0.01`` is ``finetune.lr = 0.01`` in the table
``[set]``. What is typed comes before what the file says. Relative paths are those of the folder where the command runs.
"""

import os
import tomllib
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperCommand
from typer.exceptions import TyperException

from bottleneck.cli.wording import as_typed, options_of
from bottleneck.errors import InvalidInputError, did_you_mean, listed

FIRST_LINE = "# Written by bottleneck"
NO_KEYS = frozenset({"config", "write-config", "help"})
LEFT_OUT = NO_KEYS | {"quiet", "verbose", "json", "overwrite"}
"""What is not written: these change nothing of what a command makes, or are a word for one time."""
SETTINGS = "set"
FILE = "config"
TARGET = "config_out"


class Repeatable(TyperCommand):
    """A command that has --config and --write-config: when it is done, it writes the file that repeats it."""

    def parse_args(self, ctx: Any, args: list[str]) -> Any:
        """Parse what was typed and what the file says; a value that is of the file is blamed on it."""
        try:
            return super().parse_args(ctx, args)
        except TyperException as exc:
            param = getattr(exc, "param", None)
            if param is None or not _is_of_file(ctx, param):
                raise
            said = exc.format_message().rstrip(".")
            raise InvalidInputError(f"The config file {ctx.meta[FILE]} cannot be used: {said}.") from exc

    def invoke(self, ctx: Any) -> Any:
        """Run the command, and then write its file; that it may be written is checked before."""
        if ctx.params[TARGET] is not None:
            check_config_target(ctx.params[TARGET])
        try:
            result = super().invoke(ctx)
        except InvalidInputError as exc:
            said = as_typed(str(exc), options_of(self))
            wrong = next(
                (param for param in self.params if said.startswith(f"{max(param.opts, key=len)} must be")), None
            )
            if wrong is None or not _is_of_file(ctx, wrong):
                raise
            raise InvalidInputError(f"The config file {ctx.meta[FILE]} cannot be used: {said}") from exc
        if ctx.params[TARGET] is not None:
            write_config(ctx.params[TARGET], ctx)
        return result


def read_config(ctx: typer.Context, path: Path | None) -> Path | None:
    """Let what a file says stand in for what is not typed; typer calls this before it looks at the other options.

    Raises
    ------
    InvalidInputError
        The file cannot be read, is no TOML, or has a key that is no option.
    """
    if path is None:
        return None
    given = _parse_file(path)
    group = ctx.parent.command if ctx.parent is not None else ctx.command
    commands = getattr(group, "commands", {"": ctx.command}).values()
    known = {key_of(param) for command in commands for param in command.params} - NO_KEYS
    _check_keys(path, given, known, own={key_of(param) for param in ctx.command.params} & known)
    ctx.meta[FILE] = path
    ctx.meta[SETTINGS] = list(_assignments(path, given.pop(SETTINGS, {})))
    # What another command takes is for that one.
    ctx.default_map = {param.name: given[key] for param in ctx.command.params if (key := key_of(param)) in given}
    return path


def key_of(param: Any) -> str:
    """Return the name of a parameter of a command in a file: that of the option, or of the argument."""
    longest: str = max(param.opts, key=len)
    return longest.removeprefix("--") if longest.startswith("-") else str(param.name)


def join_settings(ctx: typer.Context, typed: list[str]) -> list[str]:
    """Return the settings of the file and then those that were typed, which overrule them."""
    return [*ctx.meta.get(SETTINGS, ()), *(typed or ())]


def join_head_settings(ctx: typer.Context, typed: list[str]) -> list[str]:
    """Return the same for a command that has a head and no fine-tuning, whose settings in the file are another's."""
    return [*(setting for setting in ctx.meta.get(SETTINGS, ()) if setting.startswith("head.")), *(typed or ())]


def _parse_file(path: Path) -> dict[str, Any]:
    """Return what a file says."""
    try:
        content = path.read_text(encoding="utf-8")
    except OSError as exc:
        raise InvalidInputError(f"The config file {path} cannot be read: {exc.strerror}.") from exc
    except UnicodeDecodeError as exc:
        raise InvalidInputError(f"The config file {path} is no TOML: it is not UTF-8 text.") from exc
    try:
        return {key.replace("_", "-"): value for key, value in tomllib.loads(content).items()}
    except tomllib.TOMLDecodeError as exc:
        raise InvalidInputError(f"The config file {path} is no TOML: {exc}.") from exc


def parse_setting(text: str) -> tuple[str, str, Any]:
    """Return owner, name and value of what was typed after --set.

    Raises
    ------
    InvalidInputError
        It is not of the form OWNER.NAME=VALUE.
    """
    key, equals, value = text.partition("=")
    owner, dot, name = key.strip().replace("-", "_").partition(".")
    if not (owner and dot and name and equals):
        raise InvalidInputError(f"--set must be OWNER.NAME=VALUE, such as finetune.lr=0.01. Got {text!r} instead.")
    try:
        parsed = tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        parsed = value.strip()  # a word without quotes
    return owner, name, tuple(parsed) if isinstance(parsed, list) else parsed


def write_config(path: Path, ctx: typer.Context) -> None:
    """Write the file that makes the running command do the same again; it appears whole or not at all.

    Raises
    ------
    InvalidInputError
        The file cannot be written.
    """
    import tomlkit

    from bottleneck import __version__
    from bottleneck.cache.files import write_whole

    document = tomlkit.document()
    document.add(tomlkit.comment(f"{FIRST_LINE.removeprefix('# ')} {__version__}. To do the same again:"))
    document.add(tomlkit.comment(f"bottleneck {ctx.info_name} --config {path.name}"))
    for param in ctx.command.params:
        key, value = key_of(param), ctx.params.get(str(param.name))
        if key == SETTINGS or key in LEFT_OUT or value is None:
            continue
        document.add(key, _as_toml(key, value))
    settings = tomlkit.table()
    for owner, name, value in map(parse_setting, ctx.params.get("settings") or ()):
        settings.add(tomlkit.key([owner, name]), value)
    if settings:
        document.add(SETTINGS, settings)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, tomlkit.dumps(document).encode("utf-8"))
    except OSError as exc:
        raise InvalidInputError(f"The config file {path} cannot be written: {exc.strerror or exc}.") from exc


def check_config_target(path: Path) -> None:
    """Refuse, before any work, to replace a file that this program did not write, or to write where it may not.

    Raises
    ------
    InvalidInputError
        There is such a file, or its folder cannot be written or made.
    """
    if path.is_file() and path.read_text(encoding="utf-8", errors="replace").startswith(FIRST_LINE):
        return
    if path.exists():
        raise InvalidInputError(f"{path} exists, and bottleneck did not write it. Name another with --write-config.")
    nearest = next(folder for folder in path.absolute().parents if folder.exists())
    if not (nearest.is_dir() and os.access(nearest, os.W_OK)):
        raise InvalidInputError(f"Nothing can be written in {nearest}, where {path} should be. Name another folder.")


def data_of_config(path: Path) -> Path | None:
    """Return the data that a written file names, or None where there is no such file or it names none."""
    try:
        data = _parse_file(path).get("data")
    except InvalidInputError:  # whether something else may be replaced is check_config_target's to say
        return None
    return Path(data) if isinstance(data, str) else None


def _is_of_file(ctx: Any, param: Any) -> bool:
    """Say whether the value of a parameter comes from the config file."""
    source = ctx.get_parameter_source(param.name)
    return source is not None and source.name == "DEFAULT_MAP"


def _check_keys(path: Path, given: Mapping[str, Any], known: Collection[str], *, own: Collection[str]) -> None:
    """Refuse keys that no command has, suggesting the command's ``own``, and tables where a value is needed."""
    problems = [
        f"{key}: no such option. {did_you_mean(key, sorted(own))}".rstrip() for key in given if key not in known
    ]
    problems += [
        f"{key}: {'a table is' if key == SETTINGS else 'one value, not a table, is'} needed"
        for key, value in given.items()
        if key in known and isinstance(value, dict) != (key == SETTINGS)
    ]
    if problems:
        raise InvalidInputError(f"The config file {path} cannot be used:\n{listed(problems)}")


def _assignments(path: Path, settings: Mapping[str, Any]) -> Iterator[str]:
    """Yield each entry of the table [set] as it would be typed."""
    import tomlkit

    for owner, values in settings.items():
        if not isinstance(values, dict):
            raise InvalidInputError(
                f"The config file {path} cannot be used: write {owner} in [set] as finetune.NAME or head.NAME."
            )
        for name, value in values.items():
            yield f"{owner}.{name}={tomlkit.item(value).as_string()}"


def _as_toml(key: str, value: Any) -> Any:
    """Return a value as TOML holds it; paths become absolute, so that the file works from any folder."""
    match key, value:
        case _, tuple() | list():
            return [_as_toml(key, part) for part in value]
        case _, Path():
            return str(value.absolute())
        case "data" | "images", str():  # also addresses, and - for the standard input
            return str(Path(value).absolute()) if Path(value).exists() else value
        case "weights", str():
            return str(Path(value).absolute()) if Path(value).is_file() else value
        case "backbones", str():
            name, equals, weights = value.partition("=")
            return f"{name}{equals}{_as_toml('weights', weights)}"
    return value
