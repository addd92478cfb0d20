"""Fold by fold: a probe, a fine-tuning that starts from it, and how both predict the images held out."""

import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bottleneck.errors import InvalidInputError
from bottleneck.finetune.average import Weights
from bottleneck.finetune.batches import rows_to_learn
from bottleneck.finetune.checkpoints import Snapshot
from bottleneck.finetune.compare import ALPHAS, SCORES, HeldOut, gain_of, score_proba
from bottleneck.finetune.job import Job
from bottleneck.finetune.mirror import MirrorCheck, Mirroring
from bottleneck.finetune.path import Path, fit_path, predict_proba, share_of_time
from bottleneck.finetune.probe import Probe, codes_of, take_rows
from bottleneck.finetune.rates import times_to_lower
from bottleneck.finetune.recipe import MOST_GENTLER, Recipe, gentler, lowered, steps_on_all
from bottleneck.finetune.stops import FAILURES, reason_of
from bottleneck.finetune.timing import Ahead
from bottleneck.heads import LogisticHead
from bottleneck.heads.folds import Folds

CHECKED_IMAGES = 2000
"""Training images on which the final network must not do worse than was measured on unseen ones."""

LOST_Z = 1.5
"""Standard errors by which a network must be worse than the probe for its rates to count as too high."""

LEAST_FURTHER = 0.5
"""Of a fold's steps, those that must be left for the network that goes on from it once a further fold was held out.
What these images tell is worth more than the other steps: a network that is kept or dropped by mistake costs more."""

FEW_GROUPS = 5
"""Held-out groups under which all folds are held out in turn."""

LAST, RATES = "network of the last fold", "rates"
"""The names by which its weights are kept, and how often rates were lowered before training."""

