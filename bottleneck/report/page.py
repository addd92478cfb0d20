"""Everything that a report says, as records: what the template writes, and nothing it has to work out."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bottleneck import __version__
from bottleneck.errors import ImageFailure
from bottleneck.estimators import TransferClassifier
from bottleneck.planner import Plan, StrategyName
from bottleneck.report.calibration import Calibration, calibrate
from bottleneck.report.charts import CurveChart, ReliabilityChart, history_charts, reliability_chart
from bottleneck.report.evaluate import Evaluation
from bottleneck.report.metrics import ClassScore, Share, class_scores, confused_pairs, confusion_matrix
from bottleneck.report.mistakes import Mistake, worst_mistakes
from bottleneck.report.verdict import judge

MATRIX_LABELS = 30
"""With more labels than this a matrix can no longer be read, and the most confused pairs are shown instead."""

MOST_PAIRS = 30

DELIVERED: dict[StrategyName, str] = {
    "probe": "Linear probe",
    "all_stages_probe": "Linear probe on all stages",
    "finetune": "Fine-tuned network",
    "scratch": "Network trained from random weights",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Headline:
    """The one number, and what to hold it against."""

    delivered: str
    backbone: str
    accuracy: Share
    majority: float
    majority_label: str
    estimate: Share | None
    verdict: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassRow:
    """One label of the per-class table; ``known`` is false for those that training never saw."""

    label: str
    known: bool
    score: ClassScore


@dataclass(frozen=True, kw_only=True, slots=True)
class Cell:
    """How many images of a row were predicted as a column, and their share of the row."""

    n: int
    share: float
    right: bool
    words: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Matrix:
    """The confusion matrix: a row for each label, a column for each class."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Cell, ...]], ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class PairRow:
    """Two labels that were confused."""

    true: str
    predicted: str
    n: int
    share: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Page:
    """A report, from top to bottom. ``matrix`` is None above ``MATRIX_LABELS`` labels, ``pairs`` empty below."""

    version: str
    headline: Headline
    facts: tuple[tuple[str, str], ...]
    plan: Plan
    outcome: str
    classes: tuple[ClassRow, ...]
    matrix: Matrix | None
    pairs: tuple[PairRow, ...]
    calibration: Calibration | None
    reliability: ReliabilityChart | None
    history: tuple[CurveChart, ...]
    mistakes: tuple[Mistake, ...]
    n_mistakes: int
    has_proba: bool
    skipped_fit: tuple[ImageFailure, ...]
    skipped_test: tuple[ImageFailure, ...]


def compose_page(classifier: TransferClassifier, evaluation: Evaluation) -> Page:
    """Work out everything that the report says."""
    confusion = confusion_matrix(evaluation.true, evaluation.predicted, n_labels=len(evaluation.labels))
    fits = len(evaluation.labels) <= MATRIX_LABELS
    calibration = calibrate(evaluation.certainty, evaluation.correct) if evaluation.has_proba else None
    return Page(
        version=__version__,
        headline=_headline(classifier, evaluation, confusion),
        facts=_facts(classifier),
        plan=classifier.plan_,
        outcome=classifier.outcome_,
        classes=_class_rows(evaluation, confusion),
        matrix=_matrix(evaluation, confusion) if fits else None,
        pairs=() if fits else _pair_rows(evaluation, confusion),
        calibration=calibration,
        reliability=None if calibration is None else reliability_chart(calibration),
        history=history_charts(classifier.history_),
        mistakes=worst_mistakes(evaluation),
        n_mistakes=int((~evaluation.correct).sum()),
        has_proba=evaluation.has_proba,
        skipped_fit=tuple(classifier.skipped_),
        skipped_test=evaluation.unreadable,
    )


def _headline(classifier: TransferClassifier, evaluation: Evaluation, confusion: NDArray[np.int64]) -> Headline:
    """Return the accuracy, and what always answering the most frequent class would give."""
    accuracy = Share(n_right=int(np.trace(confusion)), n=int(confusion.sum()))
    n_images = confusion.sum(axis=1)
    majority = int(n_images[: evaluation.n_classes].argmax())
    n_unseen = int(n_images[evaluation.n_classes :].sum())
    share = float(n_images[majority] / accuracy.n)
    estimate = _estimate(classifier)
    return Headline(
        delivered=DELIVERED[classifier.strategy_],
        backbone=classifier.backbone_.name,
        accuracy=accuracy,
        majority=share,
        majority_label=evaluation.labels[majority],
        estimate=estimate,
        verdict=judge(accuracy, majority=share, estimate=estimate, n_unseen=n_unseen),
    )


def _estimate(classifier: TransferClassifier) -> Share | None:
    """Return the out-of-fold accuracy as a share of the images fitted on, None where no image could be held out.

    Of a fine-tuned network fewer may have been held out, which errs on the side of pointing at a difference.
    """
    if math.isnan(classifier.accuracy_cv_):
        return None
    n = _n_fitted(classifier)
    return Share(n_right=classifier.accuracy_cv_ * n, n=n)


def _facts(classifier: TransferClassifier) -> tuple[tuple[str, str], ...]:
    """Return what the classifier is made of."""
    return (
        ("Backbone", classifier.backbone_.name),
        ("Weights", classifier.backbone_.weights),
        ("Head", f"{type(classifier.head_).__name__} on {classifier.n_features_in_:,} features"),
        ("Arithmetic", classifier.precision_),
        ("Fitted on", f"{_n_fitted(classifier):,} images of {len(classifier.classes_):,} classes"),
        ("Device", classifier.plan_.request.profile.device),
    )


def _n_fitted(classifier: TransferClassifier) -> int:
    return classifier.plan_.request.profile.n_samples - len(classifier.skipped_)


def _class_rows(evaluation: Evaluation, confusion: NDArray[np.int64]) -> tuple[ClassRow, ...]:
    scores = class_scores(confusion)
    return tuple(
        ClassRow(label=label, known=code < evaluation.n_classes, score=scores[code])
        for code, label in enumerate(evaluation.labels)
    )


def _matrix(evaluation: Evaluation, confusion: NDArray[np.int64]) -> Matrix:
    """Return the matrix without the columns of labels that training never saw: those are never predicted."""
    columns = evaluation.labels[: evaluation.n_classes]
    return Matrix(
        columns=columns,
        rows=tuple(
            (label, tuple(_cell(evaluation.labels, confusion, true, predicted) for predicted in range(len(columns))))
            for true, label in enumerate(evaluation.labels)
        ),
    )


def _cell(labels: tuple[str, ...], confusion: NDArray[np.int64], true: int, predicted: int) -> Cell:
    n, n_images = int(confusion[true, predicted]), int(confusion[true].sum())
    verb = "recognised" if true == predicted else f"taken for {labels[predicted]}"
    return Cell(
        n=n,
        share=n / n_images if n_images else 0.0,
        right=true == predicted,
        words=f"{n:,} of {n_images:,} {labels[true]} {verb}",
    )


def _pair_rows(evaluation: Evaluation, confusion: NDArray[np.int64]) -> tuple[PairRow, ...]:
    return tuple(
        PairRow(
            true=evaluation.labels[pair.true],
            predicted=evaluation.labels[pair.predicted],
            n=pair.n,
            share=pair.n / pair.n_images,
        )
        for pair in confused_pairs(confusion, most=MOST_PAIRS)
    )
