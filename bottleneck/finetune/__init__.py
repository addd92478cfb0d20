"""Fine-tuning that starts as the linear probe and is kept only if it beats it."""

from bottleneck.finetune.batches import scaled_side
from bottleneck.finetune.compare import AlphaScore, Comparison, Expected
from bottleneck.finetune.groups import GroupDescription, describe_groups
from bottleneck.finetune.handoff import FineTuneResult, finetune
from bottleneck.finetune.job import EpochRecord
from bottleneck.finetune.lr_find import RateTest, lr_find, plot_rates
from bottleneck.finetune.mirror import MirrorCheck
from bottleneck.finetune.recipe import Recipe, plan_recipe
from bottleneck.finetune.scratch import ScratchResult, train_from_scratch
from bottleneck.finetune.settings import FineTuneSettings, check_settings
from bottleneck.finetune.step_cost import NoRoomError, StepCost, measure_step

__all__ = [
    "AlphaScore",
    "Comparison",
    "EpochRecord",
    "Expected",
    "FineTuneResult",
    "FineTuneSettings",
    "GroupDescription",
    "MirrorCheck",
    "NoRoomError",
    "RateTest",
    "Recipe",
    "ScratchResult",
    "StepCost",
    "check_settings",
    "describe_groups",
    "finetune",
    "lr_find",
    "measure_step",
    "plan_recipe",
    "plot_rates",
    "scaled_side",
    "train_from_scratch",
]
