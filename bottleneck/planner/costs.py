"""What each strategy takes in seconds, memory and disk, from a profile's measurements."""

from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass
from math import sqrt

from bottleneck.planner.records import Estimate, Layers, Request

BATCH_SIZE = 32
"""The batch that the recipe's learning rates and numbers of steps belong to."""
MIN_STEPS, MAX_STEPS, STEPS_PER_ROOT = 300, 5_000, 60
"""The recipe: steps = clip(60 sqrt(n), 300, 5,000), a fixed length without early stopping."""
MAX_EPOCHS, SHORT_RUNS_ABOVE = 60, 300
"""The recipe: at most 60 epochs above n = 300."""
SHORTEST_FINETUNING = 60
"""Steps of 32 images that are worth a fine-tuning: from the probe, and at higher rates, a few go a long way."""
SHORTEST_SHARE = 0.5
"""Assumption: under half of its steps training from random weights is not worth beginning, nor is fine-tuning worth
waiting for where nobody said how long to wait."""
FOLDS, CROSS_FIT_BELOW, HOLDOUT_SHARE = 3, 2_000, 0.25
"""The recipe: three folds under 1,000 images, one hold-out of a quarter from 3,000 on. Between them: the middle."""
BLEND_POINTS = 5
"""Allowance: networks between probe and fine-tuned one that are scored on the images held out."""
VIEWS, PIXELS_SHARE = 2, 0.25
"""Decoded images are kept, with room to crop and as features see them, if a quarter of the memory holds them."""
TIME_FACTOR = 1.25
"""Allowance: measured rates hold within this factor (an idle machine is steadier, a shared one less so)."""
HEAD_FACTOR = 3.0
"""Allowance: a head's time is a guess within this factor until the head has been fitted."""
SCREEN_SECONDS = 3 * 3.5e-10
"""Three decompositions, one for each normalisation; seconds / (n d min(n, d)) seen on one core (numpy SVD, float32)."""
PATH_SECONDS = 2_000 * 2.5e-10
"""10 Cs x 6 fits x some 30 passes over the features; seconds / (n d k) of a pass seen on one core (float32 L-BFGS)."""
FLOAT_BYTES = 4
TRAINING_COPIES = 5
"""Weights, their gradient, the optimizer's momentum, their moving average, and the probe's weights, which the blend
goes back to."""
CHECKPOINT_COPIES = 2
"""Weights and momentum."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingShape:
    """What a step of training costs, and how many trainings there are beside the final one.

    ``folds`` are held out in turn; 1 is one hold-out. ``image_scale`` is the side of training images as a share of the
    full one.
    """

    folds: int
    image_scale: float = 1.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Cost:
    """What one strategy takes, from the start of the run to its end."""

    seconds: Estimate
    memory_bytes: int
    disk_bytes: int


def recipe_steps(n_samples: int) -> int:
    """Return how many optimizer steps the fine-tuning recipe takes."""
    steps = min(max(round(STEPS_PER_ROOT * sqrt(n_samples)), MIN_STEPS), MAX_STEPS)
    return min(steps, _epochs(n_samples)) if n_samples > SHORT_RUNS_ABOVE else steps


def scratch_steps(n_samples: int) -> int:
    """Return how many optimizer steps training from random weights takes: all the epochs that the recipe allows."""
    return max(recipe_steps(n_samples), _epochs(n_samples))


def n_folds(n_samples: int) -> int:
    """Return how many parts are held out in turn; 1 is a single hold-out."""
    return FOLDS if n_samples < CROSS_FIT_BELOW else 1


def affordable_steps(shortest: int, full: int, limit: float | None, seconds: Callable[[int], float]) -> int:
    """Return the most steps up to ``full`` that take at most ``limit`` seconds, and no fewer than ``shortest``."""
    choices = range(shortest, full + 1)
    fitting = len(choices) if limit is None else bisect_right(choices, limit, key=seconds)
    return choices[max(fitting - 1, 0)]


def shortest_finetuning(full: int) -> int:
    """Return the fewest steps worth taking of a fine-tuning of ``full`` steps by who has little time for it."""
    return min(full, SHORTEST_FINETUNING)


def half_the_recipe(full: int) -> int:
    """Return the fewest steps worth taking of ``full`` steps from random weights, or unasked."""
    return min(full, max(MIN_STEPS, round(full * SHORTEST_SHARE)))


def probe_cost(request: Request, layers: Layers) -> Cost:
    """Return the cost of the feature pass over what the cache misses, and of the head."""
    profile = request.profile
    width = profile.n_features if layers == "penultimate" else profile.n_features_all_stages
    missing = profile.n_samples - profile.rows_cached
    weights = FLOAT_BYTES * profile.n_parameters
    room = max(memory_limit(request) - weights, 0)
    return Cost(
        seconds=_probe_seconds(request, width),
        # A head streams its features from disk when they do not fit: it takes the room that there is.
        memory_bytes=weights + min(FLOAT_BYTES * profile.n_samples * width, room),
        disk_bytes=missing * round(profile.feature_bytes_per_image * width / profile.n_features_all_stages),
    )


def training_cost(request: Request, steps: int, shape: TrainingShape) -> Cost:
    """Return the cost of the probes, of one training run per fold, of scoring them, and of the final run."""
    profile, folds = request.profile, shape.folds
    held_out = profile.n_samples if folds > 1 else round(HOLDOUT_SHARE * profile.n_samples)
    trained, scored = (folds + 1) * steps * BATCH_SIZE, held_out * BLEND_POINTS
    an_image = shape.image_scale**2 * profile.train_seconds_per_image
    network = trained * an_image + scored * profile.forward_seconds_per_image
    decoded = _decoded_images(request, trained + scored) * profile.decode_seconds_per_image
    probe = probe_cost(request, "all_stages")
    fold_heads = _times(_head_seconds(request, profile.n_features_all_stages), folds)
    weights = FLOAT_BYTES * profile.n_parameters
    batch = BATCH_SIZE * profile.train_bytes_per_image
    return Cost(
        seconds=_plus(_plus(probe.seconds, fold_heads), _within(network + decoded, TIME_FACTOR)),
        memory_bytes=max(probe.memory_bytes, TRAINING_COPIES * weights + batch),
        disk_bytes=probe.disk_bytes + CHECKPOINT_COPIES * weights,
    )


def memory_limit(request: Request) -> int:
    """Return the memory that a run may take: what is free, or less if the user said so."""
    free, allowed = request.profile.memory_available_bytes, request.budget.memory_bytes
    return free if allowed is None else min(free, allowed)


def _decoded_images(request: Request, seen: int) -> int:
    """Return how many images training decodes: each one twice if memory keeps them, else every time it is seen."""
    pixels = 3 * request.profile.image_side**2 * request.profile.n_samples
    return VIEWS * request.profile.n_samples if pixels <= PIXELS_SHARE * memory_limit(request) else seen


def _epochs(n_samples: int) -> int:
    """Return the steps of the most epochs that the recipe allows."""
    return MAX_EPOCHS * n_samples // BATCH_SIZE


def _probe_seconds(request: Request, width: int) -> Estimate:
    """Return the time of a probe: what was spent on it if that is known, or the pass and the head.

    The head on the penultimate layer is in hand after that; one on more features takes as much longer as they are more.
    """
    profile, evidence = request.profile, request.evidence
    if evidence is not None and evidence.spent_seconds is not None:
        further = 0.0 if width == profile.n_features else evidence.head_seconds * width / profile.n_features
        return _within(evidence.spent_seconds + further, 1.0)
    missing = profile.n_samples - profile.rows_cached
    one_pass = missing * (profile.decode_seconds_per_image + profile.forward_seconds_per_image)
    return _plus(_within(one_pass, TIME_FACTOR), _head_seconds(request, width))


def _head_seconds(request: Request, width: int) -> Estimate:
    """Return the time of screening penalties and fitting a head on features of this width."""
    profile, evidence = request.profile, request.evidence
    if evidence is not None:
        return _within(evidence.head_seconds, 1.0)
    values = profile.n_samples * width
    screen = SCREEN_SECONDS * values * min(profile.n_samples, width)
    return _within(screen + PATH_SECONDS * values * profile.n_classes, HEAD_FACTOR)


def _within(seconds: float, factor: float) -> Estimate:
    """Return an estimate that may be off by a factor."""
    return Estimate(value=seconds, low=seconds / factor, high=seconds * factor)


def _plus(a: Estimate, b: Estimate) -> Estimate:
    """Add two estimates, bound by bound."""
    return Estimate(value=a.value + b.value, low=a.low + b.low, high=a.high + b.high)


def _times(a: Estimate, factor: int) -> Estimate:
    """Multiply an estimate."""
    return Estimate(value=a.value * factor, low=a.low * factor, high=a.high * factor)
