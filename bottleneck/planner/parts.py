"""What the parts of a run were predicted to take, before it and after the probes, beside what they took."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from bottleneck.planner.alternatives import training_limit
from bottleneck.planner.costs import (
    KEY_BYTES,
    anew_seconds,
    further_seconds,
    heads_seconds,
    keeps_features,
    pass_seconds,
    probe_cost,
    training_cost,
    training_seconds,
    whole_seconds,
)
from bottleneck.planner.estimates import at_most, plus
from bottleneck.planner.memory import sizes_of
from bottleneck.planner.records import Estimate, LinearProbe, Request, Strategy
from bottleneck.planner.shapes import shape_of

Part = Literal["preparation", "features", "heads", "trial", "folds", "refit", "total", "memory", "disk"]
IN_BYTES = ("memory", "disk")
LABELS: dict[Part, str] = {
    "preparation": "preparation",
    "features": "feature pass",
    "heads": "probes",
    "trial": "trial of fine-tuning",
    "folds": "training in folds",
    "refit": "training on all",
    "total": "whole run",
    "memory": "memory",
    "disk": "disk",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class PartCost:
    """One part of a run: seconds, or bytes of memory and of features that were added to the cache.

    Attributes
    ----------
    part : str
        "preparation", "features", "heads", "trial", "folds", "refit" and "total" are times, "memory" and "disk" bytes.
    predicted : Estimate or None
        Before anything was extracted; None for what only the probes can tell.
    updated : Estimate or None
        After the probes; None for what was over then, or where there are none yet.
    actual : float or None
        What it took; None before the run, for what was not done, and for what cannot be known.
    """

    part: Part
    predicted: Estimate | None = None
    updated: Estimate | None = None
    actual: float | None = None

    @property
    def unit(self) -> Literal["seconds", "bytes"]:
        """What the numbers count."""
        return "bytes" if self.part in IN_BYTES else "seconds"


def predict_costs(request: Request, strategy: Strategy) -> tuple[PartCost, ...]:
    """Return what the parts of carrying out a strategy take, as it was before the probes and as it looks now."""
    evidence = request.evidence
    before = _parts(replace(request, evidence=None), strategy)
    if evidence is None:
        return tuple(PartCost(part=part, predicted=estimate) for part, estimate in before.items())
    now = _parts(request, strategy)
    ahead = {"folds", "refit", "total"} if evidence.spent_seconds is not None else set(now)
    costs = [
        PartCost(part=part, predicted=estimate, updated=now[part] if part in ahead else None)
        for part, estimate in before.items()
    ]
    if evidence.trial is not None:
        trial = PartCost(part="trial", actual=evidence.trial.seconds)
        costs.insert([cost.part for cost in costs].index("heads") + 1, trial)
    return tuple(costs)


def with_actual(costs: tuple[PartCost, ...], actual: Mapping[Part, float]) -> tuple[PartCost, ...]:
    """Return the parts with what they took, as far as that is known."""
    return tuple(replace(cost, actual=actual.get(cost.part, cost.actual)) for cost in costs)


def _parts(request: Request, strategy: Strategy) -> dict[Part, Estimate]:
    profile = request.profile
    parts: dict[Part, Estimate] = {}
    if profile.preparation_seconds:
        seconds = profile.preparation_seconds
        parts["preparation"] = Estimate(value=seconds, low=seconds, high=seconds)
    layers = strategy.layers if isinstance(strategy, LinearProbe) else "penultimate"
    parts["features"], parts["heads"] = pass_seconds(profile), heads_seconds(request, layers)
    if isinstance(strategy, LinearProbe):
        cost = probe_cost(request, layers)
        total = cost.seconds
    else:
        shape = shape_of(strategy, request)
        cost = training_cost(request, strategy.steps, shape)
        folds, refit = training_seconds(request, strategy.steps, shape)
        limit, further = training_limit(request), further_seconds(request, strategy.steps, shape)
        anew = anew_seconds(request, strategy.steps, shape, limit=limit)
        # A schedule is shortened while it runs rather than late.
        whole = whole_seconds(request, strategy.steps, shape, limit=limit)
        total = at_most(whole, limit)
        trainings = plus(folds, further), replace(plus(refit, anew), low=0.0)
        parts["folds"], parts["refit"] = _in_the_same_time(trainings, whole, total)
    copies = sizes_of(profile).network_bytes
    missing = profile.n_samples - profile.rows_cached if keeps_features(request) else 0
    stored = missing * (profile.feature_bytes_per_image + KEY_BYTES)
    most_stored = probe_cost(request, "penultimate").disk_bytes
    return parts | {
        "total": total,
        "memory": Estimate(value=cost.memory_bytes, low=min(copies, cost.memory_bytes), high=cost.memory_bytes),
        "disk": Estimate(value=stored, low=stored, high=most_stored),
    }


def _in_the_same_time(trainings: tuple[Estimate, ...], whole: Estimate, allowed: Estimate) -> tuple[Estimate, ...]:
    """Return trainings shortened in proportion, so that ``whole``, of which they are a part, takes what is allowed."""

    def share(bound: Literal["value", "low", "high"]) -> float:
        trained = sum(getattr(training, bound) for training in trainings)
        return max(0.0, 1 - (getattr(whole, bound) - getattr(allowed, bound)) / trained) if trained else 1.0

    value, low, high = share("value"), share("low"), share("high")
    shortened = []
    for training in trainings:
        bounds = sorted((low * training.low, value * training.value, high * training.high))
        shortened.append(Estimate(low=bounds[0], value=value * training.value, high=bounds[-1]))
    return tuple(shortened)
