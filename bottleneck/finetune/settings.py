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
        Learning rate of the head; layer groups below it learn more slowly. "auto": 0.01 with SGD and 0.001 with
        AdamW at 32 images a batch, scaled with the batch.
    lr_decay : float or "auto"
        How many times slower each layer group learns than the one above it (1: one rate for all).
        "auto": 2.6 with SGD [1]_; with AdamW 10 between the head and the last group, then 1 / 0.75.
    optimizer : "auto", "sgd" or "adamw"
        SGD with Nesterov momentum 0.9, or AdamW. "auto": AdamW for networks with LayerNorm (transformers, ConvNeXt).
    batch_size : int
        Images an optimizer step.
    steps : int or "auto"
        Optimizer steps. "auto": 60 sqrt(n_samples) within 300 and 5,000, and at most 60 epochs above 300 images.
    warmup_fraction : float
        Share of the steps in which the rates rise from 0; then they fall along a cosine to 0.
    clip_norm : float
        Largest norm of the gradient.
    weight_decay : float or "auto"
        Never applied to norms and biases. "auto": 0 below 2,000 images, then 1e-4.
    freeze_groups : int
        How many layer groups, counted from the input, stay as they are.
    group_multipliers : tuple of float or None
        One factor on the learning rate of each layer group, from the input; None: all 1.
    min_crop_scale : float or "auto"
        Smallest share of the image that a random crop keeps; 1 switches crops off.
        "auto": 0.5, and 0.75 below 200 images.
    flip : bool
        Mirror half of the training images. Switch it off where left and right tell classes apart.
    batch_norm : "auto", "frozen" or "train"
        Whether BatchNorm keeps its statistics (its scale and shift learn in both cases). "auto": frozen below
        64 images a batch, 2,000 images or 20 steps an epoch.
    label_smoothing : float
        Share of the target that is spread over all classes.
    acceptance_z : float or "auto"
        The gain over the probe must exceed this many of its standard errors. 0.5 loses least on average;
        1.64 is for those who want to be sure.
    folds : int or "auto"
        Folds of the comparison with the probe; 1 is one hold-out of a quarter. "auto": 3 folds below 1,000
        images, two of three up to 3,000, then one hold-out.

    References
    ----------
    .. [1] Howard and Ruder (2018), Universal Language Model Fine-tuning for Text Classification, section 3.2.
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
    group_multipliers: tuple[float, ...] | None = None
    min_crop_scale: float | Auto = "auto"
    flip: bool = True
    batch_norm: Literal["auto", "frozen", "train"] = "auto"
    label_smoothing: float = 0.0
    acceptance_z: float | Auto = "auto"
    folds: int | Auto = "auto"


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
        ("warmup_fraction", _between(settings.warmup_fraction, 0, 1), "a number from 0 to below 1"),
        ("clip_norm", _positive(settings.clip_norm), "a positive number"),
        ("weight_decay", _auto_or(settings.weight_decay, _not_negative), "'auto' or a number of at least 0"),
        ("freeze_groups", _whole(settings.freeze_groups, 0, n_groups), f"an integer from 0 to {n_groups}"),
        (
            "group_multipliers",
            settings.group_multipliers is None or _factors(settings.group_multipliers, n_groups),
            f"None or {n_groups} numbers of at least 0, one for each layer group from the input",
        ),
        (
            "min_crop_scale",
            _auto_or(settings.min_crop_scale, lambda value: _positive(value) and value <= 1),
            "'auto' or a number above 0 up to 1",
        ),
        ("flip", isinstance(settings.flip, bool), "True or False"),
        ("batch_norm", settings.batch_norm in ("auto", "frozen", "train"), "'auto', 'frozen' or 'train'"),
        ("label_smoothing", _between(settings.label_smoothing, 0, 1), "a number from 0 to below 1"),
        ("acceptance_z", _auto_or(settings.acceptance_z, _not_negative), "'auto' or a number of at least 0"),
        ("folds", _auto_or(settings.folds, lambda value: _whole(value, 1)), "'auto' or a positive integer"),
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


def _between(value: object, low: float, below: float) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and low <= float(value) < below


def _whole(value: object, least: int, most: float = float("inf")) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool) and least <= int(value) <= most


def _factors(value: object, n_groups: int) -> bool:
    return isinstance(value, Sequence) and len(value) == n_groups and all(map(_not_negative, value))
