"""From a fitted probe to a fine-tuned classifier, or back to the very same probe: never worse."""

import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.utils.class_weight import compute_class_weight

from bottleneck.backbones import Backbone
from bottleneck.errors import FallbackWarning
from bottleneck.finetune.compare import Comparison, Expected, HeldOut, compare
from bottleneck.finetune.crossfit import CrossFitted, cross_fit, whole_hand_off
from bottleneck.finetune.delivery import best_network
from bottleneck.finetune.groups import recipe_for
from bottleneck.finetune.identity import digest, with_checkpoints
from bottleneck.finetune.job import EpochRecord, Job, open_job
from bottleneck.finetune.memory import MicroBatch
from bottleneck.finetune.mirror import MirrorCheck, mirroring_before
from bottleneck.finetune.path import check_time_left
from bottleneck.finetune.probe import Probe, ProbeFeatures, codes_of, take_rows
from bottleneck.finetune.probe_network import as_backbone, as_head
from bottleneck.finetune.ranks import ALONE, Ranks
from bottleneck.finetune.recipe import Recipe, gentler
from bottleneck.finetune.settings import FineTuneSettings
from bottleneck.finetune.stops import FAILURES, RESUMABLE, STOPS, reason_of
from bottleneck.heads import LogisticHead
from bottleneck.images import ImageSource, subset
from bottleneck.progress import ProgressCallback, silent

GOES_ON = "The same call goes on from the checkpoint in {}."


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class FineTuneResult:
    """What fine-tuning gave: a tuned backbone and head if these are better, else the ones it was given.

    Attributes
    ----------
    accepted : bool
    backbone : Backbone
    head : LogisticHead
        For the features of this backbone.
    history : tuple of EpochRecord
        Every epoch of every training, also of one that failed.
    comparison : Comparison or None
        With the probe, out of sample; None if fine-tuning was stopped.
    message : str
        What happened, with its numbers.
    mirror : MirrorCheck or None
        Why training images were mirrored or not; None where settings say it, or fine-tuning was stopped before.
    resumable : bool
        Whether fine-tuning was stopped and the same call goes on from a checkpoint.
    fold_seconds, refit_seconds : float
        What the folds took, with what comes before them, and the training on all images: of this call, 0 for what it
        did not come to.
    """

    accepted: bool
    backbone: Backbone
    head: LogisticHead
    history: tuple[EpochRecord, ...]
    comparison: Comparison | None
    message: str
    mirror: MirrorCheck | None
    resumable: bool = False
    fold_seconds: float = 0.0
    refit_seconds: float = 0.0


