"""Support vector machines with their own choice of normalisation and C, and calibrated probabilities."""

import warnings
from collections.abc import Sequence
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.exceptions import ConvergenceWarning

from bottleneck.errors import InvalidInputError, wrong_parameter
from bottleneck.heads.base import Head
from bottleneck.heads.blocks import MemoryLimit, is_blocks, load_blocks, streamed
from bottleneck.heads.choice import choose_kind
from bottleneck.heads.crammer_singer import MAX_PASSES, fit_crammer_singer
from bottleneck.heads.devices import computing_on, parse_device
from bottleneck.heads.folds import CrossValidation, Folds
from bottleneck.heads.losses import SQUARED_HINGE
from bottleneck.heads.multilabel import is_multilabel
from bottleneck.heads.normalize import Normalization
from bottleneck.heads.rbf import RBF_CS, RbfMachine, fit_rbf
from bottleneck.heads.threads import limited_threads
from bottleneck.heads.training import (
    ClassWeight,
    TrainingSet,
    check_settings,
    make_folds,
    make_generator,
    parse_training_set,
)

Floats = NDArray[np.floating[Any]]
Kernel = Literal["linear", "rbf"]
KERNELS: tuple[Kernel, ...] = ("linear", "rbf")
MultiClass = Literal["ovr", "crammer_singer"]
MULTI_CLASSES: tuple[MultiClass, ...] = ("ovr", "crammer_singer")


