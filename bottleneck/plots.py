"""Plots for notebooks in scikit-learn's Display style.

Each shows what a fit has measured already, so that none costs a forward pass or another fit. Confusion matrices,
calibration curves and the like are scikit-learn's own: ``ConfusionMatrixDisplay.from_estimator(clf, X, y)``.
"""

from collections.abc import Sequence
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils.validation import check_is_fitted

from bottleneck.errors import InvalidInputError, wrong_parameter
from bottleneck.estimators import TransferClassifier
from bottleneck.finetune import EpochRecord
from bottleneck.heads import LogisticHead, SVMHead, screen_features
from bottleneck.optional import require
from bottleneck.planner import Plan
from bottleneck.planner.gain import accuracy_with
from bottleneck.planner.wording import label

Metric = Literal["loss", "accuracy", "learning_rate"]
METRICS: dict[Metric, str] = {"loss": "Loss", "accuracy": "Accuracy", "learning_rate": "Learning rate of the head"}


class LearningCurveDisplay:
    """Accuracy by number of labelled images, and what twice as many would bring.

    Measured with ridge regression on frozen features, each image left out once, on all of them, a half and a quarter.
    scikit-learn's ``LearningCurveDisplay`` refits the estimator itself for each point instead.

    Parameters
    ----------
    n_samples : array-like (n_points,)
    accuracy : array-like (n_points,)
        In [0, 1].
    standard_error : array-like (n_points,) or None

    Attributes
    ----------
    predicted : tuple of (int, float), or None
        Twice the largest number, and the accuracy that the curve points to; None with fewer than three points.
    ax_, figure_ : matplotlib Axes and Figure
    line_ : matplotlib line

    Examples
    --------
    >>> from bottleneck import LearningCurveDisplay
    >>> display = LearningCurveDisplay(n_samples=[250, 500, 1000], accuracy=[0.78, 0.82, 0.85])
    >>> n_samples, accuracy = display.predicted
    >>> n_samples, round(accuracy, 3)
    (2000, 0.87)
    """

    def __init__(self, *, n_samples: ArrayLike, accuracy: ArrayLike, standard_error: ArrayLike | None = None) -> None:
        self.n_samples = np.asarray(n_samples)
        self.accuracy = np.asarray(accuracy, dtype=np.float64)
        self.standard_error = None if standard_error is None else np.asarray(standard_error, dtype=np.float64)

    @property
    def predicted(self) -> tuple[int, float] | None:
        """Twice the largest number of images, and the accuracy that the curve points to."""
        n_samples = 2 * int(self.n_samples.max())
        accuracy = accuracy_with(n_samples, tuple(zip(self.n_samples.tolist(), self.accuracy.tolist(), strict=True)))
        return None if accuracy is None else (n_samples, accuracy)

    @classmethod
    def from_estimator(
        cls,
        estimator: TransferClassifier | LogisticHead | SVMHead,
        X: ArrayLike | None = None,
        y: ArrayLike | None = None,
        *,
        ax: Any = None,
        line_kw: dict[str, Any] | None = None,
    ) -> Self:
        """Plot the learning curve of a fitted estimator.

        Parameters
        ----------
        estimator : TransferClassifier, LogisticHead or SVMHead
            Fitted. A classifier measured its curve in ``fit``; a head has its measured here.
        X : array-like (n_samples, n_features) or None
            Features for a head; nothing for a classifier.
        y : array-like (n_samples,) or None
            Their labels.
        ax : matplotlib Axes or None
        line_kw : dict or None
            Passed to ``Axes.plot``.

        Raises
        ------
        InvalidInputError
            The estimator is of another kind, or has no curve because there were too few images.
        """
        _check_fitted(cls, estimator, TransferClassifier, LogisticHead, SVMHead)
        if isinstance(estimator, TransferClassifier):
            evidence = estimator.plan_.request.evidence
            curve = () if evidence is None else evidence.learning_curve
            if not curve:
                raise InvalidInputError(
                    "This classifier has no learning curve: too few images could be held out. Fit it on more images."
                )
            display = cls(n_samples=[n for n, _ in curve], accuracy=[accuracy for _, accuracy in curve])
        else:
            if X is None or y is None:
                raise wrong_parameter(cls.__name__, "X and y", "the features and labels of the head", (X, y))
            points = screen_features(
                {"features": np.asarray(X)}, y, normalizations=(estimator.normalize_,), random_state=0
            ).learning_curve
            display = cls(
                n_samples=[point.n_samples for point in points],
                accuracy=[point.accuracy for point in points],
                standard_error=[point.se for point in points],
            )
        return display.plot(ax=ax, line_kw=line_kw)

    def plot(self, *, ax: Any = None, line_kw: dict[str, Any] | None = None) -> Self:
        """Draw the measured points, their standard errors and the prediction; return this display."""
        self.ax_, self.figure_ = _axes(ax)
        style = {"marker": "o", "label": "measured"} | (line_kw or {})
        container = self.ax_.errorbar(self.n_samples, self.accuracy, yerr=self.standard_error, capsize=3, **style)
        self.line_ = container.lines[0]
        if self.predicted is not None:
            last = int(self.n_samples.argmax())
            self.ax_.plot(
                [self.n_samples[last], self.predicted[0]],
                [self.accuracy[last], self.predicted[1]],
                linestyle="--",
                marker="o",
                markerfacecolor="none",
                color=self.line_.get_color(),
                label="predicted",
            )
        ticks = [*self.n_samples.tolist(), *([] if self.predicted is None else [self.predicted[0]])]
        self.ax_.set(xscale="log", xlabel="Labelled images", ylabel="Accuracy")
        self.ax_.set_xticks(ticks, [f"{n:,}" for n in ticks])
        self.ax_.minorticks_off()
        self.ax_.legend()
        return self


