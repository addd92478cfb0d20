"""Planners and their rivals: from what is known of a cell, each names the delivery that it would have had.

The names are those of `planner_replay`.
"""

from typing import Any

from bottleneck.planner import Budget, FineTune, LinearProbe, ProbeEvidence, Profile, plan_transfer
from bottleneck.planner.alternatives import better_probe as better_probe_of
from bottleneck.planner.decide import WORTHWHILE_GAIN
from bottleneck.planner.gain import predict_gain
from tests.benchmarks.planner_cells import FINETUNINGS
from tests.benchmarks.planner_replay import Policy

AMPLE = Budget(seconds=1e7)
"""Strategies ran with all the steps of their recipes, so policies may take the time for them."""


def planner(evidence: ProbeEvidence, profile: Profile, _: object = None) -> str:
    """Choose as ``plan_transfer`` does."""
    match plan_transfer(profile, AMPLE, evidence=evidence).strategy:
        case LinearProbe(layers="penultimate"):
            return "probe"
        case LinearProbe():
            return "all_stages"
        case FineTune(regime=regime):
            return f"finetune_{regime}"
        case _:
            return "scratch"


def hurried_planner(evidence: ProbeEvidence, profile: Profile, _: object = None) -> str:
    """Choose as ``plan_transfer`` does, with time for a quarter of the steps."""
    choice = planner(evidence, profile)
    return "finetune_short" if choice in FINETUNINGS else choice


def picky_planner(needed: float) -> Policy[Any]:
    """Return a hurried planner that trains only where a gain of a point over the better probe is as likely as this."""

    def choose(evidence: ProbeEvidence, profile: Profile, _: object = None) -> str:
        layers, accuracy = better_probe_of(evidence)
        chance = predict_gain(evidence, profile).chance_above(accuracy - evidence.accuracy + WORTHWHILE_GAIN)
        if chance >= needed:
            return hurried_planner(evidence, profile)
        return "all_stages" if layers == "all_stages" else "probe"

    return choose


def rule_of_thumb(evidence: ProbeEvidence, profile: Profile, _: object = None) -> str:
    """Choose as the rule of thumb does, which has no fallback; cells without a scratch run get hot fine-tuning."""
    advice = plan_transfer(profile, AMPLE, evidence=evidence).rule_of_thumb.strategy
    return {"probe": "probe", "finetune": "raw_near", "scratch": "scratch"}[advice]


def better_probe(evidence: ProbeEvidence, profile: Profile, _: object = None) -> str:
    """Choose the all-stages probe if it is better out of fold by more than a standard error."""
    lead = evidence.delta_multi
    return "all_stages" if lead is not None and lead > evidence.standard_error else "probe"


def always(name: str) -> Policy[Any]:
    """Return a policy that does not look."""
    return lambda evidence, profile, constants: name


POLICIES: dict[str, Policy[Any]] = {
    "planner": planner,
    "planner, a quarter of the steps": hurried_planner,
    "rule of thumb": rule_of_thumb,
    "always probe": always("probe"),
    "always all stages": always("all_stages_probe"),
    "better probe": better_probe,
    "always fine-tune": always("raw_near"),
    "always fine-tune hot, fallback": always("finetune_far"),
    # Kolesnikov et al. (2020): one schedule by n, all layers at one hot rate, no choice. Here: the far recipe.
    "BiT-HyperRule": always("raw_far"),
    "bake-off": always("bake_off"),
    "bake-off of everything": always("bake_off_all"),
}
