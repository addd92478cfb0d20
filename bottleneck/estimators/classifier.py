"""The classifier: plan, probe, and where it wins, fine-tune."""

from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import ClassifierMixin
from sklearn.metrics import accuracy_score
from sklearn.utils.validation import check_is_fitted
from torch import nn

from bottleneck.backbones import Backbone
from bottleneck.errors import ImageFailure, InvalidInputError
from bottleneck.estimators.bounded import BoundedCache
from bottleneck.estimators.health import data_health, labels_health
from bottleneck.estimators.layers import join_layers
from bottleneck.estimators.limits import bound_cache, sizes_before_profile
from bottleneck.estimators.opening import budget_of, extraction_settings, open_run
from bottleneck.estimators.params import RecordParams
from bottleneck.estimators.parse import open_cache, parse_sample_weight
from bottleneck.estimators.run import (
    Outcome,
    Run,
    carry_out,
    extract_run,
    fit_probe,
    plan_of_first,
    plan_run,
    readable_part,
)
from bottleneck.estimators.together import to_train_together
from bottleneck.estimators.trial import try_first
from bottleneck.extraction import Extractor
from bottleneck.features import CacheReport, feature_chunks, parse_on_error, raise_or_warn
from bottleneck.finetune import FineTuneSettings
from bottleneck.images import as_image_source, as_labelled_source
from bottleneck.planner import Plan
from bottleneck.progress import progress_bars


