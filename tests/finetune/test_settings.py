from dataclasses import fields, replace

import pytest

from bottleneck.errors import InvalidInputError
from bottleneck.finetune.settings import FineTuneSettings, check_settings

WRONG = [
    ("lr", 0),
    ("lr", "hot"),
    ("lr_decay", -1.0),
    ("optimizer", "adam"),
    ("batch_size", 0),
    ("batch_size", 8.0),
    ("steps", True),
    ("warmup_fraction", 1.0),
    ("clip_norm", float("inf")),
    ("weight_decay", -0.1),
    ("freeze_groups", 4),
    ("group_multipliers", (1.0, 1.0)),
    ("group_multipliers", (1.0, 1.0, -1.0)),
    ("image_scale", 0),
    ("image_scale", 1.5),
    ("min_crop_scale", 0.0),
    ("min_crop_scale", 1.5),
    ("head", "new"),
    ("freeze_epochs", -1),
    ("unfreeze_every", 0.5),
    ("adaptive_rates", 1),
    ("flip", "yes"),
    ("augment", "auto-augment"),
    ("mixup", -0.1),
    ("cutmix", True),
    ("ema", 1.0),
    ("precision", "float16"),
    ("batch_norm", "eval"),
    ("label_smoothing", 1.0),
    ("acceptance_z", float("nan")),
    ("folds", 0),
]


def test_defaults_are_allowed():
    check_settings(FineTuneSettings(), n_groups=3)


@pytest.mark.parametrize("name, value", WRONG)
def test_wrong_setting_is_named_with_what_is_allowed(name: str, value: object):
    settings = replace(FineTuneSettings(), **{name: value})

    with pytest.raises(InvalidInputError, match=rf"The '{name}' parameter of FineTuneSettings must be .* Got "):
        check_settings(settings, n_groups=3)


def test_every_setting_is_checked():
    nonsense = {field.name: object() for field in fields(FineTuneSettings)}

    for name, value in nonsense.items():
        with pytest.raises(InvalidInputError, match=f"'{name}'"):
            check_settings(replace(FineTuneSettings(), **{name: value}), n_groups=3)
