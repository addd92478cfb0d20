"""Fine-tuning taken apart: what ``bottleneck.finetune.finetune`` does, each part timed, the last training always done.

The same functions in the same order with the same seeds, so that what is delivered is the same; beyond it, the network
trained on all images is known along its path even where the comparison with the probe rejects it.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from bottleneck.estimators.run import Run
from bottleneck.extraction.extract import decode_min_side
from bottleneck.finetune import Comparison, Expected, FineTuneSettings
from bottleneck.finetune.compare import ALPHAS, HeldOut, compare
from bottleneck.finetune.delivery import check_delivered, how_to_begin, path_on_all, path_to
from bottleneck.finetune.groups import recipe_for
from bottleneck.finetune.handoff import as_folds_say, cross_fit_until_clear, image_weights
from bottleneck.finetune.job import Job, open_job
from bottleneck.finetune.mirror import PROBE_Z, judge_mirroring
from bottleneck.finetune.path import Path, predict_proba
from bottleneck.finetune.pixels import StreamedPixels
from bottleneck.finetune.probe import Probe
from bottleneck.finetune.probe_network import build_network
from bottleneck.finetune.recipe import MOST_GENTLER, gentler, lowered
from bottleneck.heads import LogisticHead
from bottleneck.images import ImageSource
from bottleneck.progress import silent

MIRROR_FOLDS, MOST_LEARNED, MOST_MIRRORED = 3, 2000, 500
"""One image in so many is predicted by a probe of the others, and how many suffice for it and to see a loss."""


class Timing(Protocol):
    """Times the parts of a procedure."""

    def timing(self, part: str) -> AbstractContextManager[None]:
        """Time what is done inside."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class TrainingSet:
    """A run with its fitted probe, and the images to be measured on."""

    run: Run
    head: LogisticHead
    features: NDArray[np.float32]
    test: ImageSource


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Tuned:
    """What came of a fine-tuning: class numbers of the test images at each alpha above 0, or at 1 alone.

    ``path_codes`` is None if it diverged; ``stopped`` says why the network is that of the last fold.
    """

    path_codes: list[NDArray[np.int64]] | None = None
    comparison: Comparison | None = None
    held_out: HeldOut | None = None
    steps: int = 0
    gentler: int = 0
    flip: bool = True
    stopped: str = ""

    @property
    def accepted(self) -> bool:
        """Whether a network is delivered."""
        compared = self.comparison is None or self.comparison.accepted
        return self.path_codes is not None and compared

    @property
    def place(self) -> int:
        """Which of the networks on the path that is: the last one where nothing was compared."""
        return -1 if self.comparison is None else ALPHAS.index(self.comparison.alpha) - 1


@dataclass(slots=True)
class Stopped:
    """Why a part did not come to its end; empty if it did."""

    why: str = ""


def open_in_parts(given: TrainingSet, settings: FineTuneSettings, watch: Timing) -> tuple[Job, Probe]:
    """Decode the images."""
    run = given.run
    recipe = recipe_for(run.extractor.backbone, settings, n_images=len(run.labels))
    probe = Probe(head=given.head, features=given.features, labels=run.labels, sample_weight=np.ones(len(run.labels)))
    with watch.timing("decode"):
        job = open_job(
            run.source,
            backbone=run.extractor.backbone,
            recipe=recipe,
            weights=image_weights(probe),
            device=run.extractor.device,
            seed=run.seed,
            workers=run.extractor.workers,
            memory_limit=None,
            deadline=None,
            clock=lambda: 0.0,
            progress=silent,
            history=[],
        )
    return job, probe


def is_mirrored_as_well(job: Job, probe: Probe) -> bool:
    """Say whether a probe of some images recognises the mirror images of others about as often as these.

    This is all that who trains only once can know of whether images may be mirrored.
    """
    rng = np.random.default_rng(job.seed)
    folds = probe.deal_folds(MIRROR_FOLDS, rng)
    learned = rng.permutation(np.flatnonzero(folds.train[0]))[:MOST_LEARNED]
    held = rng.permutation(np.flatnonzero(folds.held_out[0]))[:MOST_MIRRORED]
    head = probe.refitted_on(np.sort(learned), seed=job.seed)
    recipe = replace(job.recipe, fresh_head=False)
    network = build_network(job.backbone, head, recipe=recipe, device=job.device).eval()
    plain, mirrored = (
        head.classes_[predict_proba(job, network, held, mirrored=mirrored).argmax(axis=1)] == probe.labels[held]
        for mirrored in (False, True)
    )
    return judge_mirroring(plain, mirrored, job.weights[held], z=PROBE_Z).allowed


