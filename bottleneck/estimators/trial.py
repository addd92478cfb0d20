"""A trial of fine-tuning before the decision: a few of its steps on one fold, with each of the recipes in question."""

import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from bottleneck.errors import FallbackWarning, InvalidInputError
from bottleneck.estimators.frozen import FrozenFeatures, joined
from bottleneck.estimators.layers import PENULTIMATE
from bottleneck.estimators.limits import images_at_once, pixels_limit
from bottleneck.estimators.planned import planned_settings
from bottleneck.estimators.run import Probe, Run, plan_run, start_of_finetuning
from bottleneck.extraction import using_threads
from bottleneck.finetune import FineTuneSettings
from bottleneck.finetune.compare import ALPHAS, HeldOut, compare, counts, gain_of
from bottleneck.finetune.crossfit import score_path, times_from_the_start
from bottleneck.finetune.groups import recipe_for
from bottleneck.finetune.handoff import facts_of, image_weights
from bottleneck.finetune.job import Job, open_job
from bottleneck.finetune.memory import MicroBatch
from bottleneck.finetune.path import fit_path, share_of_time
from bottleneck.finetune.probe import Probe as FoldProbe
from bottleneck.finetune.probe import codes_of, take_rows
from bottleneck.finetune.recipe import gentler
from bottleneck.finetune.stops import FAILURES, STOPS, reason_of
from bottleneck.finetune.timing import Ahead
from bottleneck.heads import LogisticHead
from bottleneck.images import subset
from bottleneck.planner import Plan
from bottleneck.planner.evidence import Regime, Trial, TrialRun
from bottleneck.planner.records import TrialPlan
from bottleneck.planner.trial import TRIAL_HELD_OUT

OVERRUN, PATIENCE = 2.0, 30.0
"""Times the most that a trial was expected to take, and seconds in any case, after which it is given up."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Fold:
    """What the runs of a trial share: some images to learn from, others to be compared on, and a probe of the former.

    ``train`` and ``held`` are rows of the images that were opened, to which ``job`` and ``probe`` belong; they are no
    more than the runs look at. ``head`` is fitted to all of the ``n_samples`` that are not held out.
    """

    job: Job
    probe: FoldProbe
    head: LogisticHead
    n_samples: int
    train: NDArray[np.int64]
    held: NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """One way to fine-tune, as the planner calls it and as it is set."""

    regime: Regime
    settings: FineTuneSettings


@dataclass(kw_only=True, slots=True)
class Course:
    """How far a trial came: what it had to show when it was stopped."""

    steps: int
    runs: list[TrialRun] = field(default_factory=list)
    tried: list[tuple[float, ...]] = field(default_factory=list)
    diverged: list[Regime] = field(default_factory=list)
    n_images: int = 0
    stopped: str = ""


def try_first(run: Run, plan: Plan, probe: Probe, features: FrozenFeatures) -> tuple[Probe, Plan]:
    """Run the trial that a plan waits for, and plan again with what it showed; return both as they are without one."""
    if plan.trial is None or probe.evidence is None:
        return probe, plan
    began = time.monotonic()
    start = start_of_finetuning(run, probe, features)
    trial = run_trial(run, plan.trial, start, features, limit=plan.training_limit, began=began)
    spent = time.monotonic() - run.began
    evidence = replace(probe.evidence, trial=trial, spent_seconds=spent)
    return replace(probe, evidence=evidence, wide=None if start is probe else start), plan_run(run, evidence)


def run_trial(
    run: Run, planned: TrialPlan, start: Probe, features: FrozenFeatures, *, limit: float | None, began: float
) -> Trial:
    """Fine-tune from ``start`` with each recipe, and compare with it on the images held out.

    What ends a fine-tuning ends the trial, with a FallbackWarning: after Ctrl-C nothing more is tried, and where memory
    or time is short for a trial, it is for the whole. A recipe that diverges is out of the question.
    """
    given_up = time.monotonic() + max(OVERRUN * planned.seconds.high, PATIENCE)
    deadline = given_up if limit is None else min(given_up, run.began + limit)
    course = Course(steps=planned.recipes[0].steps)
    with noting_stops(run, course), using_threads(run.rates.train_threads):
        recipes = in_question(run, planned)
        fold = open_fold(run, start, features, recipes[0].settings, deadline=deadline)
        course.n_images = len(fold.held)
        for n_done, recipe in enumerate(recipes):
            with noting_divergence(run, course, recipe.regime):
                try_recipe(fold, recipe, course, n_left=len(recipes) - n_done)
    return Trial(
        runs=tuple(course.runs),
        steps=course.steps,
        n_images=course.n_images,
        starts_from="penultimate" if start.layers == PENULTIMATE else "all_stages",
        seconds=run.ranks.first(time.monotonic() - began),
        diverged=tuple(course.diverged),
        stopped=course.stopped,
    )


def in_question(run: Run, planned: TrialPlan) -> list[Recipe]:
    """Return the recipes to be tried: those that settings of the user's own make alike, once."""
    found: dict[FineTuneSettings, Regime] = {}
    # A trial is one training, of all its steps.
    asked = replace(run.settings, steps="auto", refit="anew")
    for recipe in planned.recipes:
        found.setdefault(planned_settings(asked, recipe, run.extractor.backbone), recipe.regime)
    return [Recipe(regime=regime, settings=settings) for settings, regime in found.items()]


