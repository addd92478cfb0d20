"""One fit on its way: the parts that were opened for it, and the steps that it consists of."""

import time
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone

from bottleneck.backbones import Backbone, load_backbone
from bottleneck.cache import FeatureCache
from bottleneck.errors import wrong_parameter
from bottleneck.estimators.frozen import (
    FrozenFeatures,
    Matrix,
    extract_frozen,
    fits_in_memory,
    joined,
    layer_of,
    memory_for_fit,
)
from bottleneck.estimators.layers import PENULTIMATE, layers_of
from bottleneck.estimators.limits import (
    chunk_rows,
    images_at_once,
    may_keep_checkpoints,
    pixels_limit,
    settle_disk,
)
from bottleneck.estimators.planned import expect, settings_for, wishes_of
from bottleneck.estimators.resuming import Begun, begin, checkpoint_folder, finish
from bottleneck.estimators.screening import screen_early_stages, screen_layers
from bottleneck.estimators.signals import measure_neighbours, measure_shift
from bottleneck.estimators.together import as_on_first, extract_share
from bottleneck.estimators.watch import Watch
from bottleneck.extraction import Extractor, Precision, using_threads
from bottleneck.finetune import EpochRecord, Expected, FineTuneResult, FineTuneSettings, finetune
from bottleneck.finetune.ranks import ALONE, Ranks
from bottleneck.heads import LogisticHead
from bottleneck.heads.screen import MAX_ROWS
from bottleneck.images import ImageSource, subset
from bottleneck.planner import (
    Budget,
    FineTune,
    LinearProbe,
    MemoryShares,
    Plan,
    ProbeEvidence,
    Profile,
    Request,
    Scratch,
    StrategyName,
    better_probe,
    needed_for_further_head,
    percent,
    plan_transfer,
)
from bottleneck.profiling import Rates
from bottleneck.progress import ProgressCallback


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """Everything that one ``fit`` works with."""

    source: ImageSource
    labels: NDArray[Any]
    sample_weight: NDArray[np.float64] | None
    groups: NDArray[np.intp] | None
    extractor: Extractor
    cache: FeatureCache
    precision: Precision
    profile: Profile
    rates: Rates
    budget: Budget
    strategy: StrategyName
    head: Any
    settings: FineTuneSettings
    seed: int
    began: float
    progress: ProgressCallback
    watch: Watch
    shares: MemoryShares | None = None
    ranks: Ranks = ALONE


