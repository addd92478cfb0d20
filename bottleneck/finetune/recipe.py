"""From settings and facts to the numbers of one fine-tuning: pure functions."""

import math
from dataclasses import dataclass, replace
from itertools import takewhile
from typing import Literal, TypeVar

from bottleneck.finetune.settings import FineTuneSettings

Optimizer = Literal["sgd", "adamw"]
Refit = Literal["continue", "anew", "as_time_allows"]
AskedPrecision = Literal["auto", "float32", "bfloat16"]
Number = TypeVar("Number", int, float, bool)

REFERENCE_BATCH = 32
"""The batch size at which the automatic rates and numbers of steps are stated."""

HEAD_LR = {"sgd": 0.05, "adamw": 1e-3}
HEAD_TO_LAST_GROUP = {"sgd": 2.6, "adamw": 10.0}
GROUP_TO_GROUP = {"sgd": 2.6, "adamw": 1 / 0.75}
"""2.6 a group: Howard and Ruder (2018). 0.75 a transformer block: Clark et al. (2020), Bao et al. (2022)."""

FLAT = 2.0
"""Rates that grow less than this from the last layer group to the head are those for far images."""
LEFT_ALONE = 1 / 40
"""Of the head's rate: the lowest layer groups that would learn at less are left as they are where rates were lowered.
With MobileNetV2 these are two of five groups and take more than half of the time of a step. On unseen images it was as
good without them: 82.0 instead of 81.2 % (dtd10, 533 images, 180 steps at 0.02), 81.7 instead of 81.5 % (clothing, 333
images, 180 steps at 0.05), one seed each."""
MOST_GENTLER = 6
"""How often rates are lowered at most, see :func:`gentler`."""

SCRATCH_LR = {"sgd": 0.1, "adamw": 1e-3}
"""For all layers of a network with random weights: ten times what layers learn with when they are fine-tuned."""

# SGD scales in proportion to the batch (Goyal et al. 2017), Adam with its square root (Malladi et al. 2022).
BATCH_EXPONENT = {"sgd": 1.0, "adamw": 0.5}

MIN_STEPS, MAX_STEPS, STEPS_PER_ROOT = 200, 4000, 25
SCRATCH_EPOCHS = 60
FOLD_SHARE = 1 / 3
"""Of the steps that the delivered network takes, those of a fold from which its training on all images goes on.
With half of them in each, the network trained on all images was right on 1.0 to 1.9 points fewer unseen images
(ResNet-20, four far tasks, 200 images), and where the probe is kept the fold is all that was spent."""

ANEW_FROM = 100
"""Images from which the last training begins with the probe once more if there is time for all of the steps. Against
going on from the fold, which takes a quarter less time for both, that was right on 1.0, 0.7 and 0.9 points more unseen
images with 200, 800 and 3,000 (ResNet-20, 13, 12 and 9 tasks, standard error of the mean over these 0.4, 0.3 and 0.3),
0.1 points fewer with the embedded backbone (200 images, 11 tasks, 0.4) and 0.2 with 50 (ResNet-20, 0.7). Half as many
steps again after the fold were worth less than beginning anew, three times as many nothing."""
NEARLY_ALL = 0.9
"""... and of the steps that the recipe has for so many images, this share is taken."""

ACCEPTANCE_Z = 0.5
"""Loses up to 0.31 standard errors where fine-tuning is better, and does at most 0.08 of harm where it is not."""

SMALL_DATA = 2000
"""Images below which weights do not decay and BatchNorm keeps its statistics."""
WEIGHT_DECAY = 1e-4
SCRATCH_WEIGHT_DECAY, SCRATCH_LABEL_SMOOTHING = 5e-4, 0.1
"""Zagoruyko and Komodakis (2016), Wide Residual Networks; Szegedy et al. (2016), on the Inception architecture."""
FREEZE_BELOW_BATCH, FREEZE_BELOW_STEPS = 64, 20
SCRATCH_FREEZE_BELOW_BATCH = 8
"""With random weights there are no statistics worth keeping; only of a handful of images they cannot be estimated."""

