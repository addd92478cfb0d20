"""What the heads have in common: the linear fit, decisions to classes and probabilities, what held-out rows say."""

import warnings
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.validation import check_is_fitted, validate_data

from bottleneck.heads.arrays import as_features
from bottleneck.heads.blocks import BlockReader, FeatureBlocks, MemoryLimit, is_blocks, parse_workers
from bottleneck.heads.calibration import log_probabilities
from bottleneck.heads.evidence import mean_and_se
from bottleneck.heads.folds import CrossValidation, Folds, LeaveOneOut, LeftOut
from bottleneck.heads.linear import LinearFit, fit_linear
from bottleneck.heads.losses import SIGMOID, SOFTMAX, Loss
from bottleneck.heads.normalize import Normalization, normalize_rows, row_normalization
from bottleneck.heads.streaming import StreamedFit, fit_streamed
from bottleneck.heads.training import ClassWeight, TrainingSet, make_generator, number_of_folds, parse_labels

Floats = NDArray[np.floating[Any]]


def logistic_loss(n_classes: int) -> Loss:
    """Return the loss of logistic regression with so many classes."""
    return SIGMOID if n_classes == 2 else SOFTMAX


class Head(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """A classifier of features; a subclass adds its loss and what makes its decisions into logits."""

    Cs: Literal["auto"] | Sequence[float]
    cv: CrossValidation | LeaveOneOut
    normalize: Literal["auto"] | Normalization
    class_weight: ClassWeight
    max_iter: int
    tol: float
    memory_limit: MemoryLimit
    n_jobs: int | None
    device: Any
    random_state: int | np.random.RandomState | None

    classes_: NDArray[Any]
    coef_: NDArray[np.float64]
    intercept_: NDArray[np.float64]
    normalize_: Normalization
    n_features_in_: int
    oof_proba_: NDArray[np.float64]
    C_: float
    Cs_: NDArray[np.float64]
    scores_: NDArray[np.float64]
    n_iter_: int
    n_passes_: int
    accuracy_cv_: float
    accuracy_se_: float
    log_loss_cv_: float

    def decision_function(self, X: Any) -> NDArray[np.float64]:
        """Return a decision for every class (n_samples, n_classes), or for the second of two classes (n_samples,)."""
        decisions = self._decisions(X)
        return decisions[:, 0] if decisions.shape[1] == 1 else decisions

    def predict(self, X: Any) -> NDArray[Any]:
        """Return the class with the largest decision (n_samples,)."""
        decisions = self._decisions(X)
        positions = decisions[:, 0] > 0 if decisions.shape[1] == 1 else decisions.argmax(axis=1)
        labels: NDArray[Any] = self.classes_[positions.astype(np.intp)]
        return labels

    def predict_log_proba(self, X: Any) -> NDArray[np.float64]:
        """Return the logarithm of every class's probability (n_samples, n_classes)."""
        check_is_fitted(self)
        return log_probabilities(self._slope() * self._decisions(X))

    def predict_proba(self, X: Any) -> NDArray[np.float64]:
        """Return the probability of every class (n_samples, n_classes)."""
        return np.exp(self.predict_log_proba(X))

    def _fit_linear(self, training: TrainingSet, folds: Folds | LeftOut, *, loss: Loss, calibrate: bool) -> LinearFit:
        fitted = fit_linear(
            training,
            folds,
            loss=loss,
            kind=self.normalize_,
            Cs=None if isinstance(self.Cs, str) else self.Cs,
            calibrate=calibrate,
            tol=self.tol,
            max_iter=self.max_iter,
        )
        self._warn_unless_converged(fitted.n_iter, fitted.residual)
        self.coef_, self.intercept_ = fitted.coef, fitted.intercept
        self.C_, self.n_iter_ = fitted.C, fitted.n_iter
        self.Cs_ = np.array([fitted.C]) if fitted.path is None else fitted.path.Cs
        self.scores_ = np.array([np.nan]) if fitted.path is None else fitted.path.log_losses
        return fitted

    def _fit_streamed(
        self, blocks: FeatureBlocks, y: Any, *, sample_weight: Any, groups: Any, loss: Loss | None, calibrate: bool
    ) -> StreamedFit:
        """Fit to features that pass by in blocks; loss None is the logistic one for so many classes."""
        reader = BlockReader(blocks, n_jobs=parse_workers(blocks, self.n_jobs, owner=type(self).__name__))
        given = parse_labels(
            self,
            y,
            n_samples=blocks.n_samples,
            sample_weight=sample_weight,
            class_weight=self.class_weight,
            groups=groups,
        )
        self.classes_, self.n_features_in_ = given.classes, blocks.n_features
        fitted = fit_streamed(
            reader,
            given,
            loss=loss or logistic_loss(len(given.classes)),
            kind=None if self.normalize == "auto" else self.normalize,
            n_folds=number_of_folds(self.cv, owner=type(self).__name__),
            Cs=None if isinstance(self.Cs, str) else self.Cs,
            calibrate=calibrate,
            tol=self.tol,
            max_iter=self.max_iter,
            rng=make_generator(self.random_state),
        )
        self._warn_unless_converged(fitted.n_iter, fitted.residual)
        self.normalize_, self.coef_, self.intercept_ = fitted.kind, fitted.coef, fitted.intercept
        self.C_, self.n_iter_, self.n_passes_ = fitted.C, fitted.n_iter, fitted.n_passes
        self.Cs_ = np.array([trial.C for trial in fitted.trials] or [fitted.C])
        self.scores_ = np.array([trial.log_loss for trial in fitted.trials] or [np.nan])
        self.accuracy_cv_, self.accuracy_se_, self.log_loss_cv_ = fitted.accuracy, fitted.accuracy_se, fitted.log_loss
        return fitted

    def _warn_unless_converged(self, n_iter: int, residual: float) -> None:
        if n_iter >= self.max_iter and residual > self.tol:
            warnings.warn(
                f"{type(self).__name__} stopped after {n_iter} iterations with a residual of {residual:.1e}, above "
                f"its tol of {self.tol:.1e}. Raise max_iter or tol.",
                ConvergenceWarning,
                stacklevel=4,
            )

    def _decisions(self, X: Any) -> NDArray[np.float64]:
        """Return the decisions (n, n_outputs) for features, or for blocks of them."""
        if is_blocks(X):
            return np.concatenate([self._decide(self._parse(block)) for block in X])
        return self._decide(self._parse(X))

    def _parse(self, X: Any) -> Floats:
        check_is_fitted(self)
        features: Floats = validate_data(self, as_features(X), dtype=[np.float64, np.float32], reset=False)
        return features

    def _decide(self, features: Floats) -> NDArray[np.float64]:
        rows = normalize_rows(features, row_normalization(self.normalize_))
        return rows @ self.coef_.T + self.intercept_

    def _slope(self) -> float:
        return 1.0

    def _record_held_out(self, training: TrainingSet, logits: Floats | None) -> None:
        """Keep probabilities and accuracy on held-out rows, from logits (n, n_outputs) with NaN where there is none."""
        n_given, n_classes = len(training.targets), len(training.classes)
        self.oof_proba_ = np.full((n_given, n_classes), np.nan)
        self.accuracy_cv_ = self.accuracy_se_ = self.log_loss_cv_ = np.nan
        if logits is None:
            return
        held_out = ~np.isnan(logits[:, 0])
        log_proba = log_probabilities(logits[held_out])
        labels, weights = training.labels[held_out], training.sample_weights[held_out]
        self.oof_proba_[training.rows[held_out]] = np.exp(log_proba)
        groups = None if training.groups is None else training.groups[training.rows[held_out]]
        self.accuracy_cv_, self.accuracy_se_ = mean_and_se(log_proba.argmax(axis=1) == labels, weights, groups)
        self.log_loss_cv_ = -float(np.average(log_proba[np.arange(len(labels)), labels], weights=weights))
