"""The command line's table of contents."""

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from bottleneck.cli import caching, commands
from bottleneck.cli.compare import compare
from bottleneck.cli.demo import demo
from bottleneck.cli.doctor import doctor
from bottleneck.cli.examples import EXAMPLES, EXIT_STATUS
from bottleneck.cli.export import export
from bottleneck.cli.predict import predict

app = typer.Typer(
    name="bottleneck",
    help="Pretrained features computed once, a linear head in seconds, and a planner that knows when to fine-tune.",
    epilog=EXIT_STATUS,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

COMMANDS = (
    commands.plan,
    commands.fit,
    commands.evaluate,
    predict,
    caching.cache,
    caching.verify,
    caching.compact,
    commands.report,
    compare,
    export,
    demo,
    doctor,
)
for command in COMMANDS:
    app.command(epilog=EXAMPLES[command.__name__])(command)


def _print_version(wanted: bool) -> None:
    if wanted:
        from bottleneck import __version__

        print(f"bottleneck-features {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", is_eager=True, callback=_print_version)
    ] = False,
) -> None:
    """Take the options that come before a command; the help of all is the app's."""


def typer_commands() -> Mapping[str, Any]:
    """Return the commands as typer runs them, by name."""
    commands_by_name: Mapping[str, Any] = getattr(typer.main.get_command(app), "commands", {})
    return commands_by_name
