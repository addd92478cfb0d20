"""Multinomial logistic regression that chooses its own normalisation and C."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit, log_expit
from sklearn.utils.validation import check_is_fitted

from bottleneck.errors import InvalidInputError
from bottleneck.heads.arrays import as_features
from bottleneck.heads.base import Head, logistic_loss
from bottleneck.heads.blocks import MemoryLimit, is_blocks, load_blocks, streamed
from bottleneck.heads.choice import choose_kind
from bottleneck.heads.devices import computing_on, parse_device
from bottleneck.heads.evidence import mean_and_se
from bottleneck.heads.folds import CrossValidation, Folds, LeaveOneOut, LeftOut
from bottleneck.heads.linear import n_outputs
from bottleneck.heads.means import fit_means
from bottleneck.heads.multilabel import (
    LabelledRows,
    check_single_label,
    choose_shared_kind,
    fit_labels,
    fold_labelled_rows,
    held_out_losses,
    is_multilabel,
    parse_labelled_rows,
    too_large_for_labels,
)
from bottleneck.heads.normalize import Normalization, RowNormalization, row_normalization
from bottleneck.heads.threads import limited_threads
from bottleneck.heads.training import (
    ClassWeight,
    TrainingSet,
    check_settings,
    hold_out,
    make_generator,
    parse_training_set,
)


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
        copies of a picture and rows of one group are never on both sides, and a class with a single distinct row is
        never held out. ``"loo"`` leaves out every row in turn, with its copies and its group, by one Newton step from
        the head of all rows: for up to a thousand or so. With one image of each of three or more classes an image goes
        to the class whose image it resembles most (nearest class mean, by cosine); otherwise C is a default if nothing
        can be held out.
    normalize
        ``"center"`` (centre and one scale for all features), ``"l2"`` (rows to unit length first), ``"standardize"``
        (a scale for each feature), ``"none"``, or ``"auto"`` to choose one of the first three. With up to three images
        of a class there is nothing to choose by, and it is ``"l2"``.
    class_weight
        Weights of classes: a dict, ``"balanced"`` or None. They count in fitting and in the log-loss that chooses C.
    max_iter
        Most iterations of the final fit.
    tol
        Where the final fit ends: largest entry of the preconditioned gradient over the root of the total weight.
    memory_limit
        Bytes that a fit in memory may take: features that need more are gone through on disk, to the same result
        (``cv`` has to be a number then). ``"auto"`` is half of what is available.
    n_jobs
        Worker processes that go through features on disk together, on one core each; whatever their number, the result
        is the same to the last bit. None is this process with all its cores, or what ``joblib.parallel_config`` says,
        such as a Dask cluster. Features in memory need none.
    device
        Where torch solves the head: ``"cuda"``, ``"cuda:1"``, a ``torch.device``, or ``"cpu"``. It has to hold the
        features twice in single precision (16 GiB for a million rows of 2,048), and ``memory_limit`` is then of its
        memory. None is NumPy on the processor, unless ``X`` is a tensor on a GPU, where it is solved then.
        Predictions are made on the processor. Not for several labels a row, nor for ``cv="loo"``.
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
        NaN if each class has one image and the nearest class mean decides.
    Cs_, scores_ : ndarray (n_tried,)
        The Cs tried and the mean log-loss of held-out rows at each. ``C_`` minimises their sum plus half a nat for
        each squared decade from a typical C, which matters with few rows only.
    oof_proba_ : ndarray (n_samples, n_classes)
        Probabilities of each row by the heads fitted without it; NaN where there are none. Not there after a fit from
        disk.
    accuracy_cv_, accuracy_se_, log_loss_cv_ : float
        Accuracy of those, its standard error, and log-loss, weighted by ``sample_weight``; NaN if nothing was held out.
    n_iter_ : int
        Iterations of the final fit.
    n_passes_ : int
        How often the features were read; after a fit from disk only.
    n_features_in_ : int
    multilabel_ : bool
        Whether rows have any number of labels. If so, ``classes_`` numbers them, ``coef_`` has a row for each, ``C_``
        is (n_labels,), and ``Cs_`` and ``scores_`` are lists of arrays; ``predict`` gives zeros and ones, and
        ``predict_proba`` the probability of each label (n_samples, n_labels). Accuracy is the share of right labels.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from bottleneck import LogisticHead
    >>> X, y = load_digits(n_class=4, return_X_y=True)
    >>> head = LogisticHead(random_state=0).fit(X[:200], y[:200])
    >>> head.predict_proba(X[200:]).shape
    (520, 4)
    """

    multilabel_: bool
    C_: Any
    Cs_: Any
    scores_: Any

    def __init__(
        self,
        Cs: Literal["auto"] | Sequence[float] = "auto",
        *,
        cv: CrossValidation | LeaveOneOut = 5,
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
        X
            Features (n_samples, n_features): anything scikit-learn takes, half precision or a torch tensor; a memory
            map, or blocks of rows: an object with ``n_samples`` and ``n_features`` that yields consecutive arrays
            (m, n_features) each time it is iterated. What is too large for ``memory_limit`` is read from disk again
            and again.
        y
            Labels (n_samples,), at least two different ones; or zeros and ones (n_samples, n_labels) for rows with any
            number of labels, each of which has a head of its own on the same normalisation. The features have to fit
            in memory then.
        sample_weight
            Weight of each row (n_samples,); a row of weight 0 is no row.
        groups
            Which rows belong together (n_samples,), as pictures of one patient or place do: a group is never on both
            sides of a split, and its rows do not vouch for each other in choosing C and normalisation. A splitter
            given as ``cv`` is passed them.
        """
        check_settings(self, leaves_out=True)
        self.multilabel_ = is_multilabel(y)
        owner, only_numpy = type(self).__name__, self._only_numpy()
        device = parse_device(self.device, X, owner=owner, only_numpy=only_numpy)
        blocks = streamed(X, self.memory_limit) if device is None else None
        if self.multilabel_:
            if blocks is not None:
                raise too_large_for_labels(blocks, owner=type(self).__name__)
            return self._fit_labels(
                load_blocks(X) if is_blocks(X) else X, y, sample_weight=sample_weight, groups=groups
            )
        if blocks is not None:
            self._fit_streamed(blocks, y, sample_weight=sample_weight, groups=groups, loss=None, calibrate=False)
            self._centre_intercepts()
            return self
        X = load_blocks(X) if is_blocks(X) and device is None else X
        training = parse_training_set(
            self, X, y, sample_weight=sample_weight, class_weight=self.class_weight, groups=groups, device=device
        )
        rng = make_generator(self.random_state)
        self.classes_ = training.classes
        with limited_threads(training.flops), computing_on(device, owner=owner):
            folds = hold_out(self.cv, training, rng)
            self.normalize_ = choose_kind(training, folds, rng) if self.normalize == "auto" else self.normalize
            loss = logistic_loss(len(training.classes))
            if len(training.classes) > 2 and self._has_no_choice(training, folds):
                self._fit_means(training)
                return self
            fitted = self._fit_linear(training, folds, loss=loss, calibrate=False)
        self._centre_intercepts()
        self._record_held_out(training, None if fitted.path is None else fitted.path.best.decisions)
        return self

    def _fit_labels(self, X: Any, y: Any, *, sample_weight: Any, groups: Any) -> Self:
        given = parse_labelled_rows(
            self, X, y, sample_weight=sample_weight, class_weight=self.class_weight, groups=groups
        )
        rng = make_generator(self.random_state)
        n_samples, n_features = given.features.shape
        with limited_threads(10.0 * n_samples * min(n_samples, n_features)):
            folds = fold_labelled_rows(self.cv, given, rng)
            self.normalize_ = choose_shared_kind(given, folds, rng) if self.normalize == "auto" else self.normalize
            Cs = None if isinstance(self.Cs, str) else self.Cs
            heads = fit_labels(given, folds, kind=self.normalize_, Cs=Cs, tol=self.tol, max_iter=self.max_iter)
        slowest = max(heads, key=lambda head: head.n_iter)
        self._warn_unless_converged(slowest.n_iter, slowest.residual)
        self.classes_ = np.arange(len(heads))
        self.coef_ = np.stack([head.coef for head in heads])
        self.intercept_ = np.array([head.intercept for head in heads])
        self.C_, self.n_iter_ = np.array([head.C for head in heads]), slowest.n_iter
        self.Cs_, self.scores_ = [head.Cs for head in heads], [head.log_losses for head in heads]
        self._record_labels(given, np.stack([head.held_out for head in heads], axis=1))
        return self

    def _record_labels(self, given: LabelledRows, logits: NDArray[np.float64]) -> None:
        """Keep what held-out rows say, on average over labels; a label that no row is held out for counts as none."""
        self.oof_proba_ = np.full(given.targets.shape, np.nan)
        self.oof_proba_[given.rows] = expit(logits)
        self.accuracy_cv_ = self.accuracy_se_ = self.log_loss_cv_ = np.nan
        held = ~np.isnan(logits)
        scored = np.asarray(held.any(axis=1))
        if not scored.any():
            return
        right = (((logits > 0) == given.labels) & held).sum(axis=1)[scored] / held.sum(axis=1)[scored]
        losses = held_out_losses(logits[scored], given.labels[scored])
        weights, groups = given.sample_weights[scored], given.groups_of(scored)
        self.accuracy_cv_, self.accuracy_se_ = mean_and_se(right, weights, groups)
        self.log_loss_cv_ = float(np.average(losses, weights=weights))

    def predict(self, X: Any) -> NDArray[Any]:
        """Return the class with the largest decision (n_samples,), or zeros and ones (n_samples, n_labels)."""
        if not getattr(self, "multilabel_", False):
            return super().predict(X)
        chosen: NDArray[Any] = (self.decision_function(X) > 0).astype(int)
        return chosen

    def predict_log_proba(self, X: Any) -> NDArray[np.float64]:
        """Return the logarithm of each class's, or each label's, probability (n_samples, n_classes)."""
        if not getattr(self, "multilabel_", False):
            return super().predict_log_proba(X)
        return np.asarray(log_expit(self.decision_function(X)))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = not isinstance(self.cv, str) and self.device is None
        return tags

    def _centre_intercepts(self) -> None:
        if len(self.intercept_) > 1:
            # A softmax does not see what all classes share.
            self.intercept_ -= self.intercept_.mean()

    def _only_numpy(self) -> str | None:
        """Name what these settings ask for if torch cannot do it."""
        if self.multilabel_:
            return "several labels a row"
        return "cv='loo'" if isinstance(self.cv, str) else None

    def _has_no_choice(self, training: TrainingSet, folds: Folds | LeftOut) -> bool:
        """Say whether there is one image of each class, of which a C or a fold could say nothing."""
        return len(folds) == 0 and isinstance(self.Cs, str) and self.normalize_ == "l2"

    def _fit_means(self, training: TrainingSet) -> None:
        fitted = fit_means(replace(training, features=as_features(training.features)))
        self.coef_, self.intercept_ = fitted.coef, fitted.intercept
        self.C_, self.n_iter_ = np.nan, 0
        self.Cs_ = self.scores_ = np.array([np.nan])
        self._record_held_out(training, None)

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
        check_single_label(getattr(self, "multilabel_", False), "A softmax layer")
        weight, bias = self.coef_, self.intercept_
        if len(weight) == 1:
            weight, bias = np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
        return LinearMap(rows=row_normalization(self.normalize_), weight=weight, bias=bias)
