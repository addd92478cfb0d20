"""Fine-tuning that starts as the linear probe and is kept only if it beats it."""

from bottleneck.finetune.compare import AlphaScore, Comparison
from bottleneck.finetune.groups import GroupDescription, describe_groups
from bottleneck.finetune.handoff import FineTuneResult, finetune
from bottleneck.finetune.job import EpochRecord
from bottleneck.finetune.recipe import Recipe, plan_recipe
from bottleneck.finetune.settings import FineTuneSettings, check_settings

__all__ = [
    "AlphaScore",
    "Comparison",
    "EpochRecord",
    "FineTuneResult",
    "FineTuneSettings",
    "GroupDescription",
    "Recipe",
    "check_settings",
    "describe_groups",
    "finetune",
    "plan_recipe",
]
