"""What each strategy takes in seconds, memory and disk, from a profile's measurements."""

from dataclasses import dataclass, replace
from math import ceil

from bottleneck.planner.estimates import plus, times, within
from bottleneck.planner.evidence import Layers
from bottleneck.planner.head_costs import fold_head_seconds, further_head_seconds, head_seconds, signal_seconds
from bottleneck.planner.memory import (
    FLOAT_BYTES,
    in_memory_bytes,
    probe_bytes,
    share_out,
    sizes_of,
    training_bytes,
)
from bottleneck.planner.records import Estimate, Profile, Request
from bottleneck.planner.shapes import (
    TrainingShape,
    finetuning_steps,
    n_held_out,
    steps_of_trainings,
)
from bottleneck.planner.wishes import BATCH_SIZE

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
class Cost:
    """What one strategy takes, from the start of the run to its end."""

    seconds: Estimate
    memory_bytes: int
    disk_bytes: int


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
    ample = sizes.training_bytes + min(shape.batch_size, profile.n_samples) * sizes.train_image_bytes
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
    in_fold, on_all = steps_of_trainings(steps, shape)
    decoding = VIEWS * profile.n_samples * profile.decode_seconds_per_image if _keeps_decoded(request) else 0.0
    before = check_images(profile, shape) * _seconds_of_image(profile, shape) + decoding
    refit = on_all * _seconds_of_step(request, shape)
    all_folds = times(_fold_seconds(request, in_fold, shape), folds)
    return plus(all_folds, within(before, TIME_FACTOR)), within(refit, TIME_FACTOR)


def whole_seconds(request: Request, steps: int, shape: TrainingShape, *, limit: float | None) -> Estimate:
    """Return the time of a run with training, with what follows in doubt or if time is left; no limit shortens it.

    At least that of the folds: where they say that the probe stays, nothing is trained on all images.
    """
    surely, (_, refit) = training_cost(request, steps, shape).seconds, training_seconds(request, steps, shape)
    perhaps = plus(further_seconds(request, steps, shape), anew_seconds(request, steps, shape, limit=limit))
    return replace(plus(surely, perhaps), low=surely.low - refit.low)


def further_seconds(request: Request, steps: int, shape: TrainingShape) -> Estimate:
    """Return the time of the folds that follow if the first hold-out leaves in doubt which is better."""
    if shape.folds > 1 or not shape.may_grow:
        return within(0.0, 1.0)
    n, (in_fold, _) = request.profile.n_samples, steps_of_trainings(steps, shape)
    fold, most = _fold_seconds(request, in_fold, shape), round(n / n_held_out(n, shape.folds)) - 1
    return Estimate(value=FURTHER_FOLDS * fold.value, low=0.0, high=most * fold.high)


def anew_seconds(request: Request, steps: int, shape: TrainingShape, *, limit: float | None) -> Estimate:
    """Return by how much longer the training on all images takes where it begins anew: where all of that fits.

    Fewer steps than there were to be leave no time for it.
    """
    if not shape.begins_anew or steps < finetuning_steps(request):
        return within(0.0, 1.0)
    anew = within(steps_of_trainings(steps, shape)[0] * _seconds_of_step(request, shape), TIME_FACTOR)
    whole = plus(training_cost(request, steps, shape).seconds, further_seconds(request, steps, shape))
    fits = limit is None or whole.value + anew.value <= limit
    certain = limit is None or whole.high + anew.high <= limit
    return Estimate(value=anew.value if fits else 0.0, low=anew.low if certain else 0.0, high=anew.high)


def _fold_seconds(request: Request, in_fold: int, shape: TrainingShape) -> Estimate:
    """Return the time of one fold: its probe, its training, and the scores of what it holds out."""
    profile = request.profile
    held = n_held_out(profile.n_samples, shape.folds)
    trained = in_fold * min(shape.batch_size, max(profile.n_samples - held, 1))
    scored = held * BLEND_POINTS
    decoded = 0 if _keeps_decoded(request) else trained + scored
    seconds = trained * _seconds_of_image(profile, shape) + scored * profile.forward_seconds_per_image
    seconds += decoded * profile.decode_seconds_per_image
    return plus(fold_head_seconds(request), within(seconds, TIME_FACTOR))


def _seconds_of_step(request: Request, shape: TrainingShape) -> float:
    """Return the time of one step, with its images decoded if they are not kept."""
    profile = request.profile
    decoding = 0.0 if _keeps_decoded(request) else profile.decode_seconds_per_image
    return min(shape.batch_size, profile.n_samples) * (_seconds_of_image(profile, shape) + decoding)


def _seconds_of_image(profile: Profile, shape: TrainingShape) -> float:
    """Return the time that a step takes for each of its images."""
    return shape.image_scale**2 * profile.train_seconds_per_image


def check_images(profile: Profile, shape: TrainingShape) -> int:
    """Return the images that count as trained on while it is found out how high rates may be."""
    return CHECK_STEPS * min(shape.batch_size, profile.n_samples) if shape.checks_rates else 0


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
