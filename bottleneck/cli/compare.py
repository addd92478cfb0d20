"""`bottleneck compare`: which backbone for these images, and what each costs."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bottleneck.cli import options as opt
from bottleneck.cli.output import emit
from bottleneck.errors import InvalidInputError
from bottleneck.optional import require

if TYPE_CHECKING:
    from bottleneck import Backbone


def compare(
    data: opt.Data,
    backbones: Annotated[
        list[str],
        typer.Argument(
            help="Networks as for --backbone of fit; NAME=WEIGHTS for other weights than the default.",
            metavar="BACKBONE",
            show_default=False,
            autocompletion=opt.one_of(*opt.OFTEN_USED),
        ),
    ],
    cv: Annotated[int, typer.Option("--cv", min=2, help="Folds of the cross-validation, the same for all.")] = 5,
    head: opt.Head = "logistic",
    settings: opt.HeadSettings = None,
    cache_dir: opt.CacheDir = None,
    device: opt.Device = "auto",
    precision: opt.Precision = "auto",
    batch_size: opt.BatchSize = "auto",
    on_error: opt.OnError = "raise",
    seed: opt.Seed = 0,
    plot: Annotated[
        Path | None, typer.Option("--plot", help="File for a picture of accuracy against cost: .png, .svg or .pdf.")
    ] = None,
    config: opt.Config = None,
    config_out: opt.WriteConfig = None,
    quiet: opt.Quiet = False,
    verbose: opt.Verbose = False,
    json: opt.Json = False,
) -> None:
    """Say which pretrained network is best for these images, and what each costs; each sees every image once."""
    from bottleneck import compare_backbones

    if plot is not None:
        check_picture(plot)  # before minutes of work, not after
    table = compare_backbones(
        opt.parse_data(data),
        None,
        [_load(text) for text in backbones],
        cv=cv,
        head=opt.with_settings(opt.parse_head(head), settings or ()),
        cache_dir=cache_dir,
        device=device,
        precision=precision,
        batch_size=opt.parse_batch_size(batch_size),
        on_error=on_error,
        random_state=seed,
        verbose=not quiet,
    )
    print(table)
    if plot is not None:
        figure = require("matplotlib.figure", extra="plot").Figure(layout="constrained")
        table.plot(figure.subplots())
        figure.savefig(plot)
        print(f"\nPicture    {plot}")
    emit(json, n_images=table.n_images, n_folds=table.n_folds, majority=table.majority, backbones=table.rows())


def check_picture(path: Path) -> None:
    """Refuse a picture that could not be drawn or written.

    Raises
    ------
    InvalidInputError
        It has another ending, or there is no folder to put it in.
    MissingDependencyError
        matplotlib is not installed.
    """
    require("matplotlib", extra="plot")
    if path.suffix.lower() not in (".png", ".svg", ".pdf"):
        raise InvalidInputError(f"--plot must be a file that ends in .png, .svg or .pdf. Got {str(path)!r} instead.")
    if path.is_dir() or not path.parent.is_dir():
        raise InvalidInputError(f"--plot {path} is a folder, or in a folder that does not exist. Make it first.")


def _load(text: str) -> "Backbone":
    """Load NAME or NAME=WEIGHTS."""
    from bottleneck import load_backbone

    name, _, weights = text.partition("=")
    return load_backbone(name, opt.parse_weights(weights or "default"))
