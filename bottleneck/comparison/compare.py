"""The experiment: features of each backbone once, the same folds for all, a head fitted anew in each."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import clone
from sklearn.utils.multiclass import check_classification_targets
from torch import nn

from bottleneck.backbones import Backbone, load_backbone
from bottleneck.cache import FeatureCache
from bottleneck.comparison.intervals import Interval, accuracy_interval, difference_interval
from bottleneck.comparison.records import BackboneComparison, BackboneScore
from bottleneck.errors import InvalidInputError, wrong_parameter
from bottleneck.estimators.frozen import OneLayer, extract_frozen, layer_of, memory_for_fit
from bottleneck.estimators.layers import PENULTIMATE
from bottleneck.estimators.parse import open_cache, parse_seed
from bottleneck.extraction import ExtractionSettings, Extractor
from bottleneck.features import FeatureBlocks, parse_on_error, settle_precision
from bottleneck.heads import LogisticHead
from bottleneck.heads.duplicates import cut, group_copies, mark_rows
from bottleneck.heads.folds import CrossValidation, Folds, deal_parts, follow_splits
from bottleneck.heads.training import parse_groups
from bottleneck.images import ImageSource, as_labelled_source
from bottleneck.profiling import Rates, profile_run
from bottleneck.progress import Progress, ProgressCallback, progress_bars

OWNER = "compare_backbones"


def compare_backbones(
    X: object,
    y: ArrayLike | None,
    backbones: Sequence[str | nn.Module | Backbone],
    *,
    cv: CrossValidation = 5,
    head: Any = None,
    groups: ArrayLike | None = None,
    cache_dir: str | Path | None = None,
    device: str = "auto",
    precision: str = "auto",
    batch_size: int | str = "auto",
    image_shape: tuple[int, ...] | None = None,
    on_error: str = "raise",
    random_state: int | np.random.RandomState | None = None,
    verbose: bool = False,
) -> BackboneComparison:
    """Say which backbone's frozen features tell these images apart best, and what each costs.

    Every image goes through every backbone once; features stay in the cache, so that a second comparison, or a
    ``fit`` afterwards, computes nothing again. All backbones are judged on the same held-out images: in each fold
    the head chooses its normalisation and C by itself on the images of that fold alone, so no held-out image has a
    say. Choosing the first of many by this table is still a choice made on these images: take its interval, and
    those of the differences, seriously.

    Parameters
    ----------
    X, y
        Images and labels as in ``TransferClassifier.fit``: ``y=None`` where X has its own.
    backbones : sequence of str, nn.Module or Backbone
        What ``load_backbone`` takes; for weights of your own pass what it returns.
    cv : int, splitter or iterable of (train, test)
        Folds. With a number they are stratified, and copies of a picture (by the first backbone's features) and
        images of a group are never on both sides.
    head : classifier, optional
        ``LogisticHead()`` by default; fitted anew in each fold.
    groups : array-like (n_samples,), optional
        Which images belong together, as in ``TransferClassifier.fit``.
    cache_dir, device, precision, batch_size, image_shape, on_error, verbose
        As in ``TransferClassifier``.
    random_state : int, RandomState or None
        Seed of the folds and of the heads.

    Returns
    -------
    BackboneComparison
        Prints as a table; ``rows()``, ``to_frame()``, ``plot()``.

    Raises
    ------
    InvalidInputError
        Images, labels or a parameter cannot be used, or no image can be held out.
    BackboneError
        A backbone cannot be loaded; said before any image is read.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from bottleneck import compare_backbones, load_backbone
    >>> X, y = load_digits(return_X_y=True)
    >>> table = compare_backbones(X[:100] / 16, y[:100], ["embedded"], image_shape=(8, 8), cv=3, random_state=0)
    >>> len(table), table.best.backbone, table.n_images
    (1, 'embedded', 100)
    """
    parse_on_error(on_error, OWNER)
    seed = parse_seed(random_state)
    source, labels = as_labelled_source(X, y, image_shape=image_shape)
    check_classification_targets(labels)
    networks = _load_all(backbones)
    settings = ExtractionSettings(device=device, precision=precision, batch_size=batch_size)
    experiment = _Experiment(
        source=source,
        labels=labels,
        groups=parse_groups(groups, len(source)),
        head=_with_seed(LogisticHead() if head is None else head, seed),
        cv=cv,
        seed=seed,
        cache=open_cache(cache_dir),
        on_error=on_error,
    )
    with progress_bars(enabled=verbose) as progress:
        trials = experiment.run([Extractor(network, settings) for network in networks], progress)
    return summarise(trials, labels, experiment.groups)


@dataclass(frozen=True, kw_only=True, slots=True)
class Trial:
    """What one backbone did: ``right`` (n_samples,) is 1 or 0 for held-out images, NaN for others."""

    backbone: Backbone
    right: NDArray[np.float64]
    n_folds: int
    seconds: float
    rates: Rates
    feature_bytes: int
    rows_extracted: int
    rows_cached: int


@dataclass(frozen=True, kw_only=True, slots=True)
class _Experiment:
    """What is the same for all backbones."""

    source: ImageSource
    labels: NDArray[Any]
    groups: NDArray[np.intp] | None
    head: Any
    cv: CrossValidation
    seed: int
    cache: FeatureCache
    on_error: str

    def run(self, extractors: Sequence[Extractor], progress: ProgressCallback) -> list[Trial]:
        """Try each backbone on the folds that the first one's features gave."""
        trials: list[Trial] = []
        folds: Folds | None = None
        for extractor in extractors:
            report = _named(progress, extractor.backbone.name)
            precision = settle_precision(extractor, self.cache, self.source)
            profile, rates = profile_run(self.source, self.labels, extractor, self.cache, precision=precision)
            began = time.monotonic()
            features = extract_frozen(
                self.source,
                extractor,
                self.cache,
                precision=precision,
                layers=PENULTIMATE,
                limit=memory_for_fit(getattr(self.head, "memory_limit", "auto")),
                on_error=self.on_error,
                progress=report,
            )
            layer = layer_of(features, "penultimate")
            folds = self._deal(layer, features.kept) if folds is None else folds
            trials.append(
                Trial(
                    backbone=extractor.backbone,
                    right=self._hold_out(layer, features.kept, folds, report),
                    n_folds=len(folds),
                    seconds=time.monotonic() - began,
                    rates=rates,
                    feature_bytes=profile.feature_bytes_per_image * len(features.kept),
                    rows_extracted=features.report.rows_extracted,
                    rows_cached=features.report.rows_cached,
                )
            )
        return trials

    def _deal(self, layer: OneLayer, kept: NDArray[np.int64]) -> Folds:
        """Return folds of the rows of the source; those that are not kept are in no part."""
        if isinstance(self.cv, int | np.integer):
            codes = np.unique(self.labels[kept], return_inverse=True)[1]
            blocks = cut(layer) if isinstance(layer, np.ndarray) else iter(layer)
            marks = mark_rows(blocks, n_samples=len(kept), n_features=layer.shape[1])
            groups = None if self.groups is None else np.unique(self.groups[kept], return_inverse=True)[1]
            rng = np.random.default_rng(self.seed)
            n_folds, parts = deal_parts(int(self.cv), group_copies(marks, codes), codes, rng, groups=groups)
            held_out = parts == np.arange(n_folds)[:, None]
            dealt = Folds(train=~held_out, held_out=held_out)
        else:
            dealt = follow_splits(self.cv, self.labels, groups=self.groups)
            dealt = Folds(train=dealt.train[:, kept], held_out=dealt.held_out[:, kept])
        if not dealt.held_out.any():
            raise InvalidInputError("No image can be held out: there is one distinct image of each class. Add images.")
        return Folds(train=self._spread(dealt.train, kept), held_out=self._spread(dealt.held_out, kept))

    def _spread(self, mask: NDArray[np.bool_], kept: NDArray[np.int64]) -> NDArray[np.bool_]:
        spread = np.zeros((len(mask), len(self.source)), dtype=bool)
        spread[:, kept] = mask
        return spread

    def _hold_out(
        self, layer: OneLayer, kept: NDArray[np.int64], folds: Folds, progress: ProgressCallback
    ) -> NDArray[np.float64]:
        """Return which held-out images were right (n_samples,), NaN for those that none of the folds held out."""
        right = np.full(len(self.source), np.nan)
        for fold in range(len(folds)):
            progress(Progress(stage="heads", done=fold, total=len(folds), unit="folds"))
            train, test = (np.flatnonzero(part[fold][kept]) for part in (folds.train, folds.held_out))
            if len(test) == 0:
                continue
            given = {} if self.groups is None else {"groups": self.groups[kept[train]]}
            head = clone(self.head).fit(_rows(layer, train), self.labels[kept[train]], **given)
            right[kept[test]] = head.predict(_rows(layer, test)) == self.labels[kept[test]]
        return right


def summarise(trials: Sequence[Trial], labels: NDArray[Any], groups: NDArray[np.intp] | None) -> BackboneComparison:
    """Return the table of what all backbones did on the images that each of them held out."""
    common = np.flatnonzero(~np.isnan([trial.right for trial in trials]).any(axis=0))
    right = [trial.right[common] == 1 for trial in trials]
    numbers = None if groups is None else np.unique(groups[common], return_inverse=True)[1]
    order = sorted(range(len(trials)), key=lambda i: (-right[i].sum(), _seconds_per_image(trials[i].rates)))
    best = order[0]
    scores = []
    for i in order:
        network = trials[i].backbone.network
        behind = difference_interval(right[best], right[i], numbers)
        scores.append(
            BackboneScore(
                backbone=trials[i].backbone.name,
                weights=trials[i].backbone.weights,
                accuracy=accuracy_interval(right[i], numbers),
                behind=Interval(value=0.0, low=0.0, high=0.0) if i == best else behind,
                seconds=trials[i].seconds,
                images_per_second=1 / _seconds_per_image(trials[i].rates),
                weight_bytes=sum(part.numel() * part.element_size() for part in network.state_dict().values()),
                feature_bytes=trials[i].feature_bytes,
                n_features=trials[i].backbone.n_features,
                rows_extracted=trials[i].rows_extracted,
                rows_cached=trials[i].rows_cached,
            )
        )
    _, counts = np.unique(labels[common], return_counts=True)
    return BackboneComparison(
        scores=tuple(scores),
        n_images=len(common),
        n_classes=len(counts),
        n_folds=trials[0].n_folds,
        majority=float(counts.max() / len(common)),
    )


def _load_all(backbones: Sequence[str | nn.Module | Backbone]) -> list[Backbone]:
    """Load every backbone, so that a mistyped one is said before the first image is read.

    Raises
    ------
    InvalidInputError
        There is none, or the same twice.
    """
    if isinstance(backbones, str) or not isinstance(backbones, Sequence) or not backbones:
        raise wrong_parameter(OWNER, "backbones", 'a list such as ["embedded", "resnet50"]', backbones)
    loaded = [load_backbone(backbone) for backbone in backbones]
    digests = [(network.weights_digest, network.preprocess) for network in loaded]
    for i, digest in enumerate(digests):
        if digest in digests[:i]:
            raise InvalidInputError(
                f"The backbone {loaded[i].name} ({loaded[i].weights}) is there twice. Name it once."
            )
    return loaded


def _with_seed(head: Any, seed: int) -> Any:
    """Return the head with the seed, unless it has one of its own."""
    params = head.get_params(deep=False)
    return clone(head).set_params(random_state=seed) if params.get("random_state", seed) is None else clone(head)


def _rows(layer: OneLayer, rows: NDArray[np.intp]) -> OneLayer:
    return layer.take(rows) if isinstance(layer, FeatureBlocks) else layer[rows]


def _seconds_per_image(rates: Rates) -> float:
    return max(rates.decode_seconds_per_image + rates.forward_seconds_per_image, 1e-9)


def _named(progress: ProgressCallback, name: str) -> ProgressCallback:
    """Return a callback whose bars bear the backbone's name."""
    return lambda event: progress(replace(event, stage=f"{name}: {event.stage}"))
