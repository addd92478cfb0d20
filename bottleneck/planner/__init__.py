"""Decide from measured facts alone: features and a linear probe, fine-tuning, or training from scratch."""

from bottleneck.planner.alternatives import SMALLER_SCALE, better_probe
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
    "SMALLER_SCALE",
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
    "better_probe",
    "percent",
    "plan_transfer",
]