class RegularizationDisplay:
    """Held-out log-loss of a head by its C.

    Parameters
    ----------
    Cs, log_loss : array-like (n_tried,)
    chosen : float
        The C that the head took: with few rows not always that of the least loss (see ``LogisticHead.scores_``).

    Attributes
    ----------
    ax_, figure_ : matplotlib Axes and Figure
    line_ : matplotlib line
    """

    def __init__(self, *, Cs: ArrayLike, log_loss: ArrayLike, chosen: float) -> None:
        order = np.argsort(Cs)
        self.Cs = np.asarray(Cs, dtype=np.float64)[order]
        self.log_loss = np.asarray(log_loss, dtype=np.float64)[order]
        self.chosen = chosen

    @classmethod
    def from_estimator(
        cls,
        estimator: TransferClassifier | LogisticHead | SVMHead,
        *,
        ax: Any = None,
        line_kw: dict[str, Any] | None = None,
    ) -> Self:
        """Plot how a fitted head, or that of a fitted classifier, chose its C.

        Parameters
        ----------
        estimator : TransferClassifier, LogisticHead or SVMHead
        ax : matplotlib Axes or None
        line_kw : dict or None
            Passed to ``Axes.plot``.

        Raises
        ------
        InvalidInputError
            The estimator is of another kind, or nothing could be held out to choose C by.
        """
        _check_fitted(cls, estimator, TransferClassifier, LogisticHead, SVMHead)
        head: Any = estimator.head_ if isinstance(estimator, TransferClassifier) else estimator
        if getattr(head, "multilabel_", False):
            raise wrong_parameter(cls.__name__, "estimator", "a head with one C, not one for each label", head)
        tried = np.asarray(head.scores_, dtype=np.float64) if hasattr(head, "scores_") else np.array([np.nan])
        if np.isnan(tried).all():
            raise InvalidInputError(
                "This head knows of no C that it tried: nothing could be held out, or it was fine-tuned or loaded."
            )
        return cls(Cs=head.Cs_, log_loss=tried, chosen=float(head.C_)).plot(ax=ax, line_kw=line_kw)

    def plot(self, *, ax: Any = None, line_kw: dict[str, Any] | None = None) -> Self:
        """Draw the log-loss of each C and mark the chosen one; return this display."""
        self.ax_, self.figure_ = _axes(ax)
        (self.line_,) = self.ax_.plot(self.Cs, self.log_loss, **({"marker": "o"} | (line_kw or {})))
        self.ax_.axvline(self.chosen, linestyle="--", color="grey", label=f"chosen: {self.chosen:.3g}")
        self.ax_.set(xscale="log", xlabel="C", ylabel="Held-out log-loss")
        self.ax_.legend()
        return self


