"""Fine-tuning taken apart: what ``bottleneck.finetune.finetune`` does, each part timed, the refit always done.

The same functions in the same order with the same seeds, so that what is delivered is the same; beyond it, the network
trained on all images is known at alpha = 1 even where the comparison with the probe rejects it.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from bottleneck.estimators.run import Run
from bottleneck.extraction.extract import decode_min_side
from bottleneck.finetune import Comparison, FineTuneSettings
from bottleneck.finetune.compare import ALPHAS, HeldOut, compare
from bottleneck.finetune.crossfit import Probe, codes_of, cross_fit
from bottleneck.finetune.groups import recipe_for
from bottleneck.finetune.handoff import CHECKED_IMAGES, check_not_collapsed, image_weights
from bottleneck.finetune.job import Job, open_job
from bottleneck.finetune.mirror import check_mirroring
from bottleneck.finetune.path import Path, fit_path, predict_proba
from bottleneck.finetune.pixels import StreamedPixels
from bottleneck.finetune.recipe import gentler
from bottleneck.finetune.schedules import Pace
from bottleneck.heads import LogisticHead
from bottleneck.images import ImageSource
from bottleneck.progress import silent


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
    """What came of a fine-tuning: class numbers of the test images, of what is delivered and at each alpha above 0.

    ``codes`` is None where the probe is delivered, ``path_codes`` where there is no network.
    """

    codes: NDArray[np.int64] | None = None
    path_codes: list[NDArray[np.int64]] | None = None
    comparison: Comparison | None = None
    held_out: HeldOut | None = None
    steps: int = 0
    gentler: int = 0
    flip: bool = True
    stopped: str = ""


@dataclass(slots=True)
class Stopped:
    """Why a part did not come to its end; empty if it did."""

    why: str = ""


def finetune_in_parts(given: TrainingSet, settings: FineTuneSettings, watch: Timing) -> Tuned:
    """Fine-tune in folds, compare with the probe, and train on all images whatever the comparison says."""
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
    with watch.timing("mirror"):
        flip = check_mirroring(job, probe).allowed
    job = replace(job, recipe=replace(recipe, flip=flip))
    held_out, comparison, path, times = None, None, None, 0
    with noting_divergence() as folds, watch.timing("folds"):
        cross_fitted = cross_fit(job, probe)
        held_out, times = cross_fitted.held_out, cross_fitted.gentler
        comparison = compare(held_out, z=recipe.acceptance_z, seed=run.seed)
    with noting_divergence() as refit, watch.timing("refit"):
        path = fit_on_all(replace(job, recipe=gentler(job.recipe, times)), probe)
    if path is None:
        return Tuned(comparison=comparison, steps=recipe.steps, flip=flip, stopped=refit.why)
    test, codes = pixels_of(given.test, run), None
    if comparison is not None and comparison.accepted:
        with noting_divergence() as folds:
            codes = delivered(job, probe, path, comparison, test, watch)
    return Tuned(
        codes=codes,
        path_codes=[predicted(job, path, alpha, test) for alpha in ALPHAS[1:]],
        comparison=comparison,
        held_out=held_out,
        gentler=times,
        steps=path.steps,
        flip=flip,
        stopped=folds.why,
    )


def fit_on_all(job: Job, probe: Probe) -> Path:
    """Fine-tune from the probe on all images."""
    codes = codes_of(probe.labels, probe.head)
    pace = Pace(job.recipe.steps, deadline=None, clock=job.clock)
    return fit_path(job, probe.head, np.arange(len(codes)), codes=codes, stage="fine-tuning, all images", pace=pace)


def delivered(
    job: Job, probe: Probe, path: Path, comparison: Comparison, test: StreamedPixels, watch: Timing
) -> NDArray[np.int64]:
    """Return the classes that the blended network predicts for test images, unless it has collapsed.

    Raises
    ------
    FloatingPointError
        It has.
    """
    codes = codes_of(probe.labels, probe.head)
    checked = np.random.default_rng(job.seed).permutation(np.arange(len(codes)))[:CHECKED_IMAGES]
    with watch.timing("check"):
        network = path.at(comparison.alpha)
        correct = predict_proba(job, network, checked).argmax(axis=1) == codes[checked]
        check_not_collapsed(correct, job.weights[checked], comparison)
    return predicted(job, path, comparison.alpha, test)


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
