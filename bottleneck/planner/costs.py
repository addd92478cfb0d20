"""What each strategy takes in seconds, memory and disk, from a profile's measurements."""

from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass, replace
from math import ceil, sqrt

from bottleneck.planner.estimates import plus, times, within
from bottleneck.planner.head_costs import fold_head_seconds, further_head_seconds, head_seconds, signal_seconds
from bottleneck.planner.memory import (
    FLOAT_BYTES,
    in_memory_bytes,
    probe_bytes,
    share_out,
    sizes_of,
    training_bytes,
)
from bottleneck.planner.records import Estimate, FineTune, Layers, Profile, Request, Scratch

BATCH_SIZE = 32
"""The batch that the recipe's learning rates and numbers of steps belong to."""
MIN_STEPS, MAX_STEPS, STEPS_PER_ROOT = 200, 4_000, 25
FOLD_SHARE = 1 / 3
"""The recipe: a network takes clip(25 sqrt(n), 200, 4,000) steps, a fixed length without early stopping: a third of
them in a fold, the others, on all images, go on from there, or all of them begin with the probe once more."""
ANEW_FROM = 100
"""The recipe: images from which the latter is done if there is time for it, after as many steps as it has."""
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
CHECK_STEPS = 8
"""Allowance: steps whose time it takes to find out before training how high rates may be (`finetune.rates`)."""
BLEND_POINTS = 5
"""Allowance: networks between probe and fine-tuned one that are scored on the images held out."""
VIEWS, PIXELS_SHARE = 2, 0.25
"""Decoded images are kept, with room to crop and as features see them, if a quarter of the memory holds them."""
TIME_FACTOR = 1.25
"""Allowance: measured rates hold within this factor (an idle machine is steadier, a shared one less so)."""
FURTHER_FOLDS = 0.9
"""How many folds follow the hold-out in the mean, and none at least. Of the 83 fine-tunings with 100 images and more in
the table of cells as it stood (ResNet-20 and embedded backbone) 48 % were decided by one hold-out, 13 % by two, 39 % by
three. The predicted gain did not tell which (AUROC 0.51)."""
CHECKPOINT_COPIES = 2 * 5
"""Weights, up to two moments, a moving average and the network of the last fold, in the last checkpoint and in the one
that is to replace it."""
CHECKPOINT_FACTOR, CHECKPOINT_ROW_BYTES, CHECKPOINT_FIXED_BYTES = 1.05, 100, 256_000
"""Allowance: the head, BatchNorm's statistics, what folds said of each image, and the history."""
KEY_BYTES = 16
ROW_BYTES, SHARD_ROWS, SHARD_BYTES, CACHE_BYTES = 400, 4096, 16_000, 100_000
"""Allowances: beside its features a cached row has a key, a line in the index of files with its path and, while it
is extracted, a claim; a shard of so many rows has a header; a cache has an index, notes and a manifest."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingShape:
    """What a step of training costs, and how many trainings there are beside the final one.

    ``folds`` are held out in turn; 1 is one hold-out. ``fold_share``: of the steps of the network that is delivered,
    those that each fold takes; under 1, it may go on from the last fold. ``may_grow``: further folds follow a hold-out
    that leaves it in doubt which is better. ``begins_anew``: the last training does, if there is time for all of its
    steps. ``image_scale`` is the side of training images as a share of the full one.
    """

    folds: int
    fold_share: float = FOLD_SHARE
    image_scale: float = 1.0
    may_grow: bool = True
    begins_anew: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Cost:
    """What one strategy takes, from the start of the run to its end."""

    seconds: Estimate
    memory_bytes: int
    disk_bytes: int


def recipe_steps(n_samples: int) -> int:
    """Return how many optimizer steps a network takes by the fine-tuning recipe."""
    return min(max(round(STEPS_PER_ROOT * sqrt(n_samples)), MIN_STEPS), MAX_STEPS)


def scratch_steps(n_samples: int) -> int:
    """Return how many optimizer steps training from random weights takes: 60 epochs, and no fewer than fine-tuning."""
    return max(recipe_steps(n_samples), SCRATCH_EPOCHS * n_samples // BATCH_SIZE)


def shape_of(strategy: FineTune | Scratch, profile: Profile) -> TrainingShape:
    """Return the shape of a training with the settings of a strategy."""
    if isinstance(strategy, Scratch):
        return TrainingShape(folds=strategy.folds, fold_share=1.0, may_grow=False)
    return replace(shape_of_finetuning(profile), folds=strategy.folds, image_scale=strategy.image_scale)


def shape_of_finetuning(profile: Profile) -> TrainingShape:
    """Return the recipe's shape: from random weights nothing goes on from a fold."""
    return TrainingShape(
        folds=n_folds(profile.n_samples),
        fold_share=FOLD_SHARE if profile.pretrained else 1.0,
        begins_anew=profile.pretrained and profile.n_samples >= ANEW_FROM,
    )