@dataclass(frozen=True, kw_only=True, slots=True)
class Probe:
    """A head fitted on frozen features, and what it showed."""

    head: Any
    layers: tuple[str, ...]
    evidence: ProbeEvidence | None
    """None where nothing could be held out: one image a class"""
    wide: "Probe | None" = None
    """The probe on all stages, where that has been fitted"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """The classifier that a run delivers: a head on layers of a backbone, and how it came about."""

    backbone: Backbone
    head: Any
    layers: tuple[str, ...]
    accuracy: float
    strategy: StrategyName
    message: str
    history: tuple[EpochRecord, ...] = ()


def plan_run(run: Run, evidence: ProbeEvidence | None = None) -> Plan:
    """Ask the planner, with or without what the probes showed."""
    plan = plan_transfer(
        run.profile,
        run.budget,
        evidence=evidence,
        strategy=run.strategy,
        seed=run.seed,
        wishes=wishes_of(run.settings, run.extractor.backbone),
    )
    return plan_of_first(run, plan)


def plan_of_first(run: Run, plan: Plan) -> Plan:
    """Return the plan of the first process: each has measured times of its own, and all must do and say the same."""
    return plan if run.ranks.count == 1 else Plan.from_json(run.ranks.first(plan.to_json()))


def extract_run(run: Run, on_error: str) -> FrozenFeatures:
    """Return the features of every layer: one pass, or none where the cache has them all.

    Raises
    ------
    InvalidInputError
        They do not fit in memory, and the head needs them there.
    """
    widths, limit = run.extractor.backbone.layer_widths, memory_for_fit(run.head.memory_limit)
    penultimate = {"penultimate": widths["penultimate"]}
    if _needs_memory(run.head) and not fits_in_memory(len(run.source), penultimate, limit=limit):
        allowed = (
            "None, a LogisticHead (cv other than 'loo') or a linear SVMHead (multi_class='ovr') for "
            f"{len(run.source)} images, too many to fit in memory"
        )
        raise wrong_parameter("TransferClassifier", "head", allowed, run.head)
    settle_disk(run)
    with run.watch.timing("features"):
        return _extract(run, run.extractor, run.precision, layers=tuple(widths), on_error=on_error)


def _needs_memory(head: Any) -> bool:
    """Say whether a head cannot be fitted to features from disk."""
    asked = {name: getattr(head, name, None) for name in ("kernel", "multi_class", "cv")}
    return asked["kernel"] == "rbf" or asked["multi_class"] == "crammer_singer" or asked["cv"] == "loo"


def _extract(
    run: Run, extractor: Extractor, precision: Precision, *, layers: tuple[str, ...], on_error: str = "raise"
) -> FrozenFeatures:
    n_extracted = extract_share(
        run.ranks, run.source, extractor, run.cache, precision=precision, layers=layers, progress=run.progress
    )
    features = extract_frozen(
        run.source,
        extractor,
        run.cache,
        precision=precision,
        layers=layers,
        limit=memory_for_fit(run.head.memory_limit),
        on_error=on_error,
        progress=run.progress,
        chunk_rows=chunk_rows(run),
    )
    return as_on_first(run.ranks, features, n_extracted=n_extracted)


def readable_part(run: Run, features: FrozenFeatures) -> Run:
    """Return the run without the images that could not be read."""
    if len(features.kept) == len(run.source):
        return run
    return replace(
        run,
        source=subset(run.source, features.kept),
        labels=run.labels[features.kept],
        sample_weight=None if run.sample_weight is None else run.sample_weight[features.kept],
        groups=None if run.groups is None else run.groups[features.kept],
    )


def fit_probe(run: Run, features: FrozenFeatures) -> Probe:
    """Fit the head on penultimate features, and screen what the earlier stages would add."""
    began = time.monotonic()
    with run.watch.timing("heads"):
        head = fit_head(run, layer_of(features, "penultimate"))
        evidence = _evidence(run, features, head, began=began) if np.isfinite(head.accuracy_cv_) else None
    return Probe(head=head, layers=PENULTIMATE, evidence=evidence)


def _evidence(run: Run, features: FrozenFeatures, head: Any, *, began: float) -> ProbeEvidence:
    """Say what the probes showed: the head by its own folds, the earlier stages by closed-form leave-one-out."""
    asked: dict[str, Any] = {
        "layers": tuple(run.extractor.backbone.layer_widths),
        "sample_weight": run.sample_weight,
        "groups": run.groups,
        "normalization": head.normalize_,
        "seed": run.seed,
        "limit": MAX_ROWS if run.shares is None else run.shares.screened_rows,
    }
    screen = screen_layers(features, run.labels, **asked)
    all_stages = early_stages = None
    if screen is not None and len(run.extractor.backbone.layer_widths) > 1:
        penultimate = screen.best("penultimate").loo_accuracy
        lead = screen.gain("all_stages", over="penultimate").accuracy
        all_stages = float(np.clip(head.accuracy_cv_ + lead, 0, 1))
        lag = penultimate - screen_early_stages(features, run.labels, **asked)
        early_stages = float(np.clip(head.accuracy_cv_ - lag, 0, 1))
    curve = () if screen is None else screen.learning_curve
    head_seconds = time.monotonic() - began
    neighbours, shift = measure_neighbours(run, features), measure_shift(run, features)
    return ProbeEvidence(
        accuracy=head.accuracy_cv_,
        standard_error=head.accuracy_se_,
        train_accuracy=float((head.predict(layer_of(features, "penultimate")) == run.labels).mean()),
        head_seconds=head_seconds,
        all_stages_accuracy=all_stages,
        learning_curve=tuple((point.n_samples, point.accuracy) for point in curve),
        spent_seconds=time.monotonic() - run.began,
        early_stages_accuracy=early_stages,
        neighbours_accuracy=neighbours,
        batch_norm_shift=shift,
    )


def fit_head(run: Run, features: Matrix) -> Any:
    """Return a fitted clone of the run's head."""
    return clone(run.head).fit(features, run.labels, sample_weight=run.sample_weight, groups=run.groups)


def carry_out(run: Run, plan: Plan, probe: Probe, features: FrozenFeatures) -> Outcome:
    """Do what the plan says, and deliver the probe wherever that turns out no better."""
    match plan.strategy:
        case LinearProbe(layers="all_stages"):
            return _all_stages(run, probe, features)
        case LinearProbe():
            return _deliver(run, probe, "The head on the penultimate layer is delivered.")
        case FineTune() | Scratch():
            return _fine_tuned(run, plan, probe, features)


def _deliver(run: Run, probe: Probe, message: str) -> Outcome:
    return Outcome(
        backbone=run.extractor.backbone,
        head=probe.head,
        layers=probe.layers,
        accuracy=probe.head.accuracy_cv_,
        strategy="probe" if probe.layers == PENULTIMATE else "all_stages_probe",
        message=message,
    )


def _all_stages(run: Run, probe: Probe, features: FrozenFeatures) -> Outcome:
    """Fit the head on all stages, and keep it unless its own cross-validation is worse than the probe's."""
    if probe.wide is None and run.ranks.first(_is_out_of_time(run, probe)):
        return _deliver(run, probe, "There is no time left for a head on all stages; the penultimate one is delivered.")
    wide = probe.wide or _probe_on_all_stages(run, features)
    before, after = probe.head.accuracy_cv_, wide.head.accuracy_cv_
    compared = f"{percent(after)} out of fold, against {percent(before)} with the penultimate layer alone"
    if run.strategy == "auto" and not after >= before:  # nor if nothing could be held out
        return _deliver(run, probe, f"The head on all stages was worse ({compared}); the penultimate one is delivered.")
    return _deliver(run, wide, f"The head on all stages is delivered: {compared}.")