MOST_MOMENTUM = 0.1
STATISTICS_IMAGES = 2000
"""Running statistics are to average over about as many images ..."""
REMEMBERED = 0.01
"""... and of those the network came with, at most this share is to be left at the end."""

FEW_IMAGES = 200
"""Images below which random crops are milder (how mild is a choice, not a measurement)."""
CROP_SCALE, MILD_CROP_SCALE = 0.5, 0.75
TRIVIAL_FROM = 1000
MIXUP, CUTMIX = 0.1, 1.0
"""From ``SMALL_DATA`` images on: Kolesnikov et al. (2020), Big Transfer; with random weights also Yun et al. (2019)."""

EMA_DECAY, EMA_FROM = 0.99, 100
"""Average over about the last 100 steps, or the last tenth of fewer (see `average`)."""

ALL_FOLDS_BELOW = 100
HOLD_OUT_OF, HOLD_OUT_OF_MANY, MANY_IMAGES = 3, 4, 3000
"""One hold-out is a third of the images, or a quarter of many."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CrossFit:
    """How data are split to compare with the probe: ``n_folds`` folds, of which ``n_used`` are held out in turn.

    ``may_grow``: more of them, if it is in doubt then which is better.
    """

    n_folds: int
    n_used: int
    may_grow: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """The numbers of one fine-tuning.

    ``pretrained``: whether layers begin with weights worth keeping. ``learning_rates``: one a layer group from the
    input, then the head's; 0 is frozen. ``steps``: those of the network that is delivered, of which the fold that it
    began in takes ``fold_steps``. ``check_rates``: they are lowered before training if they are too high for the
    network. ``check_flip``: images are mirrored only once it was seen that their labels allow it. ``mixup``,
    ``cutmix``, ``ema``: 0 is off. ``refit``: with what the last training, on all images, begins: the network of the
    last fold, the probe, or the probe if there is time for all of the steps.
    """

    optimizer: Optimizer
    pretrained: bool
    learning_rates: tuple[float, ...]
    batch_size: int
    steps: int
    fold_steps: int
    warmup_fraction: float
    clip_norm: float
    weight_decay: float
    fresh_head: bool
    freeze_epochs: int
    unfreeze_every: int
    adaptive_rates: bool
    check_rates: bool
    image_scale: float
    min_crop_scale: float
    flip: bool
    check_flip: bool
    trivial_augment: bool
    mixup: float
    cutmix: float
    freeze_batch_norm: bool
    batch_norm_momentum: float
    label_smoothing: float
    ema: float
    precision: AskedPrecision
    acceptance_z: float
    cross_fit: CrossFit
    refit: Refit


def plan_recipe(
    settings: FineTuneSettings, *, n_images: int, n_groups: int, has_layer_norm: bool, pretrained: bool
) -> Recipe:
    """Return the recipe for ``n_images`` and a network with ``n_groups`` layer groups, with or without LayerNorm."""
    refit = choose_refit(settings, n_images=n_images, pretrained=pretrained)
    steps = _or(settings.steps, auto_steps(n_images, settings.batch_size, pretrained=pretrained))
    fold_steps = steps_of_a_fold(steps, refit)
    is_small, fresh = n_images < SMALL_DATA, settings.head == "fresh"
    return Recipe(
        optimizer=choose_optimizer(settings, has_layer_norm=has_layer_norm),
        pretrained=pretrained,
        learning_rates=group_rates(settings, n_groups=n_groups, has_layer_norm=has_layer_norm, pretrained=pretrained),
        batch_size=settings.batch_size,
        steps=steps,
        fold_steps=fold_steps,
        warmup_fraction=settings.warmup_fraction,
        clip_norm=settings.clip_norm,
        weight_decay=_or(settings.weight_decay, auto_weight_decay(n_images, pretrained=pretrained)),
        fresh_head=fresh,
        freeze_epochs=_or(settings.freeze_epochs, 1 if fresh and pretrained else 0),
        unfreeze_every=settings.unfreeze_every,
        adaptive_rates=settings.adaptive_rates,
        check_rates=checks_rates(settings, has_layer_norm=has_layer_norm, pretrained=pretrained),
        image_scale=_or(settings.image_scale, 1.0),
        min_crop_scale=_or(settings.min_crop_scale, CROP_SCALE if n_images >= FEW_IMAGES else MILD_CROP_SCALE),
        flip=_or(settings.flip, True),
        check_flip=settings.flip == "auto",
        trivial_augment=n_images >= TRIVIAL_FROM if settings.augment == "auto" else settings.augment == "trivial",
        mixup=_or(settings.mixup, 0.0 if is_small else MIXUP),
        cutmix=_or(settings.cutmix, 0.0 if is_small or pretrained else CUTMIX),
        freeze_batch_norm=freezes_batch_norm(settings, n_images=n_images, pretrained=pretrained),
        batch_norm_momentum=batch_norm_momentum(settings.batch_size, steps=fold_steps),
        label_smoothing=_or(settings.label_smoothing, 0.0 if pretrained else SCRATCH_LABEL_SMOOTHING),
        ema=_or(settings.ema, EMA_DECAY if steps >= EMA_FROM else 0.0),
        precision=settings.precision,
        acceptance_z=_or(settings.acceptance_z, ACCEPTANCE_Z),
        cross_fit=plan_cross_fit(settings, n_images=n_images),
        refit=refit,
    )


def _or(setting: Number | Literal["auto"], automatic: Number) -> Number:
    return automatic if setting == "auto" else setting


def choose_optimizer(settings: FineTuneSettings, *, has_layer_norm: bool) -> Optimizer:
    """Return the optimizer asked for, else AdamW for networks with LayerNorm and SGD for the others."""
    if settings.optimizer == "auto":
        return "adamw" if has_layer_norm else "sgd"
    return settings.optimizer


def group_rates(
    settings: FineTuneSettings, *, n_groups: int, has_layer_norm: bool, pretrained: bool
) -> tuple[float, ...]:
    """Return the learning rate of each layer group from the input, then the head's; 0 is frozen."""
    kind = choose_optimizer(settings, has_layer_norm=has_layer_norm)
    batch_factor = (settings.batch_size / REFERENCE_BATCH) ** BATCH_EXPONENT[kind]
    head = _or(settings.lr, (HEAD_LR if pretrained else SCRATCH_LR)[kind] * batch_factor)
    automatic = (HEAD_TO_LAST_GROUP[kind], GROUP_TO_GROUP[kind]) if pretrained else (1.0, 1.0)
    first, further = automatic if settings.lr_decay == "auto" else (settings.lr_decay, settings.lr_decay)
    multipliers = settings.group_multipliers or (1.0,) * n_groups
    slowdown = [first * further ** (n_groups - 1 - group) for group in range(n_groups)]
    rates = [head * multiplier / times for multiplier, times in zip(multipliers, slowdown, strict=True)]
    frozen = settings.freeze_groups
    return (*[0.0] * frozen, *rates[frozen:], head)


