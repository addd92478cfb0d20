"""What is made of runs that were timed beside their predictions."""

from typing import Any

import pytest

from tests.benchmarks.planner_time import PROBE_JOBS, TRAINING_JOBS, summary

PROBE_JOB, TRAINING_JOB = PROBE_JOBS[0], next(job for job in TRAINING_JOBS if "memory_limit" in job.options)


def part(name: str, value: float, actual: float | None) -> dict[str, Any]:
    return {"part": name, "predicted": {"value": value, "low": value / 2, "high": 2 * value}, "updated": None} | {
        "actual": actual
    }


def planned(job: str, seconds: float, delivered: str, costs: list[dict[str, Any]], *, strategy: str) -> dict[str, Any]:
    said = {"delivered": delivered, "planned": strategy, "costs": costs, "memory": 200_000_000}
    return {"job": job, "kind": "planned", "seconds": seconds, **said}


def test_planning_costs_what_a_probe_takes_longer_with_a_planner_than_without():
    costs = [part("features", 18.0, 20.0), part("total", 20.0, 25.0)]
    name = PROBE_JOB.name
    fits = [planned(name, seconds, "probe", costs, strategy="probe") for seconds in (24.0, 25.0, 40.0)]
    plain = [{"job": name, "kind": "plain", "seconds": seconds} for seconds in (21.0, 22.0, 30.0)]

    line, whole = summary([*fits, *plain])

    assert (line["overhead"], line["allowed"]) == (3.0, 4.0)
    assert line["late"] == pytest.approx(40 / PROBE_JOB.options["time_budget"] - 1, abs=1e-3)
    assert line["error_before"] == pytest.approx(0.2)
    assert line["within"]
    assert whole["overheads_kept"] == "1 of 1"


def test_a_training_that_was_not_done_is_no_part_of_what_was_predicted():
    cut = part("total", 90.0, 44.0) | {"predicted": {"value": 90.0, "low": 30.0, "high": 90.0}}
    costs = [part("folds", 30.0, 33.0), part("refit", 50.0, None), cut]

    line, whole = summary([planned(TRAINING_JOB.name, 44.0, "probe", costs, strategy="finetune")])

    assert line["error_before"] == pytest.approx(4 / 44, abs=1e-3)
    assert line["within"]
    assert line["memory"] == 0.8
    assert "overhead" not in line
    assert whole["error_after_probes"] == line["error_after_probes"]