def _probe_on_all_stages(run: Run, features: FrozenFeatures) -> Probe:
    layers = layers_of(run.extractor.backbone, "all_stages")
    with run.watch.timing("heads"):
        head = fit_head(run, joined(features, layers))
    return Probe(head=head, layers=layers, evidence=None)


def _is_out_of_time(run: Run, probe: Probe) -> bool:
    """Say whether there is too little time left of the budget for another head, on all stages."""
    if run.budget.seconds is None or probe.evidence is None:
        return False
    request = Request(
        profile=run.profile, budget=run.budget, evidence=probe.evidence, strategy=run.strategy, seed=run.seed
    )
    return time.monotonic() - run.began + needed_for_further_head(request) > run.budget.seconds


def _fine_tuned(run: Run, plan: Plan, probe: Probe, features: FrozenFeatures) -> Outcome:
    """Train all layers from the better probe, or from random weights, and deliver the better of probe and network."""
    scratch = isinstance(plan.strategy, Scratch)
    if scratch:
        result = _train_from_scratch(run, plan)
    else:
        probe = start_of_finetuning(run, probe, features)
        expected = expect(plan, probe.layers)
        joint = joined(features, probe.layers)
        result = _finetune(run, plan, run.extractor.backbone, probe.head, joint, expected=expected)
    comparison = result.comparison
    if not result.accepted or comparison is None:
        return replace(_deliver(run, probe, result.message), history=result.history)
    reached, needed = comparison.tuned_accuracy, probe.head.accuracy_cv_
    if scratch and reached <= needed:
        message = f"From random weights {percent(reached)} were reached out of fold, no more than the probe's "
        return replace(_deliver(run, probe, f"{message}{percent(needed)}."), history=result.history)
    return Outcome(
        backbone=result.backbone,
        head=result.head,
        layers=PENULTIMATE if scratch else probe.layers,
        accuracy=reached,
        strategy="scratch" if scratch else "finetune",
        message=result.message,
        history=result.history,
    )


def start_of_finetuning(run: Run, probe: Probe, features: FrozenFeatures) -> Probe:
    """Return the probe on all stages where it is clearly the better one: fine-tuning must not lose what these know."""
    if probe.wide is not None:
        return probe.wide
    promising = probe.evidence is not None and better_probe(probe.evidence)[0] == "all_stages"
    if not promising or run.ranks.first(_is_out_of_time(run, probe)):
        return probe
    wide = _probe_on_all_stages(run, features)
    return max(probe, wide, key=lambda one: one.head.accuracy_cv_)  # the first of equals


def _train_from_scratch(run: Run, plan: Plan) -> FineTuneResult:
    """Train the same network from random weights, starting from a probe on its untrained features."""
    given = run.extractor.backbone
    backbone = load_backbone(given.reference.backbone, None, preprocess=given.preprocess)
    extractor = Extractor(backbone, run.extractor.settings)
    penultimate = layer_of(_extract(run, extractor, "float32", layers=PENULTIMATE), "penultimate")
    return _finetune(run, plan, backbone, fit_head(run, penultimate), penultimate)


def _finetune(
    run: Run,
    plan: Plan,
    backbone: Backbone,
    head: LogisticHead,
    features: Matrix,
    *,
    expected: Expected | None = None,
) -> FineTuneResult:
    """Fine-tune, or go on where the same fit was stopped."""
    planned = Begun(settings=settings_for(plan, run.settings, backbone), threads=run.rates.train_threads)
    folder = checkpoint_folder(run, backbone) if may_keep_checkpoints(run, plan.request) else None
    begun = planned if folder is None else run.ranks.first_then_others(lambda: begin(folder, planned))
    with using_threads(begun.threads):
        result = finetune(
            run.source,
            run.labels,
            backbone=backbone,
            head=head,
            features=features,
            settings=begun.settings,
            sample_weight=run.sample_weight,
            groups=run.groups,
            seed=run.seed,
            device=run.extractor.device,
            workers=run.extractor.workers,
            memory_limit=pixels_limit(run),
            images_at_once=images_at_once(run),
            deadline=None if plan.training_limit is None else run.began + plan.training_limit,
            progress=run.progress,
            ranks=run.ranks,
            checkpoint_dir=folder,
            expected=expected,
        )
    run.watch.add("folds", result.fold_seconds)
    run.watch.add("refit", result.refit_seconds)
    if folder is not None and run.ranks.is_first and not result.resumable:
        finish(folder)
    return result
