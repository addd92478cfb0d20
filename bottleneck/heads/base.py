"""What the heads have in common: the linear fit, decisions to classes and probabilities, what held-out rows say."""

import warnings
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.validation import check_is_fitted, validate_data

from bottleneck.heads.calibration import log_probabilities
from bottleneck.heads.folds import CrossValidation, Folds
from bottleneck.heads.linear import LinearFit, fit_linear
from bottleneck.heads.losses import Loss
from bottleneck.heads.normalize import Normalization, normalize_rows, row_normalization
from bottleneck.heads.screen import choose_normalization
from bottleneck.heads.training import ClassWeight, TrainingSet

Floats = NDArray[np.floating[Any]]


class Head(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """A classifier of features; a subclass adds its loss and what makes its decisions into logits."""

    Cs: Literal["auto"] | Sequence[float]
    cv: CrossValidation
    normalize: Literal["auto"] | Normalization
    class_weight: ClassWeight
    max_iter: int
    tol: float
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
    accuracy_cv_: float
    accuracy_se_: float
    log_loss_cv_: float

    def decision_function(self, X: Any) -> NDArray[np.float64]:
        """Return a decision for every class (n_samples, n_classes), or for the second of two classes (n_samples,)."""
        decisions = self._decide(self._parse(X))
        return decisions[:, 0] if decisions.shape[1] == 1 else decisions

    def predict(self, X: Any) -> NDArray[Any]:
        """Return the class with the largest decision (n_samples,)."""
        decisions = self._decide(self._parse(X))
        positions = decisions[:, 0] > 0 if decisions.shape[1] == 1 else decisions.argmax(axis=1)
        labels: NDArray[Any] = self.classes_[positions.astype(np.intp)]
        return labels

    def predict_log_proba(self, X: Any) -> NDArray[np.float64]:
        """Return the logarithm of every class's probability (n_samples, n_classes)."""
        features = self._parse(X)
        return log_probabilities(self._slope() * self._decide(features))

    def predict_proba(self, X: Any) -> NDArray[np.float64]:
        """Return the probability of every class (n_samples, n_classes)."""
        return np.exp(self.predict_log_proba(X))

    def _choose_normalization(self, training: TrainingSet, rng: np.random.Generator) -> Normalization:
        if self.normalize != "auto":
            return self.normalize
        return choose_normalization(training.features, training.labels, weights=training.weights, rng=rng)

    def _fit_linear(self, training: TrainingSet, folds: Folds, *, loss: Loss, calibrate: bool) -> LinearFit:
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
        if fitted.n_iter >= self.max_iter and fitted.residual > self.tol:
            warnings.warn(
                f"{type(self).__name__} stopped after {fitted.n_iter} iterations with a residual of "
                f"{fitted.residual:.1e}, above its tol of {self.tol:.1e}. Raise max_iter or tol.",
                ConvergenceWarning,
                stacklevel=3,
            )
        self.coef_, self.intercept_ = fitted.coef, fitted.intercept
        self.C_, self.n_iter_ = fitted.C, fitted.n_iter
        self.Cs_ = np.array([fitted.C]) if fitted.path is None else fitted.path.Cs
        self.scores_ = np.array([np.nan]) if fitted.path is None else fitted.path.log_losses
        return fitted

    def _parse(self, X: Any) -> Floats:
        check_is_fitted(self)
        features: Floats = validate_data(self, X, dtype=[np.float64, np.float32], reset=False)
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
        share = weights / weights.sum()
        correct = log_proba.argmax(axis=1) == labels
        self.oof_proba_[training.rows[held_out]] = np.exp(log_proba)
        self.accuracy_cv_ = float(np.average(correct, weights=weights))  # exactly 1 if all are correct
        self.accuracy_se_ = float(np.sqrt(np.square(share) @ np.square(correct - self.accuracy_cv_)))
        self.log_loss_cv_ = -float(share @ log_proba[np.arange(len(labels)), labels])
