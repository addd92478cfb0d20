"""The network to deliver once fine-tuning has beaten the probe: one that has learned from all images."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from bottleneck.errors import BudgetError
from bottleneck.finetune.average import Weights, weights_of
from bottleneck.finetune.checkpoints import Snapshot
from bottleneck.finetune.compare import Comparison
from bottleneck.finetune.crossfit import CHECKED_IMAGES, CrossFitted
from bottleneck.finetune.job import Job
from bottleneck.finetune.path import Path, fit_path, n_predictable, predict_proba, share_of_time
from bottleneck.finetune.probe import Probe, codes_of
from bottleneck.finetune.probe_network import ProbeNetwork, build_network
from bottleneck.finetune.stops import FAILURES, RESUMABLE, STOPS, reason_of
from bottleneck.finetune.timing import Ahead
from bottleneck.heads.evidence import mean_and_se

LEAST_CHECKED = 100
"""So many training images the final network must prove itself on even if that makes it late."""

BEGINNING = "beginning of the training on all images"
"""The name by which it is kept."""

COLLAPSE_Z = 2.0
"""Standard errors by which it may do worse all the same."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Delivered:
    """The best network in hand and the steps it took.

    What stopped a better one, if something did, and whether the same call goes on.
    """

    network: ProbeNetwork
    steps: int
    stopped: str = ""
    resumable: bool = False


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Beginning:
    """With what the last training begins: ``weights`` that took the steps ``before``, or the probe; and its steps."""

    weights: Weights | None
    steps: int
    before: int


def best_network(job: Job, probe: Probe, cross_fitted: CrossFitted, comparison: Comparison) -> Delivered:
    """Return the network trained on all images; if something stops that, the one of the last fold, if there is one."""
    try:
        with job.ranks.telling(*FAILURES):
            return fit_on_all(job, probe, cross_fitted, comparison)
    except STOPS as stop:
        # Of several processes each is interrupted at another step.
        if cross_fitted.last is None or (isinstance(stop, KeyboardInterrupt) and job.ranks.count > 1):
            raise
        stopped, resumable = reason_of(stop), isinstance(stop, RESUMABLE) and job.has_checkpoint
    # Only now is the memory of the training that was stopped free.
    network = path_to(job, probe, cross_fitted.last, steps=cross_fitted.steps).at(comparison.alpha)
    return Delivered(network=network, steps=cross_fitted.steps, stopped=stopped, resumable=resumable)


def path_to(job: Job, probe: Probe, end: Weights, *, steps: int) -> Path:
    """Return the path, on the processor, from the probe of all images to the weights of a fold."""
    network = build_network(job.backbone, probe.head, recipe=job.recipe, device=torch.device("cpu"))
    there = {name: tensor.cpu() for name, tensor in end.items()}
    return Path(network=network, start=weights_of(network), end=there, steps=steps)


def fit_on_all(job: Job, probe: Probe, cross_fitted: CrossFitted, comparison: Comparison) -> Delivered:
    """Return the network at the chosen alpha, fine-tuned on all images.

    Raises
    ------
    FloatingPointError
        It diverged or collapsed.
    BudgetError
        There is no time left for it, or the machine became so slow that the last fold took more steps.
    """
    begins = how_to_begin(job, cross_fitted)
    path = path_on_all(job, probe, steps=begins.steps, begin=begins.weights)
    if begins.before + path.steps < cross_fitted.steps and cross_fitted.last is not None:
        raise BudgetError(f"only {path.steps} steps fitted into the time left, and the last fold took more")
    network = path.at(comparison.alpha)
    check_delivered(job, probe, network, comparison)
    return Delivered(network=network, steps=begins.before + path.steps)


def how_to_begin(job: Job, cross_fitted: CrossFitted) -> Beginning:
    """Return with what the last training begins; where time decides, a job that was stopped in it begins as before.

    Folds that were cut, because the time was short, leave none to begin anew.
    """
    anew = Beginning(weights=None, steps=job.recipe.steps, before=0)
    if job.recipe.refit == "as_time_allows" and cross_fitted.steps == job.recipe.fold_steps:
        if (kept := job.kept(BEGINNING)) is None:
            kept = Snapshot(facts={"anew": has_time_to_begin_anew(job)})
            job.keep_with_the_next({BEGINNING: kept})
        if kept.facts["anew"]:
            return anew
    if cross_fitted.last is None:
        return replace(anew, steps=cross_fitted.steps_on_all)
    return Beginning(weights=cross_fitted.last, steps=cross_fitted.steps_on_all, before=cross_fitted.steps)


def has_time_to_begin_anew(job: Job) -> bool:
    """Say whether all steps of the recipe fit before the deadline, and a look at what they made of the network."""
    if job.deadline is None:
        return True
    seconds = checked_after(len(job.weights)).seconds_a_training(job.deadline - job.clock(), job.timing)
    known = job.timing.step > 0
    return job.ranks.first(bool(known and seconds >= job.recipe.steps * job.timing.step))


def checked_after(n_images: int) -> Ahead:
    """Return what there is to do where only the training on all images is left."""
    return Ahead(trainings=1, images=min(CHECKED_IMAGES, n_images))


def path_on_all(job: Job, probe: Probe, *, steps: int, begin: Weights | None) -> Path:
    """Return the path from the probe to the network trained on all images, from the weights ``begin`` or the probe.

    In the former the head and all layers have learned already: none of them waits.
    """
    if begin is not None:
        job = replace(job, recipe=replace(job.recipe, freeze_epochs=0, unfreeze_every=0))
    codes = codes_of(probe.labels, probe.head)
    pace = share_of_time(job, steps, checked_after(len(codes)))
    stage = "fine-tuning, all images"
    return fit_path(job, probe.head, np.arange(len(codes)), codes=codes, stage=stage, pace=pace, begin=begin)


def check_delivered(job: Job, probe: Probe, network: ProbeNetwork, comparison: Comparison) -> None:
    """Raise a FloatingPointError if the network does not even know the images that it was trained on."""
    codes = codes_of(probe.labels, probe.head)
    checked = np.random.default_rng(job.seed).permutation(len(codes))[:CHECKED_IMAGES]
    checked = checked[: n_predictable(job, least=LEAST_CHECKED)]
    correct = predict_proba(job, network, checked).argmax(axis=1) == codes[checked]
    check_not_collapsed(correct, job.weights[checked], comparison)


def check_not_collapsed(correct: NDArray[np.bool_], weights: NDArray[np.float32], comparison: Comparison) -> None:
    """Raise if a network is clearly worse on images that it was trained on than the folds were on unseen ones.

    Raises
    ------
    FloatingPointError
        It is.
    """
    accuracy, error = mean_and_se(correct.astype(float), weights)
    if accuracy < comparison.tuned_accuracy - COLLAPSE_Z * max(error, comparison.standard_error):
        raise FloatingPointError(
            f"the network trained on all images collapsed, with an accuracy of {accuracy:.3f} on these, "
            f"where {comparison.tuned_accuracy:.3f} were expected on unseen ones"
        )
