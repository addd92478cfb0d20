"""`bottleneck export`: a saved classifier as one file for other programs."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from bottleneck.cli import options as opt
from bottleneck.cli.output import emit


def export(
    model: opt.Model,
    file: Annotated[
        Path, typer.Argument(help="File to write: .onnx, or .pt2 for torch.", metavar="FILE", show_default=False)
    ],
    config: opt.Config = None,
    config_out: opt.WriteConfig = None,
    verbose: opt.Verbose = False,
    json: opt.Json = False,
) -> None:
    """Write a saved classifier as one file for other programs, pixels in, probabilities out, and check it."""
    from bottleneck import load
    from bottleneck.export import check_export_target, export_model
    from bottleneck.planner.wording import size

    path = check_export_target(file)  # before the model is loaded, not after
    classifier = load(model)
    print(f"Exporting {model} and comparing what the file answers; a large network takes minutes.", file=sys.stderr)
    report = export_model(classifier, path)
    print(
        f"wrote {report.path} ({size(report.n_bytes)}): uint8 (n, height, width, 3) -> {len(report.classes)} "
        f"probabilities; largest difference {report.largest_difference:.0e} on {report.n_checked} pictures"
    )
    emit(
        json,
        path=str(report.path),
        format=report.format,
        bytes=report.n_bytes,
        n_checked=report.n_checked,
        largest_difference=report.largest_difference,
        classes=list(report.classes),
    )
