"""From settings and facts to the numbers of one fine-tuning: pure functions."""

import math
from dataclasses import dataclass
from typing import Literal

from bottleneck.finetune.settings import FineTuneSettings

Optimizer = Literal["sgd", "adamw"]

REFERENCE_BATCH = 32
"""The batch size at which the automatic rates and numbers of steps are stated."""

HEAD_LR = {"sgd": 0.01, "adamw": 1e-3}
HEAD_TO_LAST_GROUP = {"sgd": 2.6, "adamw": 10.0}
GROUP_TO_GROUP = {"sgd": 2.6, "adamw": 1 / 0.75}
"""2.6 a group: Howard and Ruder (2018). 0.75 a transformer block: Clark et al. (2020), Bao et al. (2022)."""

# SGD scales in proportion to the batch (Goyal et al. 2017), Adam with its square root (Malladi et al. 2022).
BATCH_EXPONENT = {"sgd": 1.0, "adamw": 0.5}

MIN_STEPS, MAX_STEPS, STEPS_PER_ROOT = 300, 5000, 60
MAX_EPOCHS, MAX_EPOCHS_ABOVE = 60, 300

ACCEPTANCE_Z = 0.5
"""Loses up to 0.31 standard errors where fine-tuning is better, and does at most 0.08 of harm where it is not."""

SMALL_DATA = 2000
"""Images below which weights do not decay and BatchNorm keeps its statistics."""
WEIGHT_DECAY = 1e-4
FREEZE_BELOW_BATCH, FREEZE_BELOW_STEPS = 64, 20

FEW_IMAGES = 200
"""Images below which random crops are milder (how mild is a choice, not a measurement)."""
CROP_SCALE, MILD_CROP_SCALE = 0.5, 0.75

ALL_FOLDS_BELOW, ONE_HOLD_OUT_FROM = 1000, 3000


@dataclass(frozen=True, kw_only=True, slots=True)
class CrossFit:
    """How data are split to compare with the probe: ``n_folds`` folds, of which ``n_used`` are held out in turn."""

    n_folds: int
    n_used: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """The numbers of one fine-tuning. ``learning_rates``: one a layer group from the input, then the head's."""

    optimizer: Optimizer
    learning_rates: tuple[float, ...]
    batch_size: int
    steps: int
    warmup_fraction: float
    clip_norm: float
    weight_decay: float
    min_crop_scale: float
    flip: bool
    freeze_batch_norm: bool
    label_smoothing: float
    acceptance_z: float
    cross_fit: CrossFit


def plan_recipe(settings: FineTuneSettings, *, n_images: int, n_groups: int, has_layer_norm: bool) -> Recipe:
    """Return the recipe for ``n_images`` and a network with ``n_groups`` layer groups, with or without LayerNorm."""
    steps, decay, scale = settings.steps, settings.weight_decay, settings.min_crop_scale
    return Recipe(
        optimizer=choose_optimizer(settings, has_layer_norm=has_layer_norm),
        learning_rates=group_rates(settings, n_groups=n_groups, has_layer_norm=has_layer_norm),
        batch_size=settings.batch_size,
        steps=auto_steps(n_images, settings.batch_size) if steps == "auto" else steps,
        warmup_fraction=settings.warmup_fraction,
        clip_norm=settings.clip_norm,
        weight_decay=(WEIGHT_DECAY if n_images >= SMALL_DATA else 0.0) if decay == "auto" else decay,
        min_crop_scale=(CROP_SCALE if n_images >= FEW_IMAGES else MILD_CROP_SCALE) if scale == "auto" else scale,
        flip=settings.flip,
        freeze_batch_norm=freezes_batch_norm(settings, n_images=n_images),
        label_smoothing=settings.label_smoothing,
        acceptance_z=ACCEPTANCE_Z if settings.acceptance_z == "auto" else settings.acceptance_z,
        cross_fit=plan_cross_fit(settings, n_images=n_images),
    )


def choose_optimizer(settings: FineTuneSettings, *, has_layer_norm: bool) -> Optimizer:
    """Return the optimizer asked for, else AdamW for networks with LayerNorm and SGD for the others."""
    if settings.optimizer == "auto":
        return "adamw" if has_layer_norm else "sgd"
    return settings.optimizer


def group_rates(settings: FineTuneSettings, *, n_groups: int, has_layer_norm: bool) -> tuple[float, ...]:
    """Return the learning rate of each layer group from the input, then the head's; 0 is frozen."""
    kind = choose_optimizer(settings, has_layer_norm=has_layer_norm)
    batch_factor = (settings.batch_size / REFERENCE_BATCH) ** BATCH_EXPONENT[kind]
    head = HEAD_LR[kind] * batch_factor if settings.lr == "auto" else settings.lr
    decay = settings.lr_decay
    first, further = (HEAD_TO_LAST_GROUP[kind], GROUP_TO_GROUP[kind]) if decay == "auto" else (decay, decay)
    multipliers = settings.group_multipliers or (1.0,) * n_groups
    slowdown = [first * further ** (n_groups - 1 - group) for group in range(n_groups)]
    rates = [head * multiplier / times for multiplier, times in zip(multipliers, slowdown, strict=True)]
    frozen = settings.freeze_groups
    return (*[0.0] * frozen, *rates[frozen:], head)


def auto_steps(n_images: int, batch_size: int) -> int:
    """Return 60 sqrt(n) within 300 and 5,000 at 32 images a batch, at most 60 epochs above 300 images."""
    steps = min(max(STEPS_PER_ROOT * math.sqrt(n_images), MIN_STEPS), MAX_STEPS)
    if n_images > MAX_EPOCHS_ABOVE:
        steps = min(steps, MAX_EPOCHS * n_images / REFERENCE_BATCH)
    return max(1, round(steps * REFERENCE_BATCH / batch_size))


def freezes_batch_norm(settings: FineTuneSettings, *, n_images: int) -> bool:
    """Say whether BatchNorm keeps its statistics: where batches or data are too few to estimate new ones."""
    if settings.batch_norm != "auto":
        return settings.batch_norm == "frozen"
    few_steps = n_images / settings.batch_size < FREEZE_BELOW_STEPS
    return settings.batch_size < FREEZE_BELOW_BATCH or n_images < SMALL_DATA or few_steps


def plan_cross_fit(settings: FineTuneSettings, *, n_images: int) -> CrossFit:
    """Return how to compare with the probe: enough held-out images for about one point of standard error."""
    match settings.folds:
        case "auto" if n_images < ALL_FOLDS_BELOW:
            return CrossFit(n_folds=3, n_used=3)
        case "auto" if n_images < ONE_HOLD_OUT_FROM:
            return CrossFit(n_folds=3, n_used=2)
        case "auto" | 1:
            return CrossFit(n_folds=4, n_used=1)
        case n_folds:
            return CrossFit(n_folds=n_folds, n_used=n_folds)