class TransferClassifier(ClassifierMixin, RecordParams):  # type: ignore[misc]  # scikit-learn ships no types
    """A classifier of images on a pretrained backbone.

    ``fit`` runs every image once through the frozen backbone, caches the features, fits a linear head on them, and
    hands over to fine-tuning where the planner expects that to win. Features that would not fit in memory (the head's
    ``memory_limit``) are read from the cache in blocks instead. It says what it chose and why in ``plan_``, and
    is never worse than the probe on images that neither has seen, as far as these can tell.

    Parameters
    ----------
    backbone : str, nn.Module or Backbone
        "embedded", a torchvision classification model ("resnet50"), "timm:NAME", an own module (with a
        ``Preprocess``: see ``load_backbone``).
    weights : str, path or None
        "default", the name of a member of the network's weights enum, a safetensors or .pth file, None for random.
    strategy : {"auto", "probe", "all_stages_probe", "finetune", "scratch"}
        "auto" lets the planner decide; any other is obeyed.
    time_budget : float or None
        Seconds that ``fit`` may take.
    memory_limit : int or None
        Whole bytes (2e9 are 2 GB) that the arrays of a run may take: network, images in it, features, head and decoded
        images, but not Python and its libraries. Batches become smaller, features are read from the cache in blocks
        and images decoded again rather than exceed it.
    disk_limit : int or None
        Bytes that ``fit``, and each prediction, may add to the cache. Features that would exceed it are kept in memory
        for that call only, and checkpoints are left out, both with a warning.
    cache_dir : path or None
        Folder of the feature cache; None is "bottleneck" beside torch's own cache (TORCH_HOME moves both). Checkpoints
        of a fit that fine-tunes lie in its folder "checkpoints" until that is over.
    device : str
        "auto", "cpu", "cuda", ...
    precision : {"auto", "float32", "bfloat16"}
        Arithmetic of the frozen backbone. "auto" is bfloat16 where the hardware has it and features agree.
    batch_size : int or "auto"
        Images a forward pass.
    image_shape : tuple or None
        ``(h, w)`` or ``(h, w, c)`` of images that come as rows of a 2-D array.
    on_error : {"raise", "skip"}
        Unreadable images: one error that lists them all, or a warning, ``skipped_``, and missing predictions.
    cv : int
        Folds of the cross-validation of the default head; a ``head=`` has its own.
    class_weight : None, "balanced" or dict
        Weights of the classes, as in scikit-learn.
    head : LogisticHead, SVMHead or None
        The head to fit; None is ``LogisticHead(cv=cv)``. One without class weights or seed of its own takes the
        classifier's. Only a LogisticHead can be fine-tuned from.
    finetune : FineTuneSettings
        The knobs of fine-tuning; reached as ``finetune__lr`` in searches.
    risk : {"balanced", "safe"}
        How clearly fine-tuning must beat the probe to replace it.
    random_state : int, RandomState or None
        Seed of everything random.
    verbose : bool
        Show progress bars on the standard error stream.

    Attributes
    ----------
    plan_ : Plan
        What was chosen, why, and what the alternatives would have cost; ``plan_.costs`` holds what each part of the
        run was predicted to take and what it took.
    classes_ : array (n_classes,)
    head_ : fitted head
        On the features of ``backbone_``.
    backbone_ : Backbone
        Frozen, or tuned if fine-tuning was kept.
    history_ : tuple
        One record an epoch of fine-tuning; empty for a probe.
    skipped_ : tuple of ImageFailure
        Images left out of ``fit`` because ``on_error="skip"``.
    accuracy_cv_ : float
        Out-of-fold accuracy of the delivered classifier, in [0, 1]; of a fine-tuned one the probe's on the images held
        out, and the gain as far as these and what was expected tell.
    cache_report_ : CacheReport
        How many images were extracted, and found in the cache.
    n_features_in_ : int
        Features that the head sees.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from bottleneck import TransferClassifier
    >>> digits = load_digits()
    >>> X = (digits.images / 16).astype("float32")
    >>> clf = TransferClassifier(strategy="probe").fit(X[:300], digits.target[:300])
    >>> clf.predict(X[300:302]).shape
    (2,)
    """

    def __init__(
        self,
        backbone: str | nn.Module | Backbone = "embedded",
        *,
        weights: str | Path | None = "default",
        strategy: str = "auto",
        time_budget: float | None = None,
        memory_limit: float | None = None,
        disk_limit: float | None = None,
        cache_dir: str | Path | None = None,
        device: str = "auto",
        precision: str = "auto",
        batch_size: int | str = "auto",
        image_shape: tuple[int, ...] | None = None,
        on_error: str = "raise",
        cv: int = 5,
        class_weight: str | dict[Any, float] | None = None,
        head: Any = None,
        finetune: FineTuneSettings = FineTuneSettings(),  # noqa: B008  frozen, so one for all is safe
        risk: str = "balanced",
        random_state: int | np.random.RandomState | None = None,
        verbose: bool = False,
    ) -> None:
        self.backbone = backbone
        self.weights = weights
        self.strategy = strategy
        self.time_budget = time_budget
        self.memory_limit = memory_limit
        self.disk_limit = disk_limit
        self.cache_dir = cache_dir
        self.device = device
        self.precision = precision
        self.batch_size = batch_size
        self.image_shape = image_shape
        self.on_error = on_error
        self.cv = cv
        self.class_weight = class_weight
        self.head = head
        self.finetune = finetune
        self.risk = risk
        self.random_state = random_state
        self.verbose = verbose

    def fit(
        self,
        X: object,
        y: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
        groups: ArrayLike | None = None,
    ) -> Self:
        """Plan, extract, fit the head and, where the plan says so, fine-tune; in ``torchrun`` all processes together.

        Parameters
        ----------
        X : images
            Paths, a folder of class folders, arrays ``(n, h, w)``, ``(n, h, w, c)`` or ``(n, c, h, w)`` (uint8, or
            float from 0 to 1), rows of flattened images with ``image_shape``, PIL images, encoded bytes, a torch
            Dataset, a column of a DataFrame or of a Hugging Face dataset.
        y : array-like (n_samples,) or None
            Labels; None where X has its own (a folder, a Dataset of image and label).
        sample_weight : array-like (n_samples,) or None
        groups : array-like (n_samples,) or None
            Which images belong together (a patient, a place, a film): none of a group is held out while another is
            trained on, so that ``accuracy_cv_`` is that on new groups.

        Returns
        -------
        self

        Raises
        ------
        InvalidInputError
            Images, labels or a parameter cannot be used; the message names every offending item.
        BackboneError
            The backbone or its weights cannot be loaded.
        BudgetError
            ``time_budget``, ``memory_limit`` or ``disk_limit`` are too small for any strategy; says how much would do.

        Notes
        -----
        Where fine-tuning is stopped, by Ctrl-C or from outside, the same call goes on from its last checkpoint, at most
        30 seconds back (or 50 times what writing one takes), and comes to the same weights. Ctrl-C delivers the probe.
        With ``time_budget`` the call that goes on has the whole budget again; steps that were done stay done, and what
        is left of the schedule is spread over it. Checkpoints that nobody takes up are removed after 30 days.
        """
        with to_train_together(self.strategy, self.device, verbose=self.verbose) as (ranks, progress):
            run = open_run(self, X, y, sample_weight, groups, progress=progress, ranks=ranks)
            plan = plan_run(run)
            features = extract_run(run, self.on_error)
            run = readable_part(run, features)
            probe = fit_probe(run, features)
            health = data_health(run, features, probe.head) if ranks.is_first else ()
            probe, plan = try_first(run, plan_run(run, probe.evidence), probe, features)
            plan = replace(plan, health=health)
            outcome = carry_out(run, plan, probe, features)
            plan = plan_of_first(run, plan.with_actual(run.watch.actual()))
        self._keep(run, plan, features.report, outcome)
        return self

    def plan(self, X: object, y: ArrayLike | None = None) -> Plan:
        """Return what ``fit`` would do, why, and what everything would cost; print it for a table.

        Nothing is trained: images are counted, and decoding, forward pass and training step timed for a moment.

        Parameters
        ----------
        X, y
            As in ``fit``.
        """
        with progress_bars(enabled=self.verbose) as progress:
            run = open_run(self, X, y, progress=progress)
            return replace(plan_run(run), health=labels_health(run))

    def predict(self, X: object) -> NDArray[Any]:
        """Return the most likely class of each image; with ``on_error="skip"``, None for unreadable ones.

        Parameters
        ----------
        X : images in any form that ``fit`` takes

        Returns
        -------
        array (n_samples,)
            Of the dtype of ``classes_``, or of objects if an image could not be read.
        """
        rows, predicted, n_samples = self._head_over(X, "predict")
        if len(rows) == n_samples:
            return predicted
        with_gaps = np.full(n_samples, None, dtype=object)
        with_gaps[rows] = predicted
        return with_gaps

    def predict_proba(self, X: object) -> NDArray[np.float64]:
        """Return the probability of each class, ``(n_samples, n_classes)``; NaN rows for unreadable images."""
        return self._scores(X, "predict_proba")

    def predict_log_proba(self, X: object) -> NDArray[np.float64]:
        """Return the logarithm of ``predict_proba``."""
        return self._scores(X, "predict_log_proba")

    def decision_function(self, X: object) -> NDArray[np.float64]:
        """Return the head's scores, ``(n_samples,)`` for two classes and ``(n_samples, n_classes)`` for more."""
        return self._scores(X, "decision_function")

    def score(self, X: object, y: ArrayLike | None = None, sample_weight: ArrayLike | None = None) -> float:
        """Return the accuracy, in [0, 1], on the images that can be read.

        Parameters
        ----------
        X, y
            As in ``fit``: ``y=None`` where X has its own labels.
        sample_weight : array-like (n_samples,) or None
        """
        source, labels = as_labelled_source(X, y, image_shape=self.image_shape, min_classes=1)
        rows, predicted, _ = self._head_over(source, "predict")
        weight = parse_sample_weight(sample_weight, len(source))
        return float(accuracy_score(labels[rows], predicted, sample_weight=None if weight is None else weight[rows]))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = self.image_shape is not None
        tags.input_tags.three_d_array = True
        tags.input_tags.string = True
        return tags

    def _keep(self, run: Run, plan: Plan, report: CacheReport, outcome: Outcome) -> None:
        self.plan_ = plan
        self.backbone_ = outcome.backbone
        self.head_ = outcome.head
        self.layers_ = outcome.layers
        self.classes_ = outcome.head.classes_
        self.n_features_in_ = outcome.head.n_features_in_
        self.history_ = outcome.history
        self.strategy_ = outcome.strategy
        self.outcome_ = outcome.message
        self.accuracy_cv_ = outcome.accuracy
        self.precision_ = run.precision
        self.cache_report_ = report
        self.skipped_ = report.failures

    def _scores(self, X: object, method: str) -> NDArray[np.float64]:
        rows, scores, n_samples = self._head_over(X, method)
        if len(rows) == n_samples:
            return scores
        with_gaps = np.full((n_samples, *scores.shape[1:]), np.nan)
        with_gaps[rows] = scores
        return with_gaps

    def _head_over(self, X: object, method: str) -> tuple[NDArray[np.int64], NDArray[Any], int]:
        """Return the readable rows, what the head's method gives for them, and how many images there are."""
        check_is_fitted(self)
        parse_on_error(self.on_error, "TransferClassifier")
        source = as_image_source(X, image_shape=self.image_shape)
        backbone, budget = self.backbone_, budget_of(self)
        # Features come chunk by chunk here: there is no head to leave room for.
        sizes = sizes_before_profile(backbone, n_samples=1, n_classes=len(self.classes_))
        extractor = Extractor(backbone, extraction_settings(self, sizes, budget))
        cache = bound_cache(open_cache(self.cache_dir), budget.disk_bytes, backbone, n_rows=len(source))
        rows: list[NDArray[np.int64]] = []
        results: list[NDArray[Any]] = []
        failures: list[ImageFailure] = []
        with progress_bars(enabled=self.verbose) as progress:
            for chunk in feature_chunks(
                source,
                extractor,
                cache,
                precision=self.precision_,
                layers=self.layers_,
                progress=progress,
            ):
                failures += chunk.failures
                if len(chunk.rows):
                    rows.append(chunk.rows)
                    results.append(getattr(self.head_, method)(join_layers(chunk.layers, self.layers_)))
                if isinstance(cache, BoundedCache):
                    cache.forget()
        raise_or_warn(failures, self.on_error)
        if not results:
            raise InvalidInputError("None of the images can be read, so there is nothing to predict.")
        return np.concatenate(rows), np.concatenate(results), len(source)