def open_fold(run: Run, start: Probe, features: FrozenFeatures, settings: FineTuneSettings, *, deadline: float) -> Fold:
    """Deal the images, fit a probe to all that are not held out, and decode those that the runs will look at.

    Raises
    ------
    BudgetError
        The deadline has passed.
    InvalidInputError
        Fewer than two images can be held out.
    """
    weights = np.ones(len(run.source)) if run.sample_weight is None else run.sample_weight
    rows, rng = np.flatnonzero(weights), np.random.default_rng(run.seed)  # a row of weight 0 is no row
    known = joined(features, start.layers)
    whole = FoldProbe(
        head=start.head,
        features=known if len(rows) == len(weights) else take_rows(known, rows),
        labels=run.labels[rows],
        sample_weight=weights[rows],
        groups=None if run.groups is None else run.groups[rows],
    )
    recipe = recipe_for(run.extractor.backbone, settings, n_images=len(rows))
    run.ranks.check_same(**facts_of(whole, recipe, seed=run.seed))
    folds = whole.deal_folds(recipe.cross_fit.n_folds, rng)
    # The last fold: fine-tuning will be compared on the first one.
    train, held = np.flatnonzero(folds.train[-1]), np.flatnonzero(folds.held_out[-1])
    if len(held) < 2:
        raise InvalidInputError("too few different images of a class to hold any out")
    head = whole.refitted_on(train, seed=run.seed)
    train = rng.permutation(train)[: recipe.steps * recipe.batch_size]
    held = rng.permutation(held)[:TRIAL_HELD_OUT]
    used = np.sort(np.concatenate([train, held]))
    probe = FoldProbe(
        head=whole.head,
        features=take_rows(whole.features, used),
        labels=whole.labels[used],
        sample_weight=whole.sample_weight[used],
        groups=None if whole.groups is None else whole.groups[used],
    )
    job = open_job(
        subset(run.source, rows[used]),
        backbone=run.extractor.backbone,
        recipe=recipe,
        weights=image_weights(probe),
        device=run.extractor.device,
        seed=run.seed,
        workers=run.extractor.workers,
        memory_limit=pixels_limit(run),
        deadline=deadline,
        clock=time.monotonic,
        progress=run.progress,
        history=[],
    )
    job = replace(job, ranks=run.ranks, micro_batch=MicroBatch(images_at_once(run)))
    return Fold(
        job=job,
        probe=probe,
        head=head,
        n_samples=len(rows),
        train=np.searchsorted(used, np.sort(train)),
        held=np.searchsorted(used, np.sort(held)),
    )


def try_recipe(fold: Fold, recipe: Recipe, course: Course, *, n_left: int) -> None:
    """Fine-tune with one of the ``n_left`` recipes that are still to be tried, and note how it compares.

    Raises
    ------
    BudgetError
        There is no time left for it.
    FloatingPointError
        It diverged.
    """
    probe, held = fold.probe, fold.held
    numbers = recipe_for(fold.job.backbone, recipe.settings, n_images=fold.n_samples)
    # As in the first fold of fine-tuning: whether images may be mirrored is not known yet.
    job = replace(fold.job, recipe=replace(numbers, flip=numbers.flip and not numbers.check_flip))
    lowered = gentler(job.recipe, times_from_the_start(job, probe, fold.head, fold.train))
    if any(np.allclose(lowered.learning_rates, rates) for rates in course.tried):
        return  # lowered to what the network bears, both recipes may be the same one
    course.tried.append(lowered.learning_rates)
    job = replace(job, recipe=lowered)
    codes = codes_of(probe.labels, probe.head)
    ahead = Ahead(trainings=n_left, images=n_left * len(held) * (len(ALPHAS) - 1))
    pace = share_of_time(job, numbers.steps, ahead)
    stage = f"trying the recipe for {recipe.regime} images"
    path = fit_path(job, fold.head, fold.train, codes=codes[fold.train], stage=stage, pace=pace)
    scores = score_path(job, probe, fold.head, path, rows=held, codes=codes[held])
    groups = held if probe.groups is None else probe.groups[held]
    held_out = HeldOut(**scores, weights=job.weights[held], groups=groups)
    counted = counts(held_out)
    gain, standard_error = gain_of(counted[:, -1] - counted[:, 0], held_out)
    alpha = compare(held_out, z=numbers.acceptance_z).alpha
    course.steps = path.steps
    course.runs.append(TrialRun(regime=recipe.regime, gain=gain, standard_error=standard_error, alpha=alpha))


@contextmanager
def noting_divergence(run: Run, course: Course, regime: Regime) -> Iterator[None]:
    """Note a recipe that diverges and go on; of several processes one alone cannot, so that there the trial stops."""
    try:
        yield
    except FloatingPointError:
        if run.ranks.count > 1:
            raise
        course.diverged.append(regime)


@contextmanager
def noting_stops(run: Run, course: Course) -> Iterator[None]:
    """Note what ends the trial, and say that the probe is kept."""
    try:
        with run.ranks.telling(*FAILURES):
            yield
    except STOPS as stop:
        if isinstance(stop, KeyboardInterrupt) and run.ranks.count > 1:
            raise  # each is interrupted at another step, as in ``finetune``
        course.stopped = reason_of(stop)
        message = f"The trial of fine-tuning stopped: {course.stopped}. The linear probe is kept."
        warnings.warn(message, FallbackWarning, stacklevel=2)