def finetune(
    source: ImageSource,
    labels: NDArray[np.generic],
    *,
    backbone: Backbone,
    head: LogisticHead,
    features: ProbeFeatures,
    settings: FineTuneSettings = FineTuneSettings(),  # noqa: B008  frozen, so one for all is safe
    sample_weight: NDArray[np.float64] | None = None,
    groups: NDArray[np.intp] | None = None,
    seed: int = 0,
    device: torch.device = torch.device("cpu"),  # noqa: B008  immutable
    workers: int = 0,
    memory_limit: int | None = None,
    images_at_once: int | None = None,
    deadline: float | None = None,
    progress: ProgressCallback = silent,
    clock: Callable[[], float] = time.monotonic,
    ranks: Ranks = ALONE,
    checkpoint_dir: str | Path | None = None,
    expected: Expected | None = None,
) -> FineTuneResult:
    """Fine-tune from a fitted probe, and keep the result only if it is better on images that neither has seen.

    In each fold a probe is fitted on the fold's training features, a network that starts as this probe is fine-tuned,
    and both predict the images held out. If the gain is clear enough, a network is trained on all images: the last of
    these further, or one that begins with the probe once more. If that is stopped (by Ctrl-C, the deadline, too little
    memory on the device, a loss that is no longer a number, an image that cannot be read any more) the best so far is
    returned, with a FallbackWarning that says why: the probe, or a network that beat it.

    Parameters
    ----------
    source : ImageSource
    labels : array (n_samples,)
        One label an image.
    backbone : Backbone
        The frozen network.
    head : LogisticHead
        Fitted on ``features`` and ``labels``.
    features : float32 array (n_samples, n_features), or such rows in blocks
        Penultimate features of all images, or those of all layers, each L2-normalised, side by side.
    settings : FineTuneSettings
    sample_weight : array (n_samples,) or None
        Multiplied with the class weights of the head.
    groups : int array (n_samples,) or None
        Which images belong together: none of a group is held out while another is trained on.
    seed : int
        The same seed gives the same weights; on CUDA up to operations that are not deterministic there.
    device : torch.device
    workers : int
        Decoding threads.
    memory_limit : int or None
        Bytes that decoded images may take in memory; None is a quarter of what is available.
    images_at_once : int or None
        Most images of a batch that go through the network together; their gradients are added up. None is all of
        them, until memory turns out to be short.
    deadline : float or None
        Value of ``clock`` by which all shall be over. Schedules are shortened to end in time.
    progress : callable
    clock : callable
        Seconds.
    checkpoint_dir : path or None
        A folder for checkpoints, as for ``train_from_scratch``: folds that are finished and the training under way.
        The same call made again, after whatever stopped it, comes to the same result. With a deadline, steps that
        were done stay done, and what is left of the schedules is spread over the time that the new deadline leaves.
    expected : Expected or None
        What fine-tuning is expected to gain: the fewer the images that are held out, the more it counts.
    ranks : Ranks
        The processes that do this together, each with the same arguments: all get the same result. Ctrl-C ends it
        then, without one.

    Returns
    -------
    FineTuneResult

    Raises
    ------
    InvalidInputError
        A setting is not allowed.
    RankError
        Another process failed or is gone, or was given something else.
    """
    given = np.ones(len(source)) if sample_weight is None else sample_weight
    rows = np.flatnonzero(given)  # as in LogisticHead.fit, a row of weight 0 is no row
    recipe = recipe_for(backbone, settings, n_images=len(rows))
    probe = Probe(
        head=head,
        features=features if len(rows) == len(given) else take_rows(features, rows),
        labels=labels[rows],
        sample_weight=given[rows],
        groups=None if groups is None else groups[rows],
    )
    history: list[EpochRecord] = []
    job: Job | None = None
    began = clock()
    try:
        with ranks.telling(*FAILURES):
            ranks.check_same(**facts_of(probe, recipe, seed=seed), **{"expected gain": expected})
            job = open_job(
                subset(source, rows),
                backbone=backbone,
                recipe=recipe,
                weights=image_weights(probe),
                device=device,
                seed=seed,
                workers=workers,
                memory_limit=memory_limit,
                deadline=deadline,
                clock=clock,
                progress=progress,
                history=history,
            )
            job = replace(job, ranks=ranks, micro_batch=MicroBatch(images_at_once))
            if checkpoint_dir is not None:
                job = kept_in(Path(checkpoint_dir), job, probe, subset(source, rows), workers=workers)
            if not job.has_checkpoint:
                check_time_left(job, head, whole_hand_off(recipe, n_images=len(rows)))
            return compare_and_deliver(job, probe, expected=expected, began=began)
    except STOPS as stop:
        if isinstance(stop, KeyboardInterrupt) and ranks.count > 1:
            raise  # each is interrupted at another step, so there is nothing that all could go on with
        message = f"Fine-tuning stopped: {reason_of(stop)}. The linear probe is kept."
        resumable = isinstance(stop, RESUMABLE) and job is not None and job.has_checkpoint
    if resumable:
        message += f" {GOES_ON.format(checkpoint_dir)}"
    warnings.warn(message, FallbackWarning, stacklevel=2)
    return FineTuneResult(
        accepted=False,
        backbone=backbone,
        head=head,
        history=tuple(history),
        comparison=None,
        message=message,
        mirror=None,
        resumable=resumable,
        fold_seconds=0.0 if job is None else job.timing.folds,
        refit_seconds=0.0 if job is None else job.timing.refit,
    )


def kept_in(folder: Path, job: Job, probe: Probe, source: ImageSource, *, workers: int) -> Job:
    """Return the job with checkpoints, found by all that it starts from."""
    linear = probe.head.linear_on_normalised()
    # As the network takes it: another number of threads changes bits of the head that float32 has not.
    learned = np.column_stack([linear.weight, linear.bias]).astype(np.float32)
    return with_checkpoints(
        job,
        folder,
        source,
        probe.labels,
        workers=workers,
        method="hand-off",
        head=f"{probe.head!r}, {probe.head.normalize_}, {digest(learned)}",
        groups="" if probe.groups is None else digest(probe.groups),
    )


def facts_of(probe: Probe, recipe: Recipe, *, seed: int) -> dict[str, object]:
    """Return what all ranks must have been given alike."""
    return {
        "labels": codes_of(probe.labels, probe.head),
        "sample weights": probe.sample_weight,
        "settings": recipe,
        "seed": seed,
    }


def image_weights(probe: Probe) -> NDArray[np.float32]:
    """Return what each image counts: its sample weight times the weight of its class, as in ``LogisticHead.fit``."""
    of_class = compute_class_weight(
        probe.head.class_weight, classes=probe.head.classes_, y=probe.labels, sample_weight=probe.sample_weight
    )
    weights: NDArray[np.float64] = probe.sample_weight * of_class[codes_of(probe.labels, probe.head)]
    return weights.astype(np.float32)