class HistoryDisplay:
    """A training, epoch by epoch.

    Parameters
    ----------
    history : sequence of EpochRecord
        ``history_`` of a classifier.
    metric : {"loss", "accuracy", "learning_rate"}

    Attributes
    ----------
    ax_, figure_ : matplotlib Axes and Figure
    lines_ : list of matplotlib lines
        One a training: each fold, then all images.
    """

    def __init__(self, *, history: Sequence[EpochRecord], metric: Metric = "loss") -> None:
        if metric not in METRICS:
            raise wrong_parameter("HistoryDisplay", "metric", "one of " + ", ".join(map(repr, METRICS)), metric)
        self.history = tuple(history)
        self.metric: Metric = metric

    @classmethod
    def from_estimator(cls, estimator: TransferClassifier, *, metric: Metric = "loss", ax: Any = None) -> Self:
        """Plot the training of a fitted classifier.

        Parameters
        ----------
        estimator : TransferClassifier
        metric : {"loss", "accuracy", "learning_rate"}
        ax : matplotlib Axes or None

        Raises
        ------
        InvalidInputError
            The estimator is of another kind, or was not fine-tuned.
        """
        _check_fitted(cls, estimator, TransferClassifier)
        if not estimator.history_:
            raise InvalidInputError(
                f"This classifier has no history: it is a {estimator.strategy_} and nothing was trained by epochs. "
                "strategy='finetune' asks for it."
            )
        return cls(history=estimator.history_, metric=metric).plot(ax=ax)

    def plot(self, *, ax: Any = None) -> Self:
        """Draw one line a training; return this display."""
        self.ax_, self.figure_ = _axes(ax)
        self.lines_ = []
        for stage in dict.fromkeys(record.stage for record in self.history):
            records = [record for record in self.history if record.stage == stage]
            values = [self._value(record) for record in records]
            self.lines_ += self.ax_.plot([record.epoch for record in records], values, marker=".", label=stage)
        self.ax_.set(xlabel="Epoch", ylabel=METRICS[self.metric])
        self.ax_.legend()
        return self

    def _value(self, record: EpochRecord) -> float:
        match self.metric:
            case "loss":
                return record.loss
            case "accuracy":
                return record.accuracy
            case "learning_rate":
                return record.learning_rates[-1]


class PlanDisplay:
    """What each alternative of a plan costs, and how accurate it is expected to be.

    Parameters
    ----------
    plan : Plan

    Attributes
    ----------
    ax_, figure_ : matplotlib Axes and Figure
    """

    def __init__(self, *, plan: Plan) -> None:
        self.plan = plan

    @classmethod
    def from_estimator(cls, estimator: TransferClassifier, *, ax: Any = None) -> Self:
        """Plot the plan of a fitted classifier.

        Parameters
        ----------
        estimator : TransferClassifier
        ax : matplotlib Axes or None
        """
        _check_fitted(cls, estimator, TransferClassifier)
        return cls(plan=estimator.plan_).plot(ax=ax)

    def plot(self, *, ax: Any = None) -> Self:
        """Draw every alternative whose accuracy can be foreseen, with the bounds of both; return this display.

        Raises
        ------
        InvalidInputError
            None can: the plan still waits for the probes.
        """
        known = [found for found in self.plan.alternatives if found.accuracy is not None]
        if not known:
            raise InvalidInputError(
                "This plan knows no accuracies yet, because the probes have not been fitted. Plot plan_ after fit."
            )
        self.ax_, self.figure_ = _axes(ax)
        for found in known:
            assert found.accuracy is not None
            self.ax_.errorbar(
                [found.seconds.value],
                [found.accuracy.value],
                xerr=_reach(found.seconds.value, found.seconds.low, found.seconds.high),
                yerr=_reach(found.accuracy.value, found.accuracy.low, found.accuracy.high),
                marker="o" if found.feasible else "x",
                capsize=3,
                linestyle="none",
                label=label(found.strategy) + (" (planned)" if found.strategy == self.plan.strategy else ""),
            )
        self.ax_.set(xscale="log", xlabel="Seconds of the whole run", ylabel="Expected accuracy")
        self.ax_.legend()
        return self


def _axes(ax: Any) -> tuple[Any, Any]:
    """Return the axes to draw in, new ones if none are given, and their figure.

    Raises
    ------
    MissingDependencyError
        matplotlib is not installed (the extra ``plot`` brings it).
    """
    pyplot = require("matplotlib.pyplot", extra="plot")
    found = pyplot.subplots()[1] if ax is None else ax
    return found, found.figure


def _check_fitted(display: type, estimator: object, *kinds: type) -> None:
    """Raise unless the estimator is a fitted one of these kinds."""
    if not isinstance(estimator, kinds):
        allowed = "a fitted " + " or ".join(kind.__name__ for kind in kinds)
        raise wrong_parameter(display.__name__, "estimator", allowed, estimator)
    check_is_fitted(estimator)


def _reach(value: float, low: float, high: float) -> NDArray[np.float64]:
    """Return how far bounds lie below and above a value, as error bars take them, (2, 1)."""
    return np.array([[max(0.0, value - low)], [max(0.0, high - value)]])