def checks_rates(settings: FineTuneSettings, *, has_layer_norm: bool, pretrained: bool) -> bool:
    """Say whether single steps tell how high rates may be: where SGD goes on from what a network and a head know.

    Adaptive rates depend on the gradients of every step.
    """
    knows = pretrained and settings.head == "probe"
    if not knows or settings.adaptive_rates or choose_optimizer(settings, has_layer_norm=has_layer_norm) != "sgd":
        return False
    return bool(_or(settings.check_rates, settings.lr == "auto"))


def gentler(recipe: Recipe, times: int) -> Recipe:
    """Return the recipe with rates lowered so many times: at first from far images to near ones, then halved.

    The recipe for far images becomes that for near ones: half at the head, and a step of 2.6 instead of 1.3 from each
    layer group to the one below it. The lowest groups, which SGD would hardly move then, keep their weights.
    """
    if times == 0:
        return recipe
    *groups, head = (rate / 2**times for rate in recipe.learning_rates)
    if groups and head < FLAT * groups[-1]:
        groups = [rate / 2 ** (len(groups) - group) for group, rate in enumerate(groups)]
    if recipe.optimizer == "sgd" and recipe.pretrained:
        n_left = len(list(takewhile(lambda rate: rate < LEFT_ALONE * head, groups[:-1])))
        groups = [0.0] * n_left + groups[n_left:]
    return replace(recipe, learning_rates=(*groups, head))


