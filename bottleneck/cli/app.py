"""The command line's table of contents."""

import typer

from bottleneck.cli import caching, commands
from bottleneck.cli.demo import demo
from bottleneck.cli.doctor import doctor

app = typer.Typer(
    name="bottleneck",
    help="Pretrained features computed once, a linear head in seconds, and a planner that knows when to fine-tune.",
    epilog="Start with: bottleneck demo. On your own pictures: bottleneck fit FOLDER --out MODEL",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.command()(commands.plan)
app.command()(commands.fit)
app.command()(commands.evaluate)
app.command()(commands.predict)
app.command()(caching.cache)
app.command()(caching.verify)
app.command()(caching.compact)
app.command()(commands.report)
app.command()(demo)
app.command()(doctor)
