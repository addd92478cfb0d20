"""What the user has settled about training, so that plans price it and say so."""

from dataclasses import dataclass
from math import inf
from typing import Literal

from bottleneck.errors import wrong_parameter
from bottleneck.planner.checks import check_number, check_whole

BATCH_SIZE = 32
"""The batch that the recipe's learning rates and numbers of steps are stated for."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Wishes:
    """Settings of training that the user chose; ``None`` leaves one to the planner.

    Parameters
    ----------
    batch_size : int
        Images an optimizer step.
    optimizer : {"sgd", "adamw"} or None
    steps : int or None
        Of the network that is delivered.
    lr, lr_decay : float or None
        Rate of the head, and how many times slower each layer group learns than the one above it.
    check_rates : bool or None
        Whether it is found out before training how high rates may be.
    folds : int or None
        Held out in turn; 1 is one hold-out.
    more_folds : bool or None
        Whether further ones follow a hold-out that leaves it in doubt which is better.
    refit : {"continue", "anew"} or None
        Whether the last training goes on from the network of the last fold.
    image_scale : float or None
        Side of training images as a share of that which the backbone sees.
    accept_z : float or None
        Standard deviations by which a network must be better than the probe.

    Raises
    ------
    InvalidInputError
        A value is outside its range.
    """

    batch_size: int = BATCH_SIZE
    optimizer: Literal["sgd", "adamw"] | None = None
    steps: int | None = None
    lr: float | None = None
    lr_decay: float | None = None
    check_rates: bool | None = None
    folds: int | None = None
    more_folds: bool | None = None
    refit: Literal["continue", "anew"] | None = None
    image_scale: float | None = None
    accept_z: float | None = None

    def __post_init__(self) -> None:
        check_whole("Wishes", "batch_size", self.batch_size, low=1)
        for param in ("steps", "folds"):
            if getattr(self, param) is not None:
                check_whole("Wishes", param, getattr(self, param), low=1)
        for param, high in (("lr", inf), ("lr_decay", inf), ("image_scale", 1)):
            if (value := getattr(self, param)) is not None:
                check_number("Wishes", param, value, low=0, high=high)
                if value == 0:
                    raise wrong_parameter("Wishes", param, "a number above 0", value)
        if self.accept_z is not None:
            check_number("Wishes", "accept_z", self.accept_z, low=0)
        for param in ("check_rates", "more_folds"):
            if getattr(self, param) not in (None, True, False) or type(getattr(self, param)) is int:
                raise wrong_parameter("Wishes", param, "None, True or False", getattr(self, param))
        if self.optimizer not in (None, "sgd", "adamw"):
            raise wrong_parameter("Wishes", "optimizer", "None, 'sgd' or 'adamw'", self.optimizer)
        if self.refit not in (None, "continue", "anew"):
            raise wrong_parameter("Wishes", "refit", "None, 'continue' or 'anew'", self.refit)


NO_WISHES = Wishes()
"""Everything is left to the planner."""
