"""Every knob of fine-tuning, and the check that what was asked for makes sense."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Literal

from bottleneck.errors import wrong_parameter

Auto = Literal["auto"]


@dataclass(frozen=True, kw_only=True, slots=True)
class FineTuneSettings:
    """How to fine-tune. Every "auto" becomes a number through `plan_recipe`, from facts about the data and network.

    Attributes
    ----------
    lr : float or "auto"
        Learning rate of the head; layer groups below it learn more slowly. "auto": 0.05 with SGD and 0.001 with
        AdamW at 32 images a batch, scaled with the batch; from random weights 0.1 and 0.001.
    lr_decay : float or "auto"
        How many times slower each layer group learns than the one above it (1: one rate for all).
        "auto": 2.6 with SGD [1]_; with AdamW 10 between the head and the last group, then 1 / 0.75;
        1 from random weights.
    optimizer : "auto", "sgd" or "adamw"
        SGD with Nesterov momentum 0.9, or AdamW. "auto": AdamW for networks with LayerNorm (transformers, ConvNeXt).
    batch_size : int
        Images an optimizer step.
    steps : int or "auto"
        Optimizer steps that the delivered network takes: a third of them in each fold, at least one, and the rest on
        all images where it goes on from the last fold, or all once more (see ``refit``); with "anew" and from random
        weights all of them in each fold, too. "auto": 25 sqrt(n_samples) within 200 and 4,000; from random weights at
        least 60 epochs.
    warmup_fraction : float
        Share of the steps in which the rates rise from 0; then they fall along a cosine to 0.
    clip_norm : float
        Largest norm of the gradient.
    weight_decay : float or "auto"
        Never applied to norms and biases. "auto": 0 below 2,000 images, then 1e-4; from random weights 5e-4.
    freeze_groups : int
        How many layer groups, counted from the input, stay as they are.
    head : "probe" or "fresh"
        What training starts from: the fitted probe, or a head that knows nothing yet.
    freeze_epochs : int or "auto"
        Epochs at the beginning in which only the head learns. "auto": 1 with a fresh head, else 0.
    unfreeze_every : int
        After these a further layer group begins to learn every so many epochs, the last one first [1]_; 0: all at once.
    adaptive_rates : bool
        Multiply the rate of each layer by 1 + log(1 + 1 / norm of its gradient) [2]_: where gradients are small, in
        shallow layers mostly, learning is faster. For training from random weights.
    check_rates : bool or "auto"
        Before training, lower the rates until one full step on a batch no longer raises its loss much; the lowest layer
        groups, which would hardly learn then, are left as they are. With SGD, from a fitted probe, without
        ``adaptive_rates``. "auto": unless ``lr`` is given.
    group_multipliers : tuple of float or None
        One factor on the learning rate of each layer group, from the input; None: all 1.
    image_scale : float or "auto"
        Side of training images as a share of the side that features are extracted at, rounded to 32 pixels: a smaller
        one is faster, and what is learned serves the full side too [6]_. "auto": 1, or what the plan says.
    min_crop_scale : float or "auto"
        Smallest share of the image that a random crop keeps; 1 switches crops off.
        "auto": 0.5, and 0.75 below 200 images.
    flip : bool or "auto"
        Mirror half of the training images. "auto": not in the first fold; then unless the network of that fold, which
        has seen no mirror images, recognises these clearly less often, because left and right tell the classes apart.
        Below 100 images probes tell that before the first fold.
    augment : "auto", "crop" or "trivial"
        Crops and flips only, or TrivialAugment after them: one random change of geometry or colour an image [3]_.
        "auto": "trivial" from 1,000 images on.
    mixup, cutmix : float or "auto"
        Blend pairs of images, or paste a part of one into another, with shares from Beta(value, value) [4]_ [5]_;
        0 switches it off. With both, each step does one of them. "auto": off below 2,000 images; then mixup 0.1, and
        1 for cutmix where training starts from random weights.
    batch_norm : "auto", "frozen" or "train"
        Whether BatchNorm keeps its statistics (its scale and shift learn in both cases). "auto": frozen below
        64 images a batch, 2,000 images or 20 steps an epoch; from random weights only below 8 images a batch.
    label_smoothing : float or "auto"
        Share of the target that is spread over all classes. "auto": 0, and 0.1 from random weights.
    ema : float or "auto"
        Decay of the running average of the weights that is delivered in place of the last ones; 0: the last ones.
        "auto": 0.99 from 100 steps of the delivered network on.
    precision : "auto", "float32" or "bfloat16"
        Arithmetic of the training steps; weights are always float32. "auto": bfloat16 where the hardware multiplies in
        it, and the network's first predictions stay the same.
    acceptance_z : float or "auto"
        The gain over the probe must exceed this many of its standard deviations. "auto": 0.25 where it is weighed
        against what the planner expects (1.64 if that is under a point), else 0.5; 1.64 is for those who want to be
        sure. Where it does not, the network a quarter of the way from the probe is asked the same, and to be right on
        more images.
    folds : int or "auto"
        Folds of the comparison with the probe; 1 is one hold-out, of a third of the images or, from 3,000 on, of a
        quarter. "auto": 3 folds below 100 images, then one hold-out.
    more_folds : bool or "auto"
        While one hold-out leaves it in doubt which is better, hold out another part of the images, with a training of
        its own, if there is time for it and for half as many steps on all images; at most until each was held out.
        "auto": unless ``folds`` is given.
    refit : "auto", "continue" or "anew"
        How the network that is delivered is trained on all images: beginning with that of the last fold, which has
        learned from most of them, or once more with the probe. "auto": "anew" from random weights; else "continue"
        below 100 images and where ``steps`` are fewer than "auto" takes; else after the same short folds once more
        with the probe if there is time for all of the steps, which was better, and "continue" if not.

    References
    ----------
    .. [1] Howard and Ruder (2018), Universal Language Model Fine-tuning for Text Classification, sections 3.2 and 3.3.
    .. [2] Singh et al. (2015), Layer-Specific Adaptive Learning Rates for Deep Networks, equation 6.
    .. [3] Mueller and Hutter (2021), TrivialAugment: Tuning-free Yet State-of-the-Art Data Augmentation.
    .. [4] Zhang et al. (2018), mixup: Beyond Empirical Risk Minimization.
    .. [5] Yun et al. (2019), CutMix: Regularization Strategy to Train Strong Classifiers with Localizable Features.
    .. [6] Touvron et al. (2019), Fixing the train-test resolution discrepancy.
    """

    lr: float | Auto = "auto"
    lr_decay: float | Auto = "auto"
    optimizer: Literal["auto", "sgd", "adamw"] = "auto"
    batch_size: int = 32
    steps: int | Auto = "auto"
    warmup_fraction: float = 0.1
    clip_norm: float = 1.0
    weight_decay: float | Auto = "auto"
    freeze_groups: int = 0
    head: Literal["probe", "fresh"] = "probe"
    freeze_epochs: int | Auto = "auto"
    unfreeze_every: int = 0
    adaptive_rates: bool = False
    check_rates: bool | Auto = "auto"
    group_multipliers: tuple[float, ...] | None = None
    image_scale: float | Auto = "auto"
    min_crop_scale: float | Auto = "auto"
    flip: bool | Auto = "auto"
    augment: Literal["auto", "crop", "trivial"] = "auto"
    mixup: float | Auto = "auto"
    cutmix: float | Auto = "auto"
    batch_norm: Literal["auto", "frozen", "train"] = "auto"
    label_smoothing: float | Auto = "auto"
    ema: float | Auto = "auto"
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    acceptance_z: float | Auto = "auto"
    folds: int | Auto = "auto"
    more_folds: bool | Auto = "auto"
    refit: Literal["auto", "continue", "anew"] = "auto"


def check_settings(settings: FineTuneSettings, *, n_groups: int) -> None:
    """Raise on the first setting that is not allowed, for a network with ``n_groups`` layer groups.

    Raises
    ------
    InvalidInputError
        Says which setting, what is allowed, and what came.
    """
    rules: tuple[tuple[str, bool, str], ...] = (
        ("lr", _auto_or(settings.lr, _positive), "'auto' or a positive number"),
        ("lr_decay", _auto_or(settings.lr_decay, _positive), "'auto' or a positive number"),
        ("optimizer", settings.optimizer in ("auto", "sgd", "adamw"), "'auto', 'sgd' or 'adamw'"),
        ("batch_size", _whole(settings.batch_size, 1), "a positive integer"),
        ("steps", _auto_or(settings.steps, lambda value: _whole(value, 1)), "'auto' or a positive integer"),
        ("warmup_fraction", _share(settings.warmup_fraction), "a number from 0 to below 1"),
        ("clip_norm", _positive(settings.clip_norm), "a positive number"),
        ("weight_decay", _auto_or(settings.weight_decay, _not_negative), "'auto' or a number of at least 0"),
        ("freeze_groups", _whole(settings.freeze_groups, 0, n_groups), f"an integer from 0 to {n_groups}"),
        ("head", settings.head in ("probe", "fresh"), "'probe' or 'fresh'"),
        ("freeze_epochs", _auto_or(settings.freeze_epochs, _count), "'auto' or an integer of at least 0"),
        ("unfreeze_every", _count(settings.unfreeze_every), "an integer of at least 0"),
        ("adaptive_rates", _flag(settings.adaptive_rates), "True or False"),
        ("check_rates", _auto_or(settings.check_rates, _flag), "'auto', True or False"),
        (
            "group_multipliers",
            settings.group_multipliers is None or _factors(settings.group_multipliers, n_groups),
            f"None or {n_groups} numbers of at least 0, one for each layer group from the input",
        ),
        *(
            (name, _auto_or(getattr(settings, name), _part), "'auto' or a number above 0 up to 1")
            for name in ("image_scale", "min_crop_scale")
        ),
        ("flip", _auto_or(settings.flip, _flag), "'auto', True or False"),
        ("augment", settings.augment in ("auto", "crop", "trivial"), "'auto', 'crop' or 'trivial'"),
        ("mixup", _auto_or(settings.mixup, _not_negative), "'auto' or a number of at least 0"),
        ("cutmix", _auto_or(settings.cutmix, _not_negative), "'auto' or a number of at least 0"),
        ("batch_norm", settings.batch_norm in ("auto", "frozen", "train"), "'auto', 'frozen' or 'train'"),
        ("label_smoothing", _auto_or(settings.label_smoothing, _share), "'auto' or a number from 0 to below 1"),
        ("ema", _auto_or(settings.ema, _share), "'auto' or a number from 0 to below 1"),
        ("precision", settings.precision in ("auto", "float32", "bfloat16"), "'auto', 'float32' or 'bfloat16'"),
        ("acceptance_z", _auto_or(settings.acceptance_z, _not_negative), "'auto' or a number of at least 0"),
        ("folds", _auto_or(settings.folds, lambda value: _whole(value, 1)), "'auto' or a positive integer"),
        ("more_folds", _auto_or(settings.more_folds, _flag), "'auto', True or False"),
        ("refit", settings.refit in ("auto", "continue", "anew"), "'auto', 'continue' or 'anew'"),
    )
    for name, holds, allowed in rules:
        if not holds:
            raise wrong_parameter("FineTuneSettings", name, allowed, getattr(settings, name))


def _auto_or(value: object, allowed: Callable[..., bool]) -> bool:
    return value == "auto" or allowed(value)


def _positive(value: object) -> bool:
    return _not_negative(value) and value != 0


def _not_negative(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and 0 <= float(value) < float("inf")


def _share(value: object) -> bool:
    return _not_negative(value) and value < 1  # type: ignore[operator]  # it is a number


def _part(value: object) -> bool:
    return _positive(value) and value <= 1  # type: ignore[operator]  # it is a number


def _count(value: object) -> bool:
    return _whole(value, 0)


def _flag(value: object) -> bool:
    return isinstance(value, bool)


def _whole(value: object, least: int, most: float = float("inf")) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool) and least <= int(value) <= most


def _factors(value: object, n_groups: int) -> bool:
    return isinstance(value, Sequence) and len(value) == n_groups and all(map(_not_negative, value))