MIRRORED = "mirrored_correct"
"""The name by which it is kept on which mirror images a network was right that saw none in training."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class CrossFitted:
    """What the folds gave.

    Predictions of held-out images, the steps that each fine-tuning took and those that one on all images has now, how
    often rates were lowered, whether mirror images may be learned from, if that was to be found out, and the weights of
    the last fold if they may be trained further.
    """

    held_out: HeldOut
    steps: int
    steps_on_all: int
    gentler: int
    mirror: MirrorCheck | None = None
    last: Weights | None = None


@dataclass(kw_only=True, slots=True)
class SoFar:
    """What the folds gave so far, and what the next one begins with."""

    steps: int
    last: Snapshot | None
    mirroring: Mirroring
    gentler: int = 0
    parts: list[HeldOut] = field(default_factory=list)


def sure(held_out: HeldOut) -> bool:
    """Say that nothing is in doubt."""
    return False


def cross_fit(
    job: Job,
    probe: Probe,
    *,
    mirroring: Mirroring | None = None,
    in_doubt: Callable[[HeldOut], bool] = sure,
    refused: Callable[[HeldOut], bool] = sure,
) -> CrossFitted:
    """Fine-tune in each fold that is used and score its held-out images along the path.

    Where the recipe allows it, further folds follow as long as those held out leave it ``in_doubt`` which is better.
    Where it is to be found out whether images may be mirrored, and ``mirroring`` does not say it, they are not at
    first, and what was learned is looked at on mirror images: if these may be learned from, further folds do, and one
    follows in any case if without them fine-tuning would be ``refused``.

    Rates that are too high for the network are lowered. Where a training diverges all the same, or the first one, at
    rates that were not lowered, is clearly worse than the probe, it and those after it have lower ones.

    Raises
    ------
    FloatingPointError
        A training diverged at the lowest rates too.
    BudgetError
        The deadline has passed.
    InvalidInputError
        Fewer than two images can be held out.
    """
    folds, n_used = folds_to_hold_out(job, probe)
    so_far = SoFar(
        steps=job.recipe.fold_steps,
        last=job.kept(LAST),
        mirroring=mirroring or Mirroring(settled=not job.recipe.check_flip),
    )
    for fold in range(n_used):
        hold_out(job, probe, folds, so_far, fold=fold, n_used=n_used)
    if job.recipe.cross_fit.may_grow:
        hold_out_more(job, probe, folds, so_far, n_used=n_used, in_doubt=in_doubt, refused=refused)
    last = None if so_far.last is None else so_far.last.tensors
    return CrossFitted(
        held_out=joined(so_far.parts),
        steps=so_far.steps,
        steps_on_all=steps_on_all(job.recipe, so_far.steps),
        gentler=so_far.gentler,
        mirror=so_far.mirroring.check,
        last=last,
    )


def hold_out_more(
    job: Job,
    probe: Probe,
    folds: Folds,
    so_far: SoFar,
    *,
    n_used: int,
    in_doubt: Callable[[HeldOut], bool],
    refused: Callable[[HeldOut], bool],
) -> None:
    """Hold out further folds as long as it is in doubt which is better, and there is time.

    What stops such a fold leaves the folds before it as they are.
    """
    for fold in range(n_used, len(folds)):
        known = job.kept(stage_of(fold, n_used)) is not None
        held_out = joined(so_far.parts)
        undecided = in_doubt(held_out) or (so_far.mirroring.adds_to(job.recipe) and refused(held_out))
        if not undecided or not (known or has_time_for_more(job, probe, so_far)):
            return
        try:
            hold_out(job, probe, folds, so_far, fold=fold, n_used=n_used)
        except FAILURES as stop:
            if job.ranks.count > 1:
                raise  # of several processes one alone cannot go on
            logger.info("%s stopped: %s", stage_of(fold, n_used), reason_of(stop))
            return


def stage_of(fold: int, n_used: int) -> str:
    """Return how a fold is called, counted from 0."""
    return f"fine-tuning, fold {fold + 1} of {max(n_used, fold + 1)}"


def folds_to_hold_out(job: Job, probe: Probe) -> tuple[Folds, int]:
    """Return the folds, and how many of them are held out in any case.

    Raises
    ------
    InvalidInputError
        Fewer than two images can be held out.
    """
    plan = job.recipe.cross_fit
    folds = probe.deal_folds(plan.n_folds, np.random.default_rng(job.seed))
    n_used = min(plan.n_used, len(folds))
    if n_used and probe.groups is not None and len(np.unique(probe.groups[folds.held_out[0]])) < FEW_GROUPS:
        n_used = len(folds)  # one hold-out would be next to no evidence
    held_out = np.flatnonzero(folds.held_out[:n_used].any(axis=0))
    # Images of one group err together: one group is one piece of evidence, of which nothing can be said.
    if len(held_out if probe.groups is None else np.unique(probe.groups[held_out])) < 2:
        raise InvalidInputError("too few different images of a class, or groups, to hold any out")
    return folds, n_used


def hold_out(job: Job, probe: Probe, folds: Folds, so_far: SoFar, *, fold: int, n_used: int) -> None:
    """Fine-tune on what a fold does not hold out, or take what that gave before the job was stopped."""
    train, held = np.flatnonzero(folds.train[fold]), np.flatnonzero(folds.held_out[fold])
    n_folds, stage = max(n_used, fold + 1), stage_of(fold, n_used)
    job = replace(job, recipe=so_far.mirroring.in_next_fold(job.recipe))
    kept = job.kept(stage)
    if kept is None:
        began = job.clock()
        head = probe.refitted_on(train, seed=job.seed)
        job.timing.head = job.clock() - began
        times = times_from_the_start(job, probe, head, train) if fold == 0 else so_far.gentler
        fit = partial(
            fit_fold,
            probe=probe,
            head=head,
            train=train,
            held=held,
            stage=stage,
            steps=so_far.steps,
            n_folds_left=n_folds - fold,
            further=fold >= n_used,
        )
        check = partial(check_not_lost, job, probe, held) if fold == 0 else approve
        path, kept = gentler_until_it_holds(job, fit, check, stage, times_gentler(job, stage, default=times))
        finished = {stage: replace(kept, facts={**kept.facts, "timing": asdict(job.timing)})}
        if fold == n_folds - 1 and job.recipe.refit != "anew":
            finished[LAST] = so_far.last = Snapshot(facts={}, tensors=path.end)
        job.keep(finished)
    elif job.timing.step == 0:
        job.timing.take(kept.facts["timing"])
    so_far.parts.append(held_out_of(job, probe, kept, rows=held))
    so_far.mirroring.note(so_far.parts[-1], kept.tensors.get(MIRRORED))
    # Later folds are no longer and no faster than this one, so that what is delivered is what was compared.
    so_far.steps, so_far.gentler = kept.facts["steps"], kept.facts["gentler"]


def times_from_the_start(job: Job, probe: Probe, head: LogisticHead, train: NDArray[np.int64]) -> int:
    """Return how often rates are lowered before any training, and keep that."""
    if not job.recipe.check_rates:
        return 0
    kept = job.kept(RATES)
    if kept is None:
        codes = codes_of(probe.labels, probe.head)[train]
        times = times_to_lower(job, head, rows_to_learn(job, train, codes, n_classes=len(head.classes_)))
        job.keep({RATES: (kept := Snapshot(facts={"gentler": times}))})
    return int(kept.facts["gentler"])


def times_gentler(job: Job, stage: str, *, default: int) -> int:
    """Return how often rates are lowered in a fold: more often if it diverged already, before the job was stopped."""
    noted = job.kept(diverged(stage))
    return default if noted is None else int(noted.facts["gentler"])


def diverged(stage: str) -> str:
    """Return under what name it is kept that a fold needs lower rates."""
    return f"{stage}, diverged"


def gentler_until_it_holds(
    job: Job, fit: Callable[[Job], tuple[Path, Snapshot]], check: Callable[[Snapshot], None], stage: str, times: int
) -> tuple[Path, Snapshot]:
    """Return what ``fit`` does, at lower and lower rates as long as training diverges.

    At rates that were not lowered, ``check`` may also find that they were too high for what was known.

    Raises
    ------
    FloatingPointError
        It diverged at the lowest rates too.
    """
    n_told = len(job.history)
    while True:
        try:
            path, fitted = fit(replace(job, recipe=gentler(job.recipe, times)))
            if times == 0:
                check(fitted)
        except FloatingPointError as exc:
            if times == MOST_GENTLER:
                raise
            times = lowered(times)
            logger.info("%s: %s; once more at lower rates", stage, exc)
            del job.history[n_told:]  # the epochs of a training that is done anew
            job.keep({diverged(stage): Snapshot(facts={"gentler": times})})
        else:
            return path, replace(fitted, facts={**fitted.facts, "gentler": times})


def approve(kept: Snapshot) -> None:
    """Find nothing wrong."""


def check_not_lost(job: Job, probe: Probe, rows: NDArray[np.int64], kept: Snapshot) -> None:
    """Raise if a network is clearly worse than the probe on held-out ``rows``.

    Raises
    ------
    FloatingPointError
        It is.
    """
    held_out = held_out_of(job, probe, kept, rows=rows)
    right = held_out.correct.astype(float)
    gain, standard_error = gain_of(right[:, -1] - right[:, 0], held_out)
    if gain < -LOST_Z * standard_error:
        raise FloatingPointError(f"on {len(rows)} images held out it was {100 * -gain:.1f} points worse than the probe")


def fit_fold(
    job: Job,
    probe: Probe,
    head: LogisticHead,
    train: NDArray[np.int64],
    held: NDArray[np.int64],
    *,
    stage: str,
    steps: int,
    n_folds_left: int,
    further: bool = False,
) -> tuple[Path, Snapshot]:
    """Fine-tune on some rows; return the path, how many steps it took and how the others are predicted along it."""
    codes = codes_of(probe.labels, probe.head)
    ahead = what_is_ahead(job.recipe, n_folds_left, n_held=len(held), n_images=len(codes), further=further)
    pace = share_of_time(job, steps, ahead)
    path = fit_path(job, head, train, codes=codes[train], stage=stage, pace=pace)
    scores = score_path(job, probe, head, path, rows=held, codes=codes[held])
    if job.recipe.check_flip and not job.recipe.flip:
        guessed = predict_proba(job, path.at(1.0), held, mirrored=True).argmax(axis=1)
        scores[MIRRORED] = guessed == codes[held]
    return path, Snapshot(
        facts={"steps": path.steps}, tensors={name: torch.from_numpy(each) for name, each in scores.items()}
    )


def has_time_for_more(job: Job, probe: Probe, so_far: SoFar) -> bool:
    """Say whether a fold more, as long as those before it, and a training on all images fit before the deadline."""
    if job.deadline is None:
        return True
    n_held, n_images = len(so_far.parts[-1].weights), len(probe.labels)
    ahead = what_is_ahead(job.recipe, 1, n_held=n_held, n_images=n_images, further=True)
    seconds = job.deadline - job.clock() - job.timing.head
    return job.ranks.first(ahead.seconds_a_training(seconds, job.timing) >= so_far.steps * job.timing.step)


def whole_hand_off(recipe: Recipe, *, n_images: int) -> Ahead:
    """Return what there is to do before the first fold."""
    plan = recipe.cross_fit
    return what_is_ahead(recipe, plan.n_used, n_held=n_images // plan.n_folds, n_images=n_images)


def what_is_ahead(recipe: Recipe, n_folds: int, *, n_held: int, n_images: int, further: bool = False) -> Ahead:
    """Return what there is to do when the head of the next fold is fitted: later folds are as large as this one.

    After ``further`` folds the training on all images takes what is left, if that is enough.
    """
    last = steps_on_all(recipe, recipe.fold_steps) / recipe.fold_steps
    if further and recipe.refit != "anew":
        last = LEAST_FURTHER
    n_scored = n_folds * n_held * (len(ALPHAS) - 1 + recipe.check_flip)
    return Ahead(trainings=n_folds + last, heads=n_folds - 1, images=n_scored + min(CHECKED_IMAGES, n_images))


def score_path(
    job: Job, probe: Probe, head: LogisticHead, path: Path, *, rows: NDArray[np.int64], codes: NDArray[np.int64]
) -> dict[str, NDArray[Any]]:
    """Return the scores (n, n_alphas) of ``head`` (alpha 0) and the networks at the other alphas, by name."""
    # What is compared must be the same on all ranks, to the last bit: they must come to the same decision.
    probe_proba = job.ranks.first_array(head.predict_proba(take_rows(probe.features, rows)))
    scores = [score_proba(probe_proba, codes)]
    scores += [score_proba(predict_proba(job, path.at(alpha), rows), codes) for alpha in ALPHAS[1:]]
    return {name: np.stack(each, axis=1) for name, each in zip(SCORES, zip(*scores, strict=True), strict=True)}


def held_out_of(job: Job, probe: Probe, kept: Snapshot, *, rows: NDArray[np.int64]) -> HeldOut:
    """Return the scores of ``rows`` with what else belongs to these images."""
    return HeldOut(
        **{name: kept.tensors[name].numpy() for name in SCORES},
        weights=job.weights[rows],
        groups=rows if probe.groups is None else probe.groups[rows],
    )


def joined(parts: list[HeldOut]) -> HeldOut:
    """Return the images of all folds one after the other."""
    return HeldOut(
        **{name: np.concatenate([getattr(part, name) for part in parts]) for name in SCORES},
        weights=np.concatenate([part.weights for part in parts]),
        groups=np.concatenate([part.groups for part in parts if part.groups is not None]),
    )
