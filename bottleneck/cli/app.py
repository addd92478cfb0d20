"""The command line's table of contents."""

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from bottleneck.cli import caching, commands
from bottleneck.cli.compare import compare
from bottleneck.cli.config import Repeatable
from bottleneck.cli.demo import demo
from bottleneck.cli.doctor import doctor
from bottleneck.cli.examples import EXAMPLES, EXIT_STATUS
from bottleneck.cli.export import export
from bottleneck.cli.predict import predict

app = typer.Typer(
    name="bottleneck",
    help="Image classifiers on pretrained networks: features computed once, a linear head in seconds, and a planner "
    "that knows when to fine-tune.",
    epilog=EXIT_STATUS,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

JOBS = (
    commands.plan,
    commands.fit,
    commands.evaluate,
    predict,
    caching.cache,
    compare,
    commands.report,
    export,
)
"""Commands that make something of images or of a classifier: a config file can stand for each."""
OTHERS = (caching.verify, caching.compact, demo, doctor)
for job in JOBS:
    app.command(epilog=EXAMPLES[job.__name__], cls=Repeatable)(job)
for command in OTHERS:
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