def finetune_in_parts(
    given: TrainingSet, settings: FineTuneSettings, watch: Timing, expected: Expected | None
) -> Tuned:
    """Fine-tune in folds, compare with the probe, and train on all images whatever the comparison says."""
    job, probe = open_in_parts(given, settings, watch)
    flip, held_out, comparison, path, before = False, None, None, None, 0
    with noting_divergence() as folds, watch.timing("folds"):
        weigh = partial(compare, z=job.recipe.acceptance_z, expected=expected)
        cross_fitted = cross_fit_until_clear(job, probe, weigh)
        held_out = cross_fitted.held_out
        comparison = weigh(held_out)
    if comparison is None:
        return Tuned(steps=job.recipe.steps, flip=flip, stopped=folds.why)
    job = as_folds_say(job, cross_fitted)
    flip = job.recipe.flip
    with noting_divergence() as stopped:
        with watch.timing("refit"):
            begins = how_to_begin(job, cross_fitted)
            path, before = path_on_all(job, probe, steps=begins.steps, begin=begins.weights), begins.before
        if comparison.accepted:
            with watch.timing("check"):
                check_delivered(job, probe, path.at(comparison.alpha), comparison)
    if stopped.why and cross_fitted.last is not None:
        path = path_to(job, probe, cross_fitted.last, steps=cross_fitted.steps)
    if path is None:
        steps = job.recipe.steps
        return Tuned(comparison=comparison, held_out=held_out, steps=steps, flip=flip, stopped=stopped.why)
    test = pixels_of(given.test, given.run)
    return Tuned(
        path_codes=[predicted(job, path, alpha, test) for alpha in ALPHAS[1:]],
        comparison=comparison,
        held_out=held_out,
        gentler=cross_fitted.gentler,
        steps=before + path.steps,
        flip=flip,
        stopped=stopped.why,
    )


def finetune_plainly(given: TrainingSet, settings: FineTuneSettings, watch: Timing) -> Tuned:
    """Fine-tune on all images from the probe, at rates lowered until they hold, without a comparison."""
    job, probe = open_in_parts(given, settings, watch)
    with watch.timing("mirror"):
        job = replace(job, recipe=replace(job.recipe, flip=is_mirrored_as_well(job, probe)))
    times, path = 0, None
    while path is None:
        with noting_divergence() as training, watch.timing(f"training {times}"):
            recipe = gentler(job.recipe, times)
            path = path_on_all(replace(job, recipe=recipe), probe, steps=recipe.steps, begin=None)
        if training.why and times == MOST_GENTLER:
            return Tuned(steps=job.recipe.steps, flip=job.recipe.flip, stopped=training.why)
        times = lowered(times) if training.why else times
    codes = predicted(job, path, 1.0, pixels_of(given.test, given.run))
    return Tuned(path_codes=[codes], steps=path.steps, gentler=times, flip=job.recipe.flip)


def predicted(job: Job, path: Path, alpha: float, test: StreamedPixels) -> NDArray[np.int64]:
    """Return the class numbers that the network at ``alpha`` predicts for the test images."""
    proba = predict_proba(replace(job, exact=test), path.at(alpha), np.arange(len(test.source)))
    return proba.argmax(axis=1)


def pixels_of(source: ImageSource, run: Run) -> StreamedPixels:
    """Return images as features are extracted from them."""
    backbone = run.extractor.backbone
    return StreamedPixels(
        source=source,
        preprocess=backbone.preprocess,
        decode_min_side=decode_min_side(backbone),
        workers=run.extractor.workers,
    )


@contextmanager
def noting_divergence() -> Iterator[Stopped]:
    """Note a training that diverged or collapsed, after which the library delivers the probe."""
    stopped = Stopped()
    try:
        yield stopped
    except FloatingPointError as exc:
        stopped.why = str(exc)
