"""What a classifier predicts for a test set, beside what is true."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bottleneck.errors import ImageFailure, InvalidInputError
from bottleneck.estimators import TransferClassifier
from bottleneck.heads import LogisticHead, SVMHead
from bottleneck.images import ImageReadError, ImageSource, as_labelled_source, decode

SHOWN_LABELS = 5
"""How many labels a message spells out."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Evaluation:
    """Predictions for the readable images of a test set.

    Attributes
    ----------
    source : ImageSource
        All images of the test set.
    rows : int64 array (n,)
        Rows of the source that could be read.
    labels : tuple of str
        The classifier's classes, and behind them the test labels that training never saw.
    n_classes : int
        How many of the labels are classes.
    true : int64 array (n,)
        Positions in ``labels``.
    scores : float64 array (n, n_classes)
        Probabilities, or decision values where the head has no probabilities.
    has_proba : bool
        Which of the two they are.
    unreadable : tuple of ImageFailure
    """

    source: ImageSource
    rows: NDArray[np.int64]
    labels: tuple[str, ...]
    n_classes: int
    true: NDArray[np.int64]
    scores: NDArray[np.float64]
    has_proba: bool
    unreadable: tuple[ImageFailure, ...]

    @property
    def predicted(self) -> NDArray[np.int64]:
        """Position in ``labels`` of the class of the highest score, (n,)."""
        highest: NDArray[np.int64] = self.scores.argmax(axis=1)
        return highest

    @property
    def certainty(self) -> NDArray[np.float64]:
        """The highest score, (n,)."""
        highest: NDArray[np.float64] = self.scores.max(axis=1)
        return highest

    @property
    def correct(self) -> NDArray[np.bool_]:
        """Which predictions are right, (n,); an image of a label that training never saw cannot be."""
        right: NDArray[np.bool_] = self.true == self.predicted
        return right


def evaluate(classifier: TransferClassifier, X_test: object, y_test: ArrayLike | None) -> Evaluation:
    """Predict a test set, in any form that ``fit`` takes.

    Raises
    ------
    InvalidInputError
        The images or labels cannot be used, or none of the labels is a class of the classifier.
    """
    source, found = as_labelled_source(X_test, y_test, image_shape=classifier.image_shape, min_classes=1)
    labels, true = label_codes(found.tolist(), classifier.classes_.tolist())
    has_proba = gives_proba(classifier.head_)
    scores = classifier.predict_proba(source) if has_proba else decision_columns(classifier.decision_function(source))
    unreadable = np.isnan(scores).any(axis=1)
    rows = np.flatnonzero(~unreadable)
    return Evaluation(
        source=source,
        rows=rows,
        labels=tuple(map(str, labels)),
        n_classes=len(classifier.classes_),
        true=true[rows],
        scores=scores[rows],
        has_proba=has_proba,
        unreadable=tuple(why_unreadable(source, row) for row in np.flatnonzero(unreadable).tolist()),
    )


def gives_proba(head: LogisticHead | SVMHead) -> bool:
    """Say whether a head has probabilities: all but an SVM that had no image to calibrate its decisions on."""
    return not (isinstance(head, SVMHead) and np.isnan(head.slope_))


def label_codes(found: list[object], classes: list[object]) -> tuple[list[object], NDArray[np.int64]]:
    """Return the classes with the labels that training never saw behind them, and the position of each found label.

    Raises
    ------
    InvalidInputError
        No label is a class.
    """
    known = set(classes)
    unseen = sorted(set(found) - known, key=str)
    if known.isdisjoint(found):
        raise InvalidInputError(
            "None of the test labels is one of the classifier's classes, so nothing can be compared. "
            f"Test labels: {_few(unseen)}. Classes: {_few(classes)}."
        )
    labels = [*classes, *unseen]
    position = {label: code for code, label in enumerate(labels)}
    return labels, np.array([position[label] for label in found], dtype=np.int64)


def decision_columns(decision: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return one decision value a class, also for two classes, (n_samples, n_classes)."""
    return decision if decision.ndim == 2 else np.column_stack([-decision, decision])


def why_unreadable(source: ImageSource, row: int) -> ImageFailure:
    """Return the failure of an image that gave no prediction, which says only that there is none."""
    reason = "it could not be read when it was predicted, and can be read now"
    try:
        decode(source.read(row))
    except ImageReadError as exc:
        reason = exc.reason
    return ImageFailure(row=row, id=source.ids[row], reason=reason)


def _few(labels: list[object]) -> str:
    rest = f" and {len(labels) - SHOWN_LABELS} more" if len(labels) > SHOWN_LABELS else ""
    return ", ".join(map(repr, labels[:SHOWN_LABELS])) + rest
