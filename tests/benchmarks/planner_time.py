"""What plans say of time and memory, beside what runs took, and what planning costs where the answer is a probe.

    python -m tests.benchmarks.planner_time --records FILE.jsonl [--shared FOLDER] [--jobs NAME ...] [--repeats 3]
    python -m tests.benchmarks.planner_time --records FILE.jsonl --summarise

Each job is a fit in a process of its own, timed without imports and without loading the backbone; a job under "probes"
alternates with the same probe without a planner: `FeatureExtractor` and `LogisticHead` one after the other, with a
cache of its own. One JSON line a fit is appended when it is done. The machine should have nothing else to do.

The summary compares, for the fit of median length of every job, the time predicted before the first image was extracted
and after the probes with the time taken. Where a comparison kept the probe, the training on all
images was not done and is left out of the prediction. ``late`` is the share of its ``time_budget`` by which a fit ended
after it, ``overhead`` the seconds of a fit that answered with a probe beyond those without a planner, and ``allowed``
the larger of two seconds and a fifth of the feature pass. ``memory`` is what the process grew by, over
``memory_limit``.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from bottleneck import FeatureExtractor, LogisticHead, TransferClassifier
from bottleneck.errors import TransferWarning
from bottleneck.memory import peak_memory, resident_memory
from tests.benchmarks.planner_cells import load_named
from tests.benchmarks.planner_tasks import draw, take, task_images

Record = dict[str, Any]
PROBES = ("probe", "all_stages_probe")
LEAST_ALLOWED, ALLOWED_SHARE = 2.0, 0.2
"""Seconds, and share of the feature pass, that planning may take where it answers with a probe."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """A task, a backbone and a number of images, and how the classifier is asked."""

    task: str
    backbone: str
    n: int
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """How records and the command line call it."""
        asked = "".join(f", {name}={value}" for name, value in self.options.items())
        return f"{self.task} {self.n}, {self.backbone}{asked}"


QUICK = {"time_budget": 12}
"""Too little for fine-tuning in these jobs, so that planning answers with a probe."""
PROBE_JOBS = (
    Job(task="digits", backbone="embedded", n=800, options={"time_budget": 8}),
    Job(task="tiny_kinds", backbone="embedded", n=800, options={"time_budget": 8}),
    Job(task="clothing", backbone="mobilenet_v2", n=200, options=QUICK),
    Job(task="clothing", backbone="mobilenet_v2", n=800, options={"time_budget": 25}),
    Job(task="dtd10", backbone="mobilenet_v2", n=200, options=QUICK),
)
TRAINING_JOBS = (
    Job(task="fashion_mnist", backbone="resnet20_cifar10", n=200),
    Job(task="colour", backbone="resnet20_cifar10", n=800),
    Job(task="texture", backbone="embedded", n=200),
    Job(task="position", backbone="embedded", n=200, options={"time_budget": 20}),
    Job(task="fashion_mnist", backbone="resnet20_cifar10", n=800, options={"time_budget": 40}),
    Job(task="clothing", backbone="mobilenet_v2", n=200, options={"time_budget": 60}),
    Job(task="hymenoptera", backbone="mobilenet_v2", n=200, options={"strategy": "finetune", "time_budget": 120}),
    Job(task="rotation", backbone="embedded", n=800, options={"time_budget": 60, "memory_limit": 250_000_000}),
)
JOBS = {job.name: job for job in (*PROBE_JOBS, *TRAINING_JOBS)}


def main() -> None:
    arguments = parse_arguments()
    if arguments.child:
        print(json.dumps(fit(JOBS[arguments.jobs[0]], arguments.shared, plainly=arguments.child == "plain")))
    elif arguments.summarise:
        records = [json.loads(line) for line in arguments.records.read_text().splitlines()]
        for line in summary(records):
            print(json.dumps(line))
    else:
        run(arguments)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=Path)
    parser.add_argument("--shared", type=Path, default=Path(__file__).resolve().parents[3] / "shared")
    parser.add_argument("--jobs", nargs="+", choices=JOBS, default=list(JOBS))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--summarise", action="store_true")
    parser.add_argument("--child", choices=("planned", "plain"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.records is None and not arguments.child:
        parser.error("--records says where results go")
    return arguments


def run(arguments: argparse.Namespace) -> None:
    """Run every job so many times, and append what each fit said and took."""
    for repeat in range(arguments.repeats):
        for name in arguments.jobs:
            for kind in ("planned", "plain") if JOBS[name] in PROBE_JOBS else ("planned",):
                asked = ["--shared", str(arguments.shared), "--jobs", name, "--child", kind]
                command = [sys.executable, "-m", "tests.benchmarks.planner_time", *asked]
                done = subprocess.run(command, capture_output=True, text=True, check=True)
                record = {"job": name, "kind": kind, "repeat": repeat, **json.loads(done.stdout.splitlines()[-1])}
                with arguments.records.open("a") as file:
                    file.write(f"{json.dumps(record)}\n")
                print(json.dumps(record), flush=True)


def fit(job: Job, shared: Path, *, plainly: bool) -> Record:
    """Fit as the job says, or a probe without a planner; return what it took, and what was said of that before."""
    images = task_images(job.task, shared)
    rows = draw(images.labels, job.n, seed=0)
    assert rows is not None
    pool, labels, backbone = take(images.pool, rows), images.labels[rows], load_named(job.backbone, shared)
    with tempfile.TemporaryDirectory() as cache_dir, warnings.catch_warnings():
        warnings.simplefilter("ignore", TransferWarning)
        before, began = resident_memory(), time.perf_counter()
        if plainly:
            features = FeatureExtractor(backbone, cache_dir=cache_dir).fit_transform(pool)
            LogisticHead(random_state=0).fit(np.asarray(features), labels)
            return {"seconds": time.perf_counter() - began}
        classifier = TransferClassifier(backbone, cache_dir=cache_dir, random_state=0, **job.options)
        classifier.fit(pool, labels)
        seconds, peak = time.perf_counter() - began, peak_memory()
    plan = json.loads(classifier.plan_.to_json())
    return {
        "seconds": seconds,
        "memory": None if peak is None or before is None else peak - before,
        "delivered": classifier.strategy_,
        "planned": classifier.plan_.strategy_name,
        "costs": plan["costs"],
    }


def summary(records: Iterable[Record]) -> list[Record]:
    """Return a line for each job, and one for all of them."""
    by_job: dict[str, dict[str, list[Record]]] = {}
    for record in records:
        by_job.setdefault(record["job"], {}).setdefault(record["kind"], []).append(record)
    lines = [line_of(JOBS[name], kinds) for name, kinds in by_job.items()]
    trained = [line for line in lines if line["planned"] not in PROBES]

    def median_of(name: str, of: list[Record]) -> float | None:
        return round(statistics.median(line[name] for line in of), 3) if of else None

    late = [line["late"] for line in lines if "late" in line]
    return [
        *lines,
        {
            "jobs": len(lines),
            "error_before": median_of("error_before", lines),
            "error_after_probes": median_of("error_after_probes", trained),
            "within": f"{sum(line['within'] for line in lines)} of {len(lines)}",
            "latest": max(late) if late else None,
            "overheads_kept": f"{sum(line['overhead'] <= line['allowed'] for line in lines if 'overhead' in line)} of "
            f"{sum('overhead' in line for line in lines)}",
        },
    ]


def line_of(job: Job, kinds: dict[str, list[Record]]) -> Record:
    """Describe one job by the fit of median length."""
    fits = sorted(kinds["planned"], key=lambda record: record["seconds"])
    median = fits[(len(fits) - 1) // 2]
    costs = {cost["part"]: cost for cost in median["costs"]}
    skipped = [part for part in ("refit",) if part in costs and costs[part]["actual"] is None]
    before, after = (predicted(costs, kind, skipped=skipped) for kind in ("predicted", "updated"))
    actual = costs["total"]["actual"]
    line = {
        "job": job.name,
        "fits": len(fits),
        "planned": median["planned"],
        "delivered": median["delivered"],
        "seconds": round(median["seconds"], 2),
        "error_before": round(before / actual - 1, 3),
        "error_after_probes": round(after / actual - 1, 3),
        "within": costs["total"]["predicted"]["low"] <= actual <= costs["total"]["predicted"]["high"],
    }
    line |= {name: abs(line.pop(name)) for name in ("error_before", "error_after_probes")}
    if "time_budget" in job.options:
        line["late"] = round(max(record["seconds"] for record in fits) / job.options["time_budget"] - 1, 3)
    if "memory_limit" in job.options:
        line["memory"] = round(max(record["memory"] for record in fits) / job.options["memory_limit"], 3)
    if "plain" in kinds and median["planned"] in PROBES:
        plainly = statistics.median(record["seconds"] for record in kinds["plain"])
        line["overhead"] = round(statistics.median(record["seconds"] for record in fits) - plainly, 2)
        line["allowed"] = round(max(LEAST_ALLOWED, ALLOWED_SHARE * costs["features"]["actual"]), 2)
    return line


def predicted(costs: dict[str, Record], kind: str, *, skipped: list[str]) -> float:
    """Return what a plan said of the whole run, less the parts that were not done."""
    said = [costs[part][kind] or costs[part]["predicted"] for part in ("total", *skipped)]
    whole, *left_out = (float(estimate["value"]) for estimate in said)
    return whole - sum(left_out)


if __name__ == "__main__":
    main()