def lowered(times: int) -> int:
    """Return how often rates are lowered after a training that diverged with rates lowered ``times``."""
    return 1 if times == 0 else min(times + 2, MOST_GENTLER)


def choose_refit(settings: FineTuneSettings, *, n_images: int, pretrained: bool) -> Refit:
    """Return with what the last training begins, if nobody says: from random weights nothing is gained by going on.

    Where steps are few, none of them is spent on a network that is thrown away.
    """
    if settings.refit != "auto":
        return settings.refit
    if not pretrained:
        return "anew"
    usual = auto_steps(n_images, settings.batch_size, pretrained=True)
    few = n_images < ANEW_FROM or _or(settings.steps, usual) < NEARLY_ALL * usual
    return "continue" if few else "as_time_allows"


def steps_of_a_fold(steps: int, refit: Refit) -> int:
    """Return the steps of a fold: a third of those of a network that may go on from it, else as many."""
    return steps if refit == "anew" else max(1, round(FOLD_SHARE * steps))


def steps_on_all(recipe: Recipe, taken: int) -> int:
    """Return the steps of the training on all images, as it goes on if it may: if the folds were cut, it is."""
    left = recipe.steps if recipe.refit == "anew" else recipe.steps - recipe.fold_steps
    return max(1, round(left * taken / recipe.fold_steps))


def auto_steps(n_images: int, batch_size: int, *, pretrained: bool) -> int:
    """Return 25 sqrt(n) within 200 and 4,000 at 32 images a batch; from random weights at least 60 epochs."""
    steps = min(max(STEPS_PER_ROOT * math.sqrt(n_images), MIN_STEPS), MAX_STEPS)
    if not pretrained:
        steps = max(steps, SCRATCH_EPOCHS * n_images / REFERENCE_BATCH)
    return max(1, round(steps * REFERENCE_BATCH / batch_size))


def auto_weight_decay(n_images: int, *, pretrained: bool) -> float:
    """Return how much weights decay when nobody says."""
    if not pretrained:
        return SCRATCH_WEIGHT_DECAY
    return WEIGHT_DECAY if n_images >= SMALL_DATA else 0.0


def freezes_batch_norm(settings: FineTuneSettings, *, n_images: int, pretrained: bool) -> bool:
    """Say whether BatchNorm keeps its statistics: where batches or data are too few to estimate new ones."""
    if settings.batch_norm != "auto":
        return settings.batch_norm == "frozen"
    batch_size = min(settings.batch_size, n_images)
    if not pretrained:
        return batch_size < SCRATCH_FREEZE_BELOW_BATCH
    few_steps = n_images / batch_size < FREEZE_BELOW_STEPS
    return batch_size < FREEZE_BELOW_BATCH or n_images < SMALL_DATA or few_steps


def batch_norm_momentum(batch_size: int, *, steps: int) -> float:
    """Return the share of a new batch in BatchNorm's running statistics.

    The smaller the batch, the more of them are averaged; but short trainings must get away from the old statistics.
    """
    forgetting: float = 1 - REMEMBERED ** (1 / steps)
    return min(MOST_MOMENTUM, max(batch_size / STATISTICS_IMAGES, forgetting))


def plan_cross_fit(settings: FineTuneSettings, *, n_images: int) -> CrossFit:
    """Return how to compare with the probe: in folds where there are few images, else on one hold-out."""
    may_grow = _or(settings.more_folds, settings.folds == "auto")
    match settings.folds:
        case "auto" if n_images < ALL_FOLDS_BELOW:
            return CrossFit(n_folds=3, n_used=3)
        case "auto" | 1:
            n_folds = HOLD_OUT_OF if n_images < MANY_IMAGES else HOLD_OUT_OF_MANY
            return CrossFit(n_folds=n_folds, n_used=1, may_grow=may_grow)
        case n_folds:
            return CrossFit(n_folds=n_folds, n_used=n_folds)