class SVMHead(Head):
    """Support vector machine on features of images, with its own choice of normalisation and C.

    The linear kernel minimises the squared hinge loss of one class against the rest, as ``LinearSVC`` does, with free
    intercepts; or the loss of all classes together that Crammer and Singer (2001) proposed. Probabilities are the
    softmax of the decisions times one slope, fitted to held-out decisions.

    Parameters
    ----------
    Cs
        Inverse strengths of the penalty to try; see :class:`LogisticHead`. ``"auto"`` for the RBF kernel tries
        0.1, 1, 10 and 100.
    kernel
        ``"linear"``, or ``"rbf"`` for scikit-learn's ``SVC`` with ``gamma="scale"`` on the normalised features.
    multi_class
        How the linear kernel tells several classes apart. ``"ovr"``, each from the rest, or ``"crammer_singer"``, all
        at once: scikit-learn's ``LinearSVC(multi_class="crammer_singer")`` on the normalised features, which takes
        longer, needs them in memory, and of two classes is the one with the hinge loss at twice this C.
    cv, normalize, class_weight, max_iter, tol, memory_limit, n_jobs, device, random_state
        As in :class:`LogisticHead`. ``max_iter``, ``tol``, ``memory_limit``, ``n_jobs`` and ``device`` are for the
        linear kernel, ``device`` for ``"ovr"`` only. For ``"crammer_singer"`` ``tol`` is a hundredth of that of
        ``LinearSVC``, and ``max_iter`` always liblinear's own 100,000.

    Attributes
    ----------
    classes_, normalize_, n_iter_, n_features_in_, C_, Cs_, scores_
        As in :class:`LogisticHead`.
    oof_proba_, accuracy_cv_, accuracy_se_, log_loss_cv_
        As in :class:`LogisticHead`, from calibrated decisions.
    coef_, intercept_ : ndarray
        As in :class:`LogisticHead`; linear kernel only.
    machine_ : RbfMachine
        Support vectors, their weights and the normalisation, as arrays; RBF kernel only.
    slope_ : float
        What makes decisions into logits; NaN if nothing was held out.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from bottleneck import SVMHead
    >>> X, y = load_digits(n_class=4, return_X_y=True)
    >>> head = SVMHead(random_state=0).fit(X[:200], y[:200])
    >>> head.predict_proba(X[200:]).shape
    (520, 4)
    """

    cv: CrossValidation
    slope_: float
    machine_: RbfMachine

    def __init__(
        self,
        Cs: Literal["auto"] | Sequence[float] = "auto",
        *,
        kernel: Kernel = "linear",
        multi_class: MultiClass = "ovr",
        cv: CrossValidation = 5,
        normalize: Literal["auto"] | Normalization = "auto",
        class_weight: ClassWeight = None,
        max_iter: int = 1000,
        tol: float = 1e-7,
        memory_limit: MemoryLimit = "auto",
        n_jobs: int | None = None,
        device: Any = None,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.Cs = Cs
        self.kernel = kernel
        self.multi_class = multi_class
        self.cv = cv
        self.normalize = normalize
        self.class_weight = class_weight
        self.max_iter = max_iter
        self.tol = tol
        self.memory_limit = memory_limit
        self.n_jobs = n_jobs
        self.device = device
        self.random_state = random_state

    def fit(self, X: Any, y: Any, sample_weight: ArrayLike | None = None, groups: ArrayLike | None = None) -> Self:
        """Fit the head to features and their labels.

        Parameters
        ----------
        X, sample_weight, groups
            As in :meth:`LogisticHead.fit`. For the RBF kernel and ``"crammer_singer"`` the features have to fit in
            memory.
        y
            Labels (n_samples,), at least two different ones.
        """
        check_settings(self)
        self._check_machine()
        if is_multilabel(y):
            raise InvalidInputError(
                f"{type(self).__name__} needs one class a row. Fit a LogisticHead to several labels a row, or one head "
                "to each column of y."
            )
        owner = type(self).__name__
        device = parse_device(self.device, X, owner=owner, only_numpy=self._only_numpy())
        blocks = streamed(X, self.memory_limit) if self.kernel == "linear" and device is None else None
        if blocks is not None and self.multi_class == "crammer_singer":
            raise InvalidInputError(
                f"{type(self).__name__}(multi_class='crammer_singer') needs its features in memory, and these "
                f"{blocks.n_samples} x {blocks.n_features} do not fit. Use multi_class='ovr', which is fitted from "
                "disk, raise memory_limit, or take fewer images."
            )
        if blocks is not None:
            fitted = self._fit_streamed(
                blocks, y, sample_weight=sample_weight, groups=groups, loss=SQUARED_HINGE, calibrate=True
            )
            self.slope_ = np.nan if fitted.best is None else fitted.best.slope
            return self
        X = load_blocks(X) if is_blocks(X) and device is None else X
        training = parse_training_set(
            self, X, y, sample_weight=sample_weight, class_weight=self.class_weight, groups=groups, device=device
        )
        rng = make_generator(self.random_state)
        self.classes_ = training.classes
        with limited_threads(training.flops), computing_on(device, owner=owner):
            folds = make_folds(self.cv, training, rng)
            self.normalize_ = choose_kind(training, folds, rng) if self.normalize == "auto" else self.normalize
            if self.kernel == "rbf":
                decisions, self.slope_ = self._fit_rbf(training, folds)
            elif self.multi_class == "crammer_singer":
                decisions, self.slope_ = self._fit_crammer_singer(training, folds, rng)
            else:
                decisions, self.slope_ = self._fit_hinge(training, folds)
        self._record_held_out(training, None if decisions is None else self.slope_ * decisions)
        return self

    def _check_machine(self) -> None:
        owner = type(self).__name__
        if self.kernel not in KERNELS:
            raise wrong_parameter(owner, "kernel", "one of 'linear', 'rbf'", self.kernel)
        if self.multi_class not in MULTI_CLASSES:
            raise wrong_parameter(owner, "multi_class", "one of 'ovr', 'crammer_singer'", self.multi_class)
        if self.kernel == "rbf" and self.multi_class != "ovr":
            raise wrong_parameter(owner, "multi_class", "'ovr' for the RBF kernel", self.multi_class)

    def _only_numpy(self) -> str | None:
        """Name what these settings ask for if torch cannot do it."""
        if self.kernel == "rbf":
            return "the RBF kernel"
        return "multi_class='crammer_singer'" if self.multi_class == "crammer_singer" else None

    def _fit_hinge(self, training: TrainingSet, folds: Folds) -> tuple[Floats | None, float]:
        fitted = self._fit_linear(training, folds, loss=SQUARED_HINGE, calibrate=True)
        if fitted.path is None:
            return None, np.nan
        return fitted.path.best.decisions, fitted.path.best.slope

    def _fit_crammer_singer(
        self, training: TrainingSet, folds: Folds, rng: np.random.Generator
    ) -> tuple[Floats | None, float]:
        Cs = None if isinstance(self.Cs, str) else self.Cs
        fitted = fit_crammer_singer(training, folds, kind=self.normalize_, Cs=Cs, tol=self.tol, rng=rng)
        if fitted.n_iter >= MAX_PASSES:
            warnings.warn(
                f"{type(self).__name__} stopped after {fitted.n_iter} passes over the rows, which is the limit of "
                f"liblinear, before it reached its tol of {self.tol:.1e}. Raise tol, or give smaller Cs.",
                ConvergenceWarning,
                stacklevel=3,
            )
        self.coef_, self.intercept_ = fitted.coef, fitted.intercept
        self.C_, self.n_iter_ = fitted.C, fitted.n_iter
        self.Cs_ = np.array([trial.C for trial in fitted.trials] or [fitted.C])
        self.scores_ = np.array([trial.log_loss for trial in fitted.trials] or [np.nan])
        return (None, np.nan) if fitted.best is None else (fitted.best.decisions, fitted.best.slope)

    def _fit_rbf(self, training: TrainingSet, folds: Folds) -> tuple[Floats | None, float]:
        Cs = RBF_CS if isinstance(self.Cs, str) else self.Cs
        fitted = fit_rbf(training, folds, kind=self.normalize_, Cs=Cs)
        self.machine_ = fitted.machine
        self.C_, self.n_iter_ = fitted.C, fitted.n_iter
        self.Cs_ = np.array([trial.C for trial in fitted.trials] or [fitted.C])
        self.scores_ = np.array([trial.log_loss for trial in fitted.trials] or [np.nan])
        return (None, np.nan) if fitted.best is None else (fitted.best.decisions, fitted.best.slope)

    def _decide(self, features: Floats) -> NDArray[np.float64]:
        return self.machine_.decide(features) if self.kernel == "rbf" else super()._decide(features)

    def _slope(self) -> float:
        if np.isnan(self.slope_):
            raise InvalidInputError(
                "SVMHead has no probabilities, because no row could be held out to calibrate its decisions: every "
                "class has one distinct row. Use predict or decision_function, LogisticHead, or more images."
            )
        return self.slope_
