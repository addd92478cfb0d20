"""How long trainings are, and in how many pieces: the recipe's numbers, or those that the user settled."""

from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass, replace
from math import ceil, sqrt
from typing import Literal

from bottleneck.planner.records import FineTune, Request, Scratch
from bottleneck.planner.wishes import BATCH_SIZE

MIN_STEPS, MAX_STEPS, STEPS_PER_ROOT = 200, 4_000, 25
FOLD_SHARE = 1 / 3
"""The recipe: a network takes clip(25 sqrt(n), 200, 4,000) steps of 32 images, a fixed length without early stopping: a
third of them in a fold, the others, on all images, go on from there, or all of them begin with the probe once more."""
ANEW_FROM, NEARLY_ALL = 100, 0.9
"""The recipe: images from which the latter is done if there is time for it, after this share of its steps and more."""
SCRATCH_EPOCHS = 60
"""The recipe from random weights."""
SHORTEST_FINETUNING = 60
"""Steps of 32 images that are worth a fine-tuning: from the probe, and at high rates, a few go a long way."""
SHORTEST_SHARE = 0.5
"""Assumption: under half of its steps training from random weights is not worth beginning, nor is fine-tuning worth
waiting for where nobody said how long to wait."""
FOLDS, CROSS_FIT_BELOW = 3, 100
"""The recipe: three folds where a few images are held out by each, else one hold-out. In the table of cells (n = 50
and 200, ResNet-20, high rates) one hold-out of a third cost about half a point of accuracy, for half of the time."""
HOLDOUT_SHARE, SMALL_HOLDOUT_SHARE, SMALL_HOLDOUT_FROM = 1 / 3, 0.25, 3_000
"""Share of the images that one hold-out takes, and where a smaller one is enough."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingShape:
    """What a step of training costs, and how many trainings there are beside the final one.

    ``folds`` are held out in turn; 1 is one hold-out. ``fold_share``: of the steps of the network that is delivered,
    those that each fold takes; under 1, it may go on from the last fold. ``may_grow``: further folds follow a hold-out
    that leaves it in doubt which is better. ``begins_anew``: the last training does, if there is time for all of its
    steps. ``image_scale`` is the side of training images as a share of the full one. ``batch_size``: images a step, at
    most. ``checks_rates``: it is found out first how high rates may be.
    """

    folds: int
    fold_share: float = FOLD_SHARE
    image_scale: float = 1.0
    may_grow: bool = True
    begins_anew: bool = False
    batch_size: int = BATCH_SIZE
    checks_rates: bool = True


def recipe_steps(n_samples: int, batch_size: int = BATCH_SIZE) -> int:
    """Return how many optimizer steps a network takes by the fine-tuning recipe."""
    return _in_batches(_reference_steps(n_samples), batch_size)


def finetuning_steps(request: Request) -> int:
    """Return how many optimizer steps fine-tuning takes if there is time: the recipe's, if nobody says."""
    wishes = request.wishes
    return wishes.steps or recipe_steps(request.profile.n_samples, wishes.batch_size)


def scratch_steps(request: Request) -> int:
    """Return how many optimizer steps training from random weights takes: 60 epochs, and no fewer than fine-tuning."""
    wishes, n_samples = request.wishes, request.profile.n_samples
    epochs = SCRATCH_EPOCHS * n_samples / BATCH_SIZE
    return wishes.steps or _in_batches(max(_reference_steps(n_samples), epochs), wishes.batch_size)


def full_steps(request: Request, strategy: FineTune | Scratch) -> int:
    """Return how many optimizer steps a strategy takes if there is time."""
    return finetuning_steps(request) if isinstance(strategy, FineTune) else scratch_steps(request)


def _reference_steps(n_samples: int) -> float:
    return min(max(STEPS_PER_ROOT * sqrt(n_samples), MIN_STEPS), MAX_STEPS)


def _in_batches(steps: float, batch_size: int) -> int:
    """Return as many steps as see the images of so many of the recipe's."""
    return max(1, round(steps * BATCH_SIZE / batch_size))


def shape_of(strategy: FineTune | Scratch, request: Request) -> TrainingShape:
    """Return the shape of a training with the settings of a strategy."""
    if isinstance(strategy, FineTune):
        return replace(shape_of_finetuning(request), folds=strategy.folds, image_scale=strategy.image_scale)
    return replace(shape_of_scratch(request), folds=strategy.folds)


