"""The table of cells that planners are proved on: every strategy in every cell, and what planners make of it.

    python -m tests.benchmarks.planner --records FILE.jsonl [--shared FOLDER] [--tasks NAME ...] [--backbones NAME ...]
        [--sizes N ...] [--seeds SEED ...] [--strategies NAME ...] [--threads 1] [--shard 0/2] [--limit-seconds S]
    python -m tests.benchmarks.planner --records FILE.jsonl ... --summarise [--figure FILE.png] [--clock wall|cpu]

A cell is a task (`planner_tasks`), a backbone, a number of training images and a seed; each strategy (`planner_cells`)
is run in it as a complete procedure. One JSON line for each is appended when it is done, so that a run that was cut
short goes on where it ended; a strategy that failed leaves a line with its error, and is tried again by the next run.
The cheap cells come first: seed by seed, and in each by the number of images. Give OMP_NUM_THREADS as many threads as
``--threads``, before Python starts; with ``--shard I/N`` several processes run disjoint cells side by side.

Every line has ``task``, ``backbone``, ``n``, ``seed``, ``strategy``, ``threads``, ``version``, and ``error`` or:

``accuracy``, ``predictions``
    Of what the strategy delivers, on the test images; class numbers as base64 of uint8.
``parts``
    Wall and processor seconds of each part: ``open`` (checks, rates measured), ``extract``, ``probe``; then
    ``all_stages_head``; or ``start`` (the better probe), ``decode``, ``mirror``, and ``folds``, ``refit`` and
    ``check``, or ``training 0`` (1, 2, ... if it diverged and began again); or ``scratch``.

Lines of ``probe`` further have ``test_labels`` and ``n_test``, the planner's ``profile`` and ``evidence`` as the run
saw them, ``head`` (``normalize``, ``C``), ``signals`` (``layers``: leave-one-out accuracy of each layer, of all stages
and of the earlier half; ``neighbours``; ``batch_norm_shift``) and ``signal_seconds``. Lines of ``all_stages_probe``:
``accuracy_cv``, ``accuracy_cv_se``. Lines of the fine-tunings: ``accepted``, ``path_accuracy`` and
``path_predictions`` of the network trained on all images (with a comparison: at each alpha above 0),
``start_predictions`` of the probe that it began with, ``steps``, ``gentler`` (how often rates were lowered), ``flip``,
``settings``, ``stopped`` (why training failed), the ``comparison`` with the probe and what it was made of
(``held_out``: ``log_loss`` and ``margin`` of each held-out image at each alpha, as base64 of float16).
"""

import argparse
import json
import time
import warnings
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import torch
from threadpoolctl import threadpool_limits

from bottleneck.errors import TransferWarning
from tests.benchmarks.planner_cells import BACKBONES, FINETUNINGS, STRATEGIES, Cell, Record, load_named, run_cell
from tests.benchmarks.planner_replay import NEEDED, play
from tests.benchmarks.planner_summary import draw_frontier, policy_lines, signal_lines
from tests.benchmarks.planner_tasks import SIZES, TASKS, draw, task_images

VERSION = 5
"""From 3 to 4 the training on all images of fine-tunings with a comparison, of 100 images and more with all steps of
the recipe, begins with the probe once more; the folds before it and the other strategies are the same. From 4 to 5
fine-tunings with a comparison begin without mirror images, and what they learned tells whether these are used (below
100 images three folds of probes do); probes and trainings without a comparison are the same."""
UNCHANGED_SINCE = {strategy: 5 if strategy in FINETUNINGS else 4 for strategy in STRATEGIES}
"""The version from which records of a strategy are those of today."""
DEFAULT_STRATEGIES = NEEDED
"""What a replay needs. Training from scratch is for the largest cells alone, and asked for by name."""
FAILURES = (ArithmeticError, AttributeError, LookupError, MemoryError, OSError, RuntimeError, TypeError, ValueError)
"""What may go wrong in a cell and should not end a run of hours."""


