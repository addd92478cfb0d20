"""Multinomial logistic regression that chooses its own normalisation and C."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils.validation import check_is_fitted

from bottleneck.errors import InvalidInputError
from bottleneck.heads.base import Head
from bottleneck.heads.folds import CrossValidation
from bottleneck.heads.linear import n_outputs
from bottleneck.heads.losses import SIGMOID, SOFTMAX
from bottleneck.heads.normalize import Normalization, RowNormalization, row_normalization
from bottleneck.heads.threads import limited_threads
from bottleneck.heads.training import ClassWeight, check_settings, make_folds, make_generator, parse_training_set


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class LinearMap:
    """A head as a linear layer: ``logits = weight @ rows(x) + bias``, one logit for each class."""

    rows: RowNormalization
    """``"l2"``: x is divided by its L2 norm first"""
    weight: NDArray[np.float64]
    """(n_classes, n_features)"""
    bias: NDArray[np.float64]
    """(n_classes,)"""


class LogisticHead(Head):
    """L2-penalised logistic regression on features of images, with its own choice of normalisation and C.

    The normalisation is chosen by ridge regression with closed-form leave-one-out, and C by the log-loss of held-out
    folds along a path of warm starts. The result is the minimum that scikit-learn's ``LogisticRegression`` with this
    C has on the normalised features.

    Parameters
    ----------
    Cs
        Inverse strengths of the penalty to try, as in scikit-learn: on features whose variance is 1 on average
        (``"none"``: on features as they are). ``"auto"`` tries three a decade until held-out log-loss has turned.
    cv
        Number of stratified folds, a scikit-learn splitter or an iterable of (train, test) indices. With a number,
        identical rows are never on both sides, and a class with a single distinct row is never held out. If that
        leaves nothing to hold out, C is a default for very few images (``bottleneck.heads.path.TYPICAL_C``).
    normalize
        ``"center"`` (centre and one scale for all features), ``"l2"`` (rows to unit length first), ``"standardize"``
        (a scale for each feature), ``"none"``, or ``"auto"`` to choose one of the first three.
    class_weight
        Weights of classes: a dict, ``"balanced"`` or None. They count in fitting and in the log-loss that chooses C.
    max_iter
        Most iterations of the final fit.
    tol
        Where the final fit ends: largest entry of the preconditioned gradient over the root of the total weight.
    random_state
        Seeds the folds, and the sample that is screened when there are thousands of rows.

    Attributes
    ----------
    classes_ : ndarray (n_classes,)
    coef_ : ndarray (n_classes, n_features), or (1, n_features) for two classes
        Acts on features as they are passed; with ``normalize_ == "l2"`` on rows divided by their L2 norm.
    intercept_ : ndarray (n_classes,) or (1,)
    normalize_ : str
    C_ : float
    Cs_, scores_ : ndarray (n_tried,)
        The Cs tried and the mean log-loss of held-out rows at each. ``C_`` minimises their sum plus half a nat for
        each squared decade from a typical C, which matters with few rows only.
    oof_proba_ : ndarray (n_samples, n_classes)
        Probabilities of each row by the fold that held it out; NaN where none did.
    accuracy_cv_, accuracy_se_, log_loss_cv_ : float
        Accuracy of those, its standard error, and log-loss, weighted by ``sample_weight``; NaN if nothing was held out.
    n_iter_ : int
        Iterations of the final fit.
    n_features_in_ : int
    """

    def __init__(
        self,
        Cs: Literal["auto"] | Sequence[float] = "auto",
        *,
        cv: CrossValidation = 5,
        normalize: Literal["auto"] | Normalization = "auto",
        class_weight: ClassWeight = None,
        max_iter: int = 1000,
        tol: float = 1e-7,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.Cs = Cs
        self.cv = cv
        self.normalize = normalize
        self.class_weight = class_weight
        self.max_iter = max_iter
        self.tol = tol
        self.random_state = random_state

    def fit(self, X: Any, y: Any, sample_weight: ArrayLike | None = None) -> Self:
        """Fit the head to features (n_samples, n_features) and labels (n_samples,); a row of weight 0 is no row."""
        check_settings(self)
        training = parse_training_set(self, X, y, sample_weight=sample_weight, class_weight=self.class_weight)
        rng = make_generator(self.random_state)
        self.classes_ = training.classes
        with limited_threads(training.flops):
            self.normalize_ = self._choose_normalization(training, rng)
            folds = make_folds(self.cv, training, rng)
            loss = SIGMOID if len(training.classes) == 2 else SOFTMAX
            fitted = self._fit_linear(training, folds, loss=loss, calibrate=False)
        if len(self.intercept_) > 1:
            # A softmax does not see what all classes share.
            self.intercept_ -= self.intercept_.mean()
        self._record_held_out(training, None if fitted.path is None else fitted.path.best.decisions)
        return self

    @classmethod
    def from_arrays(
        cls, *, classes: ArrayLike, coef: ArrayLike, intercept: ArrayLike, normalize: Normalization = "none"
    ) -> Self:
        """Build a fitted head from what another one learned.

        Parameters
        ----------
        classes
            Sorted class labels (n_classes,).
        coef, intercept
            ``coef_`` and ``intercept_`` of a head, or ``weight`` and ``bias`` of a :class:`LinearMap`: for two classes
            one row or two.
        normalize
            ``normalize_`` of the head. Only ``"l2"`` makes a difference to decisions.

        Raises
        ------
        InvalidInputError
            Shapes that do not fit together.
        """
        head = cls()
        head.classes_ = np.asarray(classes)
        weight, bias = np.atleast_2d(np.asarray(coef, dtype=float)), np.atleast_1d(np.asarray(intercept, dtype=float))
        n_classes = len(head.classes_)
        if len(weight) != len(bias) or len(weight) not in {n_classes, n_outputs(n_classes)}:
            raise InvalidInputError(
                f"{n_classes} classes need as many rows of coefficients and intercepts (or one, for two classes). "
                f"Got coefficients of shape {weight.shape} and intercepts of shape {bias.shape}."
            )
        if n_classes == len(weight) == 2:
            weight, bias = weight[1:] - weight[:1], bias[1:] - bias[:1]
        head.coef_, head.intercept_, head.normalize_ = weight, bias, normalize
        head.n_features_in_ = weight.shape[1]
        return head

    def linear_on_normalised(self) -> LinearMap:
        """Return the head as a linear layer on rows; for two classes its rows are opposite, and softmax is the same."""
        check_is_fitted(self)
        weight, bias = self.coef_, self.intercept_
        if len(weight) == 1:
            weight, bias = np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
        return LinearMap(rows=row_normalization(self.normalize_), weight=weight, bias=bias)
