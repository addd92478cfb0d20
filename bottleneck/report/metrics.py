"""How good the predictions are: pure functions of class codes."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Z_95 = 1.959963984540054
"""The 97.5 % quantile of the normal distribution."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Share:
    """How many of ``n`` were right, and the 95 % Wilson interval of that share.

    Wilson (1927), Probable inference, the law of succession, and statistical inference; it keeps its promise for the
    small n and the shares near 1 of test sets (Brown, Cai and DasGupta 2001), where the usual interval does not.
    Where images have weights, the number of right ones is no whole number.
    """

    n_right: float
    n: int

    @property
    def value(self) -> float:
        """The share itself."""
        return self.n_right / self.n

    @property
    def low(self) -> float:
        """Lower end of the interval."""
        return max(0.0, min(self.value, self._centre() - self._half_width()))

    @property
    def high(self) -> float:
        """Upper end of the interval."""
        return min(1.0, max(self.value, self._centre() + self._half_width()))

    def _centre(self) -> float:
        return (self.n_right + Z_95**2 / 2) / (self.n + Z_95**2)

    def _half_width(self) -> float:
        spread: float = np.sqrt(self.n * self.value * (1 - self.value) + Z_95**2 / 4)
        return float(Z_95 / (self.n + Z_95**2) * spread)


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassScore:
    """How one class fared; a score is None where it is not defined (no such image, or never predicted)."""

    n_images: int
    n_predicted: int
    recall: float | None
    precision: float | None
    f1: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class MeanScore:
    """Means over the labels that have test images, each counted once; the mean recall is the balanced accuracy."""

    recall: float
    precision: float
    f1: float


@dataclass(frozen=True, kw_only=True, slots=True)
class ConfusedPair:
    """How many of the images of one class were taken for another."""

    true: int
    predicted: int
    n: int
    n_images: int


def confusion_matrix(true: NDArray[np.int64], predicted: NDArray[np.int64], *, n_labels: int) -> NDArray[np.int64]:
    """Return how many images of each label (rows) were predicted as each (columns), ``(n_labels, n_labels)``."""
    return np.bincount(true * n_labels + predicted, minlength=n_labels**2).reshape(n_labels, n_labels)


def class_scores(confusion: NDArray[np.int64]) -> tuple[ClassScore, ...]:
    """Return the scores of each label."""
    columns = (np.diag(confusion), confusion.sum(axis=1), confusion.sum(axis=0))
    return tuple(
        ClassScore(
            n_images=n_images,
            n_predicted=n_predicted,
            recall=_ratio(n_right, n_images),
            precision=_ratio(n_right, n_predicted),
            f1=_ratio(2 * n_right, n_images + n_predicted),
        )
        for n_right, n_images, n_predicted in zip(*(column.tolist() for column in columns), strict=True)
    )


def mean_scores(scores: tuple[ClassScore, ...]) -> MeanScore:
    """Return the means of the labels' scores; the precision of a label that was never predicted counts as 0."""
    present = [score for score in scores if score.n_images]
    return MeanScore(
        recall=sum(score.recall or 0.0 for score in present) / len(present),
        precision=sum(score.precision or 0.0 for score in present) / len(present),
        f1=sum(score.f1 or 0.0 for score in present) / len(present),
    )


def log_loss(proba: NDArray[np.float64], true: NDArray[np.int64]) -> float:
    """Return the mean of ``-log(probability of the true class)`` in nats, over images (n,) of known classes."""
    known = true < proba.shape[1]
    chosen = proba[known, true[known]]
    return float(-np.log(np.maximum(chosen, np.finfo(proba.dtype).eps)).mean())


def confused_pairs(confusion: NDArray[np.int64], *, most: int) -> tuple[ConfusedPair, ...]:
    """Return at most ``most`` pairs that were confused, the most frequent first; equals stay in class order."""
    wrong = confusion - np.diag(np.diag(confusion))
    n_images = confusion.sum(axis=1)
    order = np.argsort(-wrong, axis=None, kind="stable")[:most]
    pairs = (divmod(position, len(confusion)) for position in order.tolist())
    return tuple(
        ConfusedPair(
            true=int(true), predicted=int(predicted), n=int(wrong[true, predicted]), n_images=int(n_images[true])
        )
        for true, predicted in pairs
        if wrong[true, predicted]
    )


def _ratio(part: int, whole: int) -> float | None:
    return part / whole if whole else None
