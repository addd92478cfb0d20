"""`bottleneck predict`: any number of images, in their order, each with a status, in memory for a few of them."""

import os
import sys
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from time import monotonic
from typing import IO, TYPE_CHECKING, Annotated

import typer

from bottleneck.cli import options as opt
from bottleneck.cli.output import complain
from bottleneck.errors import InvalidInputError, UnreadableImagesError, wrong_parameter

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from bottleneck import TransferClassifier

FIRST_CHUNK = 64
MOST_ROWS = 4096
CHUNK_SECONDS = 2.0
"""Chunks grow until one takes about this long: then rows appear often, and starting a chunk costs little beside it."""
READ_BYTES = 2**18
STANDARD_INPUT = "-"


def predict(
    model: opt.Model,
    images: Annotated[
        list[str],
        typer.Argument(
            help="Images, folders of them, or - for a list of paths, one a line, on the standard input.",
            metavar="IMAGES",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="File for all rows; otherwise they are printed as they come.")
    ] = None,
    format: Annotated[
        str | None,
        typer.Option(
            "--format",
            "-f",
            help="csv, jsonl or parquet; by default what the name after --out ends in, or csv.",
            autocompletion=opt.one_of("csv", "jsonl", "parquet"),
            show_default=False,
        ),
    ] = None,
    top_k: Annotated[int, typer.Option("--top-k", "-k", min=1, help="How many classes, the most likely first.")] = 1,
    proba: Annotated[bool, typer.Option("--proba", help="A column for the probability of each class too.")] = False,
    cache_dir: opt.CacheDir = None,
    device: opt.Device = "auto",
    on_error: opt.OnError = "skip",
    config: opt.Config = None,
    config_out: opt.WriteConfig = None,
    quiet: opt.Quiet = False,
    verbose: opt.Verbose = False,
    json: Annotated[bool, typer.Option("--json", help="The same as --format jsonl.")] = False,
) -> None:
    """Print the class of each image and its probability, in the order given.

    Columns: path, status ("ok", or "unreadable: " and why), class, probability.

    --top-k 2 adds class_2 and probability_2, --proba adds p(CLASS) for each class.

    An image that cannot be read has a status and nothing else.

    The exit status is 0 if any image could be read; --on-error raise asks for all.

    A file named by --out appears whole or not at all.
    """
    from bottleneck import load
    from bottleneck.cli.rows import Columns, open_writer, parse_format

    if json and format not in (None, "jsonl"):
        raise InvalidInputError(f"--json is --format jsonl. Leave out one of --json and --format {format}.")
    kind = parse_format("jsonl" if json else format, out)
    if on_error not in ("raise", "skip"):
        raise wrong_parameter("bottleneck predict", "on_error", "'raise' or 'skip'", on_error)
    check_paths(images)
    classifier = load(model).set_params(cache_dir=cache_dir, device=device, on_error="raise")
    columns = Columns(
        classes=tuple(map(str, classifier.classes_.tolist())),
        top_k=min(top_k, len(classifier.classes_)),
        with_proba=proba,
    )
    n_rows, n_unreadable = 0, 0
    with open_writer(kind, out, columns) as writer:
        for paths in chunks_of(images):
            found, reasons = predict_readable(classifier, paths, skip=on_error == "skip")
            writer.write(columns.rows(paths, found, reasons))
            n_rows, n_unreadable = n_rows + len(paths), n_unreadable + len(reasons)
    if n_rows == 0:
        raise InvalidInputError("No paths came on the standard input.")
    if n_unreadable == n_rows:
        raise InvalidInputError(f"None of the {n_rows} images can be read. Their status says why.")
    if n_unreadable and not quiet:
        complain("warning", f"{n_unreadable} of {n_rows} images could not be read. Their status says why.")


def check_paths(images: Sequence[str]) -> None:
    """Refuse paths that are not there, before any work; those on the standard input get a status instead.

    Raises
    ------
    InvalidInputError
        Names all that are missing, or the standard input is closed.
    """
    missing = [path for path in images if path != STANDARD_INPUT and not os.path.lexists(path)]
    if missing:
        raise InvalidInputError(f"No such file or folder: {', '.join(missing)}.")
    if STANDARD_INPUT in images and sys.stdin is None:
        raise InvalidInputError("The standard input is closed, so no paths can be read from it.")


def predict_readable(
    classifier: "TransferClassifier", paths: Sequence[str], *, skip: bool
) -> tuple["NDArray[np.float64]", dict[int, str]]:
    """Return the probabilities (n, n_classes), NaN for images that cannot be read, and why by their position."""
    import numpy as np

    reasons: dict[int, str] = {}
    proba = np.full((len(paths), len(classifier.classes_)), np.nan)
    rows = list(range(len(paths)))
    while rows:
        try:
            proba[rows] = classifier.predict_proba([paths[row] for row in rows])
            break
        except UnreadableImagesError as exc:  # the features of all others are in the cache by now
            if not skip:
                raise
            reasons |= {rows[failure.row]: failure.reason for failure in exc.failures}
            rows = [row for row in rows if row not in reasons]
    return proba, reasons


def chunks_of(images: Sequence[str]) -> Iterator[list[str]]:
    """Yield the paths of all images in chunks that take about ``CHUNK_SECONDS`` each to predict."""
    size = FIRST_CHUNK
    for available in _pieces(images):
        remaining = iter(available)
        while chunk := list(islice(remaining, size)):
            began = monotonic()
            yield chunk
            size = _next_size(size, len(chunk), monotonic() - began)


def _pieces(images: Sequence[str]) -> Iterator[Sequence[str]]:
    """Yield the paths that can be had at once: files that follow each other, a folder's, what came on the input."""
    files: list[str] = []
    for name in images:
        if name != STANDARD_INPUT and not Path(name).is_dir():
            files.append(name)
            continue
        yield files
        files = []
        yield from _lines_of(sys.stdin) if name == STANDARD_INPUT else [_images_below(name)]
    yield files


def _next_size(size: int, n_rows: int, seconds: float) -> int:
    """Return the size of the next chunk, from how long this one took."""
    affordable = int(n_rows * CHUNK_SECONDS / max(seconds, 1e-6))
    return max(FIRST_CHUNK, min(affordable, 2 * size, MOST_ROWS))


def _images_below(name: str) -> Sequence[str]:
    """Return all images of a folder."""
    from bottleneck.images import as_image_source

    return as_image_source(Path(name)).ids


def _lines_of(stream: IO[str]) -> Iterator[list[str]]:
    """Yield the lines that have come so far, as soon as there is one: whoever writes slowly is answered at once."""
    rest = b""
    while content := stream.buffer.read1(READ_BYTES):  # type: ignore[attr-defined]  # typed as any text stream
        *lines, rest = (rest + content).split(b"\n")
        yield [os.fsdecode(path) for line in lines if (path := line.rstrip(b"\r"))]
    if rest:
        yield [os.fsdecode(rest)]
