"""Decide from measured facts alone: features and a linear probe, fine-tuning, or training from scratch."""

from bottleneck.planner.alternatives import SMALLER_SCALE, better_probe, needed_for_further_head
from bottleneck.planner.costs import (
    CACHE_BYTES,
    KEY_BYTES,
    ROW_BYTES,
    SHARD_BYTES,
    SHARD_ROWS,
    checkpoints_disk_bytes,
    features_disk_bytes,
    keeps_checkpoints,
    keeps_features,
)
from bottleneck.planner.decide import plan_transfer
from bottleneck.planner.evidence import ProbeEvidence
from bottleneck.planner.head_costs import n_shift_images
from bottleneck.planner.health import ClassCount, Finding, ImageSet, ListedImage
from bottleneck.planner.memory import MemoryShares, RunSizes, network_share, share_out, sizes_of
from bottleneck.planner.parts import Part, PartCost
from bottleneck.planner.plan import Plan
from bottleneck.planner.records import (
    Alternative,
    Budget,
    Estimate,
    FineTune,
    LinearProbe,
    Profile,
    Reason,
    Request,
    RuleOfThumb,
    Scratch,
    Strategy,
    StrategyName,
)
from bottleneck.planner.wishes import Wishes
from bottleneck.planner.wording import percent, size

__all__ = [
    "CACHE_BYTES",
    "KEY_BYTES",
    "ROW_BYTES",
    "SHARD_BYTES",
    "SHARD_ROWS",
    "SMALLER_SCALE",
    "Alternative",
    "Budget",
    "ClassCount",
    "Estimate",
    "Finding",
    "FineTune",
    "ImageSet",
    "LinearProbe",
    "ListedImage",
    "MemoryShares",
    "Part",
    "PartCost",
    "Plan",
    "ProbeEvidence",
    "Profile",
    "Reason",
    "Request",
    "RuleOfThumb",
    "RunSizes",
    "Scratch",
    "Strategy",
    "StrategyName",
    "Wishes",
    "better_probe",
    "checkpoints_disk_bytes",
    "features_disk_bytes",
    "keeps_checkpoints",
    "keeps_features",
    "n_shift_images",
    "needed_for_further_head",
    "network_share",
    "percent",
    "plan_transfer",
    "share_out",
    "size",
    "sizes_of",
]