def main() -> None:
    arguments = parse_arguments()
    if arguments.summarise:
        summarise(arguments)
        return
    torch.set_num_threads(arguments.threads)
    with threadpool_limits(arguments.threads), warnings.catch_warnings():
        warnings.simplefilter("ignore", TransferWarning)
        fill_table(arguments)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, default=Path(__file__).resolve().parents[3] / "shared")
    parser.add_argument("--records", type=Path, nargs="+", required=True, help="the first one is appended to")
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--backbones", nargs="+", choices=BACKBONES, default=list(BACKBONES[:2]))
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--strategies", nargs="+", choices=STRATEGIES, default=list(DEFAULT_STRATEGIES))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--shard", default="0/1", help="I/N: every N-th cell from the I-th")
    parser.add_argument("--limit-seconds", type=float, default=float("inf"), help="no cell begins after so many")
    parser.add_argument("--summarise", action="store_true", help="replay planners on the records")
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall", help="with --summarise: seconds to count")
    parser.add_argument("--version", type=int, default=VERSION, help="with --summarise: which records to replay")
    parser.add_argument("--figure", type=Path, help="with --summarise: draw regret against cost")
    return parser.parse_args()


def fill_table(arguments: argparse.Namespace) -> None:
    """Run what the records do not have yet."""
    began = time.monotonic()
    done = {key_of(record) for record in read_records(arguments.records, VERSION) if "error" not in record}
    for cell in cells(arguments):
        if time.monotonic() - began > arguments.limit_seconds:
            return
        missing = [name for name in arguments.strategies if (*key_of_cell(cell), name) not in done]
        for record in measure(cell, arguments.shared, missing) if missing else ():
            line = {"version": VERSION, "threads": arguments.threads, **record}
            append(arguments.records[0], line)
            told = ("task", "backbone", "n", "seed", "strategy", "accuracy", "parts", "error")
            print(json.dumps({name: line[name] for name in told if name in line}), flush=True)


def cells(arguments: argparse.Namespace) -> Iterator[Cell]:
    """Yield this process's share of the cells, the cheap ones first."""
    index, count = map(int, arguments.shard.split("/"))
    places = product(arguments.seeds, sorted(arguments.sizes), arguments.backbones, arguments.tasks)
    for number, (seed, n, backbone, task) in enumerate(places):
        if number % count == index and backbone not in TASKS[task].seen_by:
            yield Cell(task=task, backbone=backbone, n=n, seed=seed)


def measure(cell: Cell, shared: Path, strategies: list[str]) -> Iterator[Record]:
    """Yield the record of each strategy, and one that says what went wrong if something did."""
    images = task_images(cell.task, shared)
    rows = draw(images.labels, cell.n, seed=cell.seed)
    if rows is None:  # there are not so many images, or not two of each class among so few
        return
    left = list(strategies)
    try:
        for record in run_cell(cell, images, rows, load_named(cell.backbone, shared), strategies=strategies):
            left.remove(record["strategy"])
            yield record
    except FAILURES as exc:
        at = {"task": cell.task, "backbone": cell.backbone, "n": cell.n, "seed": cell.seed}
        yield {**at, "strategy": left[0], "error": f"{type(exc).__name__}: {exc}"}


def key_of_cell(cell: Cell) -> tuple[str, str, int, int]:
    return cell.task, cell.backbone, cell.n, cell.seed


def key_of(record: Record) -> tuple[str, str, int, int, str]:
    return record["task"], record["backbone"], record["n"], record["seed"], record["strategy"]


def read_records(paths: list[Path], version: int) -> list[Record]:
    """Return the records of earlier runs of one version; of today's, those that have not changed since as well."""
    lines = [line for path in paths if path.exists() for line in path.read_text().splitlines()]
    return [record for record in map(json.loads, lines) if is_of(record, version)]


def is_of(record: Record, version: int) -> bool:
    """Say whether a record is one of this version, or is the same in it."""
    oldest = UNCHANGED_SINCE[record["strategy"]] if version == VERSION else version
    return bool(oldest <= record["version"] <= version)


def append(path: Path, record: Record) -> None:
    """Add a line in one write, so that processes that share a file do not write into each other's lines."""
    with path.open("ab", buffering=0) as file:
        file.write(f"{json.dumps(record)}\n".encode())


def summarise(arguments: argparse.Namespace) -> None:
    """Print what planners would have made of the records, and draw it if asked."""
    played = play(read_records(arguments.records, arguments.version), clock=arguments.clock)
    cells_asked = [
        cell
        for cell in played
        if cell.task in arguments.tasks
        and cell.backbone in arguments.backbones
        and cell.n in arguments.sizes
        and cell.seed in arguments.seeds
    ]
    if not cells_asked:
        print(json.dumps({"cells": 0}))
        return
    lines = policy_lines(cells_asked)
    for line in (*lines, *signal_lines(cells_asked)):
        print(json.dumps(line))
    if arguments.figure:
        draw_frontier(lines, arguments.figure)


if __name__ == "__main__":
    main()
