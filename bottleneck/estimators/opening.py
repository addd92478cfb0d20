"""From a classifier's parameters and data to an opened run: everything is checked here, before anything is computed."""

import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import clone
from sklearn.utils.multiclass import check_classification_targets

from bottleneck.backbones import Backbone, load_backbone
from bottleneck.errors import InvalidInputError, did_you_mean, wrong_parameter
from bottleneck.estimators.limits import (
    bound_cache,
    limit_head,
    memory_shares,
    room_in_network,
    sizes_before_profile,
)
from bottleneck.estimators.parse import open_cache, parse_budget, parse_sample_weight, parse_seed
from bottleneck.estimators.planned import n_frozen
from bottleneck.estimators.run import Run
from bottleneck.estimators.watch import mark_memory, start_watch
from bottleneck.extraction import ExtractionSettings, Extractor, resolve_device
from bottleneck.features import feature_space, parse_on_error, settle_precision
from bottleneck.finetune import FineTuneSettings, check_settings
from bottleneck.finetune.ranks import ALONE, Ranks
from bottleneck.heads import LogisticHead
from bottleneck.heads.training import parse_groups
from bottleneck.images import as_labelled_source
from bottleneck.planner import Budget, RunSizes, StrategyName
from bottleneck.profiling import profile_run
from bottleneck.progress import ProgressCallback

if TYPE_CHECKING:
    from bottleneck.estimators.classifier import TransferClassifier

TRAINING = ("finetune", "scratch")


def open_run(
    classifier: "TransferClassifier",
    X: object,
    y: ArrayLike | None,
    sample_weight: ArrayLike | None = None,
    groups: ArrayLike | None = None,
    *,
    progress: ProgressCallback,
    ranks: Ranks = ALONE,
) -> Run:
    """Return the run of a classifier on these images: data and parameters parsed, parts opened, rates measured.

    Raises
    ------
    InvalidInputError
        Images, labels or a parameter cannot be used.
    """
    began = time.monotonic()
    seed = ranks.first(parse_seed(classifier.random_state))
    budget = budget_of(classifier)
    memory = mark_memory(resolve_device(classifier.device))
    parse_on_error(classifier.on_error, "TransferClassifier")
    _check_strategy(classifier.strategy)
    source, labels = as_labelled_source(X, y, image_shape=classifier.image_shape)
    check_classification_targets(labels)
    ranks.check_same(labels=labels)
    weight = parse_sample_weight(sample_weight, len(source))
    numbers = parse_groups(groups, len(source))
    backbone = load_backbone(classifier.backbone, classifier.weights)
    strategy = _allowed_strategy(classifier, backbone)
    _check_finetune(classifier.finetune, backbone)
    sizes = sizes_before_profile(backbone, n_samples=len(source), n_classes=len(np.unique(labels)))
    extractor = Extractor(backbone, extraction_settings(classifier, sizes, budget))
    cache = bound_cache(open_cache(classifier.cache_dir), budget.disk_bytes, backbone, n_rows=len(source))
    precision = ranks.first(settle_precision(extractor, cache, source))
    watch = start_watch(began, extractor.device, memory, cache, feature_space(backbone, precision))
    profile, rates = profile_run(
        source,
        labels,
        extractor,
        cache,
        precision=precision,
        memory_limit=budget.memory_bytes,
        freeze_groups=n_frozen(classifier.finetune),
    )
    profile = replace(profile, preparation_seconds=time.monotonic() - began)
    watch.add("preparation", profile.preparation_seconds)
    shares = memory_shares(profile, budget)
    return Run(
        source=source,
        labels=labels,
        sample_weight=weight,
        groups=numbers,
        extractor=extractor,
        cache=cache,
        precision=precision,
        profile=profile,
        rates=rates,
        budget=budget,
        strategy=strategy,
        head=limit_head(_head_to_fit(classifier, seed), shares),
        settings=classifier.finetune,
        seed=seed,
        began=began,
        progress=progress,
        watch=watch,
        shares=shares,
        ranks=ranks,
    )


def budget_of(classifier: "TransferClassifier") -> Budget:
    """Return what a classifier's calls may take.

    Raises
    ------
    InvalidInputError
        One of the limits is outside its values.
    """
    return parse_budget(
        classifier.time_budget,
        classifier.risk,
        memory_limit=classifier.memory_limit,
        disk_limit=classifier.disk_limit,
    )


def extraction_settings(classifier: "TransferClassifier", sizes: RunSizes, budget: Budget) -> ExtractionSettings:
    """Return how a classifier's features are computed within its limits."""
    return ExtractionSettings(
        device=classifier.device,
        precision=classifier.precision,
        batch_size=classifier.batch_size,
        memory_limit=room_in_network(sizes, budget),
    )


def _check_strategy(strategy: object) -> None:
    """Raise on a strategy that there is not."""
    names = get_args(StrategyName)
    if strategy not in names:
        allowed = f"{', '.join(map(repr, names[:-1]))} or {names[-1]!r}"
        raise wrong_parameter("TransferClassifier", "strategy", allowed, strategy, did_you_mean(str(strategy), names))


def _allowed_strategy(classifier: "TransferClassifier", backbone: Backbone) -> Any:
    """Return the strategy, kept to probes where the head is none that fine-tuning can start from."""
    strategy, head = classifier.strategy, classifier.head
    if strategy == "scratch" and not backbone.reference.rebuildable:
        raise InvalidInputError(
            f"strategy='scratch' needs a network that can be built again with random weights, and {backbone.name} "
            "is an own module. Pass it untrained, with strategy='finetune'."
        )
    if head is None or isinstance(head, LogisticHead) or strategy not in ("auto", *TRAINING):
        return strategy
    if strategy == "auto":
        return "probe"
    raise wrong_parameter(
        "TransferClassifier",
        "head",
        f"None or a LogisticHead with strategy={strategy!r}, which starts from one",
        head,
    )


def _check_finetune(settings: object, backbone: Backbone) -> None:
    """Raise on settings of fine-tuning that are not allowed, whether or not the plan will need them."""
    if not isinstance(settings, FineTuneSettings):
        raise wrong_parameter("TransferClassifier", "finetune", "a FineTuneSettings", settings)
    check_settings(settings, n_groups=len(backbone.layer_groups))


def _head_to_fit(classifier: "TransferClassifier", seed: int) -> Any:
    """Return the head to fit, with the classifier's class weights and seed where it has none of its own."""
    head = LogisticHead(cv=classifier.cv) if classifier.head is None else clone(classifier.head)
    own = head.get_params(deep=False)
    ours = {"class_weight": classifier.class_weight, "random_state": seed}
    return head.set_params(**{name: value for name, value in ours.items() if name in own and own[name] is None})