def n_folds(n_samples: int) -> int:
    """Return how many parts are held out in turn; 1 is a single hold-out."""
    return FOLDS if n_samples < CROSS_FIT_BELOW else 1


def n_held_out(n_samples: int, folds: int) -> int:
    """Return how many images a fold holds out, or the one hold-out."""
    alone = HOLDOUT_SHARE if n_samples < SMALL_HOLDOUT_FROM else SMALL_HOLDOUT_SHARE
    return max(1, round(n_samples * (1 / folds if folds > 1 else alone)))


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
    on_disk, sizes = keeps_features(request), sizes_of(profile)
    held = 0 if on_disk else sizes.features_bytes
    ample = sizes.network_bytes + BATCH_SIZE * sizes.image_bytes + in_memory_bytes(sizes) + held
    return Cost(
        seconds=_probe_seconds(request, layers),
        # Batches become smaller and features are streamed from disk where memory is short: they take what there is.
        memory_bytes=max(probe_bytes(sizes, on_disk=on_disk), min(ample, memory_limit(request))),
        disk_bytes=features_disk_bytes(profile) if on_disk else 0,
    )


def features_disk_bytes(profile: Profile) -> int:
    """Return what the features that the cache misses add to it at most: all layers, whichever a head is fitted on."""
    missing = profile.n_samples - profile.rows_cached
    if not missing:
        return 0
    rows = missing * (profile.feature_bytes_per_image + ROW_BYTES)
    return rows + ceil(missing / SHARD_ROWS) * SHARD_BYTES + CACHE_BYTES


def checkpoints_disk_bytes(profile: Profile) -> int:
    """Return what the checkpoints of a training take at most, while they are there."""
    weights = round(CHECKPOINT_FACTOR * CHECKPOINT_COPIES * FLOAT_BYTES * profile.n_parameters)
    return weights + CHECKPOINT_ROW_BYTES * profile.n_samples + CHECKPOINT_FIXED_BYTES


def keeps_features(request: Request) -> bool:
    """Say whether the cache may take the features; otherwise they are kept in memory, for the process only."""
    limit = request.budget.disk_bytes
    return limit is None or features_disk_bytes(request.profile) <= limit


def keeps_checkpoints(request: Request) -> bool:
    """Say whether checkpoints of a training fit on the disk beside the features."""
    limit, profile = request.budget.disk_bytes, request.profile
    features = features_disk_bytes(profile) if keeps_features(request) else 0
    return limit is None or features + checkpoints_disk_bytes(profile) <= limit


def training_cost(request: Request, steps: int, shape: TrainingShape) -> Cost:
    """Return the cost of the probes, of one training per fold, of scoring them, and of that on all images.

    ``steps`` are those of the network that is delivered.
    """
    profile, probe, sizes = request.profile, probe_cost(request, "all_stages"), sizes_of(request.profile)
    folds, refit = training_seconds(request, steps, shape)
    least = training_bytes(sizes, on_disk=keeps_features(request))
    ample = sizes.training_bytes + BATCH_SIZE * sizes.train_image_bytes
    return Cost(
        seconds=plus(probe.seconds, plus(folds, refit)),
        # A step goes through its batch in parts where memory is short.
        memory_bytes=max(probe.memory_bytes, least, min(ample, memory_limit(request))),
        disk_bytes=probe.disk_bytes + (checkpoints_disk_bytes(profile) if keeps_checkpoints(request) else 0),
    )


def training_seconds(request: Request, steps: int, shape: TrainingShape) -> tuple[Estimate, Estimate]:
    """Return the time of all folds with their probes and scores, and that of the training on all images.

    What follows only if a comparison is in doubt or time is left is not among them (`further_seconds`,
    `anew_seconds`).
    """
    profile, folds = request.profile, shape.folds
    in_fold, on_all = _steps_of_trainings(steps, shape)
    decoding = VIEWS * profile.n_samples * profile.decode_seconds_per_image if _keeps_decoded(request) else 0.0
    before = check_images(profile) * _seconds_of_image(profile, shape) + decoding
    refit = on_all * _seconds_of_step(request, shape)
    all_folds = times(_fold_seconds(request, in_fold, shape), folds)
    return plus(all_folds, within(before, TIME_FACTOR)), within(refit, TIME_FACTOR)


def further_seconds(request: Request, steps: int, shape: TrainingShape) -> Estimate:
    """Return the time of the folds that follow if the first hold-out leaves in doubt which is better."""
    if shape.folds > 1 or not shape.may_grow:
        return within(0.0, 1.0)
    n, (in_fold, _) = request.profile.n_samples, _steps_of_trainings(steps, shape)
    fold, most = _fold_seconds(request, in_fold, shape), round(n / n_held_out(n, shape.folds)) - 1
    return Estimate(value=FURTHER_FOLDS * fold.value, low=0.0, high=most * fold.high)


