"""The rows and cells of the report's tables."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bottleneck.planner import Alternative, Plan
from bottleneck.report.charts import Axis
from bottleneck.report.evaluate import Evaluation
from bottleneck.report.metrics import ClassScore, MeanScore, class_scores, confused_pairs, mean_scores

MATRIX_LABELS = 30
"""With more labels than this a matrix can no longer be read, and the most confused pairs are shown instead."""

MOST_PAIRS, MOST_PAIRS_BESIDE = 30, 10
"""Confused pairs in place of a matrix, and beside one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PlanRow:
    """One alternative of the plan, and where its accuracy lies on the table's common axis, in percent of its length."""

    alternative: Alternative
    chosen: bool
    at: float | None
    low: float
    high: float


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassRow:
    """One label of the per-class table; ``known`` is false for those that training never saw."""

    code: int
    label: str
    known: bool
    score: ClassScore


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassTable:
    """Every label, and the means over those with images."""

    rows: tuple[ClassRow, ...]
    mean: MeanScore


@dataclass(frozen=True, kw_only=True, slots=True)
class Cell:
    """How many images of a row were predicted as a column, and their share of the row."""

    true: int
    predicted: int
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
    """Two labels that were confused, by their positions."""

    true: int
    predicted: int
    n: int
    share: float


def plan_rows(plan: Plan) -> tuple[PlanRow, ...]:
    """Return the alternatives, their accuracies on one axis that ends at 1 and begins at a round number below all."""
    known = [found.accuracy.low for found in plan.alternatives if found.accuracy is not None]
    axis = Axis(low=min(0.9, math.floor(10 * min(known, default=0.0)) / 10), high=1, start=0, end=100)
    return tuple(_plan_row(found, axis, chosen=found.strategy == plan.strategy) for found in plan.alternatives)


def class_table(evaluation: Evaluation, confusion: NDArray[np.int64]) -> ClassTable:
    """Return the scores of each label."""
    scores = class_scores(confusion)
    return ClassTable(
        rows=tuple(
            ClassRow(code=code, label=label, known=code < evaluation.n_classes, score=scores[code])
            for code, label in enumerate(evaluation.labels)
        ),
        mean=mean_scores(scores),
    )


def confusion_table(evaluation: Evaluation, confusion: NDArray[np.int64]) -> Matrix | None:
    """Return the matrix without the columns of labels that training never saw: those are never predicted.

    None with more than ``MATRIX_LABELS`` labels.
    """
    if len(evaluation.labels) > MATRIX_LABELS:
        return None
    columns = evaluation.labels[: evaluation.n_classes]
    return Matrix(
        columns=columns,
        rows=tuple(
            (label, tuple(_cell(evaluation.labels, confusion, true, predicted) for predicted in range(len(columns))))
            for true, label in enumerate(evaluation.labels)
        ),
    )


def pair_rows(evaluation: Evaluation, confusion: NDArray[np.int64]) -> tuple[PairRow, ...]:
    """Return the most confused pairs."""
    most = MOST_PAIRS_BESIDE if len(evaluation.labels) <= MATRIX_LABELS else MOST_PAIRS
    return tuple(
        PairRow(
            true=pair.true,
            predicted=pair.predicted,
            n=pair.n,
            share=pair.n / pair.n_images,
        )
        for pair in confused_pairs(confusion, most=most)
    )


def _plan_row(found: Alternative, axis: Axis, *, chosen: bool) -> PlanRow:
    if found.accuracy is None:
        return PlanRow(alternative=found, chosen=chosen, at=None, low=0, high=0)
    value, low, high = found.accuracy.value, found.accuracy.low, found.accuracy.high
    return PlanRow(alternative=found, chosen=chosen, at=axis.at(value), low=axis.at(low), high=axis.at(high))


def _cell(labels: tuple[str, ...], confusion: NDArray[np.int64], true: int, predicted: int) -> Cell:
    n, n_images = int(confusion[true, predicted]), int(confusion[true].sum())
    verb = "recognised" if true == predicted else f"taken for {labels[predicted]}"
    return Cell(
        true=true,
        predicted=predicted,
        n=n,
        share=n / n_images if n_images else 0.0,
        right=true == predicted,
        words=f"{n:,} of {n_images:,} {labels[true]} {verb}",
    )