def compare_and_deliver(job: Job, probe: Probe, *, expected: Expected | None, began: float) -> FineTuneResult:
    """Fine-tune in folds; if that beats the probe, deliver what came of it."""
    from_nothing = job.recipe.fresh_head or not job.backbone.pretrained
    weigh = partial(compare, z=job.recipe.acceptance_z, expected=expected, end_alone=from_nothing)
    cross_fitted = cross_fit_until_clear(job, probe, weigh)
    job.timing.folds = job.clock() - began
    also = f"{about_rates(job, cross_fitted)}{about(cross_fitted.mirror)}{went_on(job)}"
    comparison = weigh(cross_fitted.held_out)
    if not comparison.accepted:
        return FineTuneResult(
            accepted=False,
            backbone=job.backbone,
            head=probe.head,
            history=tuple(job.history),
            comparison=comparison,
            message=f"The linear probe is kept. {sentence(comparison)}{also}",
            mirror=cross_fitted.mirror,
            fold_seconds=job.timing.folds,
        )
    delivered = best_network(as_folds_say(job, cross_fitted), probe, cross_fitted, comparison)
    took = f"{delivered.steps} steps, alpha {comparison.alpha:g}"
    job.timing.refit = job.clock() - began - job.timing.folds
    if delivered.stopped:
        also += f" Training on all images stopped: {delivered.stopped}. The network of the last fold is delivered."
        also += f" {GOES_ON.format(job.checkpoints.folder)}" if delivered.resumable and job.checkpoints else ""
        warnings.warn(f"Fine-tuning is kept.{also}", FallbackWarning, stacklevel=3)
    return FineTuneResult(
        accepted=True,
        backbone=as_backbone(delivered.network, job.backbone),
        head=as_head(delivered.network, probe.head),
        history=tuple(job.history),
        comparison=comparison,
        message=f"Fine-tuning ({took}) is kept. {sentence(comparison)}{also}",
        mirror=cross_fitted.mirror,
        resumable=delivered.resumable,
        fold_seconds=job.timing.folds,
        refit_seconds=job.timing.refit,
    )


def cross_fit_until_clear(job: Job, probe: Probe, weigh: Callable[[HeldOut], Comparison]) -> CrossFitted:
    """Fine-tune in as many folds as it takes to tell what is better, and whether images may be mirrored."""
    return cross_fit(
        job,
        probe,
        mirroring=mirroring_before(job, probe),
        in_doubt=lambda held_out: weigh(held_out).in_doubt,
        refused=lambda held_out: weigh(held_out).refused_as_chosen,
    )


def as_folds_say(job: Job, cross_fitted: CrossFitted) -> Job:
    """Return the job for the last training: with rates that held, and mirror images if these may be learned from."""
    flip = job.recipe.flip if cross_fitted.mirror is None else cross_fitted.mirror.allowed
    return replace(job, recipe=replace(gentler(job.recipe, cross_fitted.gentler), flip=flip))


def sentence(comparison: Comparison) -> str:
    """Say what the comparison found."""
    weighed = ""
    if (expected := comparison.expected) is not None:
        weighed = (
            f". Weighed against the {100 * expected.gain:+.1f} +- {100 * expected.spread:.1f} points that the probes "
            f"promised, that is {100 * comparison.gain:+.1f} +- {100 * comparison.doubt:.1f} points"
        )
    right, counted = 100 * comparison.more_right, 100 * comparison.measured
    which, whose, how_many = "fine-tuning was", ", and where on the path other images would stop,", "no fewer"
    if comparison.careful:
        which, whose, how_many = "fine-tuning as they choose was refused, and a quarter of the way was", ",", "more"
    return (
        f"On {comparison.n_images} images that neither had seen, {which} right {right:+.1f} points more often "
        f"than the probe ({100 * comparison.probe_accuracy:.1f} %). With how probable the classes were, which counts a "
        f"quarter{whose} that is {counted:+.1f} points, with a standard error "
        f"of {100 * comparison.standard_error:.1f}{weighed}. Asked for were {how_many} images right, more points than "
        f"none, and more than {comparison.z:g} times this doubt."
    )


def went_on(job: Job) -> str:
    """Say where the job went on, if it had been stopped before."""
    where = "" if job.checkpoints is None else job.checkpoints.went_on_from
    return f" This went on from a checkpoint: {where}." if where else ""


def about_rates(job: Job, cross_fitted: CrossFitted) -> str:
    """Say that rates had to be lowered, and which layers that left as they are, if it did."""
    if cross_fitted.gentler == 0:
        return ""
    planned, used = job.recipe.learning_rates, gentler(job.recipe, cross_fitted.gentler).learning_rates
    groups = zip(job.backbone.layer_groups, planned, used, strict=False)  # the head comes after them
    left = [group.name for group, before, after in groups if before > 0 and after == 0]
    alone = f" Of the layer groups {' and '.join(left)} stayed as given." if left else ""
    return f" A learning rate of {planned[-1]:.2g} was too high; {used[-1]:.2g}, and less in early layers, held.{alone}"


def about(mirror: MirrorCheck | None) -> str:
    """Say why images were not mirrored, if that was found out."""
    if mirror is None or mirror.allowed:
        return ""
    return (
        f" Training images were not mirrored: what was learned without mirror images was right on "
        f"{100 * mirror.accuracy:.1f} % of {mirror.n_images} unseen images, and on "
        f"{100 * mirror.mirrored_accuracy:.1f} % of their mirror images."
    )
