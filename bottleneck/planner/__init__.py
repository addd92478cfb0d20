"""Decide from measured facts alone: features and a linear probe, fine-tuning, or training from scratch."""

from bottleneck.planner.decide import plan_transfer
from bottleneck.planner.plan import Plan
from bottleneck.planner.records import (
    Alternative,
    Budget,
    Estimate,
    FineTune,
    LinearProbe,
    ProbeEvidence,
    Profile,
    Reason,
    Request,
    RuleOfThumb,
    Scratch,
    Strategy,
    StrategyName,
)
from bottleneck.planner.wording import percent

__all__ = [
    "Alternative",
    "Budget",
    "Estimate",
    "FineTune",
    "LinearProbe",
    "Plan",
    "ProbeEvidence",
    "Profile",
    "Reason",
    "Request",
    "RuleOfThumb",
    "Scratch",
    "Strategy",
    "StrategyName",
    "percent",
    "plan_transfer",
]