def shape_of_finetuning(request: Request) -> TrainingShape:
    """Return the shape of fine-tuning if there is time: from random weights nothing goes on from a fold."""
    profile, wishes = request.profile, request.wishes
    refit = how_refitted(request, pretrained=profile.pretrained)
    grows = wishes.folds is None if wishes.more_folds is None else wishes.more_folds
    checks = wishes.check_rates
    return TrainingShape(
        folds=_folds_of(request),
        fold_share=1.0 if refit == "anew" else FOLD_SHARE,
        image_scale=wishes.image_scale or 1.0,
        may_grow=grows,
        begins_anew=refit == "as_time_allows",
        batch_size=wishes.batch_size,
        # AdamW's rates depend on all gradients, and with random weights there is nothing to forget.
        checks_rates=profile.pretrained and not trains_with_adamw(request) if checks is None else checks,
    )


def shape_of_scratch(request: Request) -> TrainingShape:
    """Return the shape of training from random weights if there is time."""
    wishes = request.wishes
    return TrainingShape(
        folds=_folds_of(request),
        fold_share=1.0 if how_refitted(request, pretrained=False) == "anew" else FOLD_SHARE,
        image_scale=wishes.image_scale or 1.0,
        may_grow=wishes.more_folds is True,
        batch_size=wishes.batch_size,
        checks_rates=False,
    )


def how_refitted(request: Request, *, pretrained: bool) -> Literal["continue", "anew", "as_time_allows"]:
    """Return with what the last training begins: the last fold's network, the probe, or that if there is time."""
    wishes, n_samples = request.wishes, request.profile.n_samples
    if wishes.refit is not None:
        return wishes.refit
    if not pretrained:
        return "anew"
    few = finetuning_steps(request) < NEARLY_ALL * recipe_steps(n_samples, wishes.batch_size)
    return "continue" if few or n_samples < ANEW_FROM else "as_time_allows"


def trains_with_adamw(request: Request) -> bool:
    """Say whether networks are trained by AdamW, at rates of its own, rather than by SGD."""
    asked = request.wishes.optimizer
    return request.profile.has_layer_norm if asked is None else asked == "adamw"


def n_folds(n_samples: int) -> int:
    """Return how many parts the recipe holds out in turn; 1 is a single hold-out."""
    return FOLDS if n_samples < CROSS_FIT_BELOW else 1


def _folds_of(request: Request) -> int:
    """Return how many parts are held out in turn: no more than a class has images."""
    profile, asked = request.profile, request.wishes.folds
    return n_folds(profile.n_samples) if asked is None else min(asked, profile.largest_class)


def n_held_out(n_samples: int, folds: int) -> int:
    """Return how many images a fold holds out, or the one hold-out."""
    alone = HOLDOUT_SHARE if n_samples < SMALL_HOLDOUT_FROM else SMALL_HOLDOUT_SHARE
    return max(1, round(n_samples * (1 / folds if folds > 1 else alone)))


def steps_of_trainings(steps: int, shape: TrainingShape) -> tuple[int, int]:
    """Return the steps of a fold's training, and of that on all images."""
    in_fold = max(1, round(shape.fold_share * steps))
    return in_fold, steps - in_fold if in_fold < steps else steps


def affordable_steps(shortest: int, full: int, limit: float | None, seconds: Callable[[int], float]) -> int:
    """Return the most steps up to ``full`` that take at most ``limit`` seconds, and no fewer than ``shortest``."""
    choices = range(shortest, full + 1)
    fitting = len(choices) if limit is None else bisect_right(choices, limit, key=seconds)
    return choices[max(fitting - 1, 0)]


def shortest_finetuning(full: int, batch_size: int = BATCH_SIZE) -> int:
    """Return the fewest steps worth taking of a fine-tuning of ``full`` steps by who has little time for it."""
    return min(full, ceil(SHORTEST_FINETUNING * BATCH_SIZE / batch_size))


def half_the_recipe(full: int, batch_size: int = BATCH_SIZE) -> int:
    """Return the fewest steps worth taking of ``full`` steps from random weights, or unasked."""
    return min(full, max(_in_batches(MIN_STEPS, batch_size), round(full * SHORTEST_SHARE)))