def anew_seconds(request: Request, steps: int, shape: TrainingShape, *, limit: float | None) -> Estimate:
    """Return by how much longer the training on all images takes where it begins anew: where all of that fits.

    Fewer steps than the recipe has leave no time for it.
    """
    if not shape.begins_anew or steps < recipe_steps(request.profile.n_samples):
        return within(0.0, 1.0)
    anew = within(_steps_of_trainings(steps, shape)[0] * _seconds_of_step(request, shape), TIME_FACTOR)
    whole = plus(training_cost(request, steps, shape).seconds, further_seconds(request, steps, shape))
    fits = limit is None or whole.value + anew.value <= limit
    certain = limit is None or whole.high + anew.high <= limit
    return Estimate(value=anew.value if fits else 0.0, low=anew.low if certain else 0.0, high=anew.high)


def _steps_of_trainings(steps: int, shape: TrainingShape) -> tuple[int, int]:
    """Return the steps of a fold's training, and of that on all images."""
    in_fold = round(shape.fold_share * steps)
    return in_fold, steps - in_fold if in_fold < steps else steps


def _fold_seconds(request: Request, in_fold: int, shape: TrainingShape) -> Estimate:
    """Return the time of one fold: its probe, its training, and the scores of what it holds out."""
    profile, trained = request.profile, in_fold * BATCH_SIZE
    scored = n_held_out(profile.n_samples, shape.folds) * BLEND_POINTS
    decoded = 0 if _keeps_decoded(request) else trained + scored
    seconds = trained * _seconds_of_image(profile, shape) + scored * profile.forward_seconds_per_image
    seconds += decoded * profile.decode_seconds_per_image
    return plus(fold_head_seconds(request), within(seconds, TIME_FACTOR))


def _seconds_of_step(request: Request, shape: TrainingShape) -> float:
    """Return the time of one step, with its images decoded if they are not kept."""
    profile = request.profile
    decoding = 0.0 if _keeps_decoded(request) else profile.decode_seconds_per_image
    return BATCH_SIZE * (_seconds_of_image(profile, shape) + decoding)


def _seconds_of_image(profile: Profile, shape: TrainingShape) -> float:
    """Return the time that a step takes for each of its images."""
    return shape.image_scale**2 * profile.train_seconds_per_image


def check_images(profile: Profile) -> int:
    """Return the images that count as trained on while it is found out how high rates may be.

    Nothing is found out for AdamW or random weights.
    """
    return 0 if profile.has_layer_norm or not profile.pretrained else CHECK_STEPS * BATCH_SIZE


def memory_limit(request: Request) -> int:
    """Return the memory that a run may take: what is free, or less if the user said so."""
    free, allowed = request.profile.memory_available_bytes, request.budget.memory_bytes
    return free if allowed is None else min(free, allowed)


def _keeps_decoded(request: Request) -> bool:
    """Say whether training decodes each image twice, because memory keeps them, or every time it is seen."""
    return 3 * request.profile.image_side**2 * request.profile.n_samples <= _room_for_pixels(request)


def _room_for_pixels(request: Request) -> float:
    """Return the memory that one view of all decoded images may take."""
    room = PIXELS_SHARE * request.profile.memory_available_bytes
    limit = request.budget.memory_bytes
    if limit is None:
        return room
    return min(room, share_out(sizes_of(request.profile), limit, on_disk=keeps_features(request)).pixels / VIEWS)


def _probe_seconds(request: Request, layers: Layers) -> Estimate:
    """Return the time of a probe: what was spent on it if that is known, or the pass and the heads.

    The head on the penultimate layer is in hand after that, and one on all stages is a further one.
    """
    profile, evidence = request.profile, request.evidence
    if evidence is not None and evidence.spent_seconds is not None:
        before = within(evidence.spent_seconds, 1.0)
    else:
        preparation = within(profile.preparation_seconds, 1.0)
        before = plus(plus(preparation, pass_seconds(profile)), heads_seconds(request, "penultimate"))
    return before if layers == "penultimate" else plus(before, further_head_seconds(request))


def heads_seconds(request: Request, layers: Layers) -> Estimate:
    """Return the time of the probes: the head that comes first, further signals, and for all stages another head."""
    first = plus(head_seconds(request), signal_seconds(request.profile))
    return first if layers == "penultimate" else plus(first, further_head_seconds(request))


def pass_seconds(profile: Profile) -> Estimate:
    """Return the time of the feature pass over what the cache misses."""
    missing = profile.n_samples - profile.rows_cached
    return within(missing * (profile.decode_seconds_per_image + profile.forward_seconds_per_image), TIME_FACTOR)
