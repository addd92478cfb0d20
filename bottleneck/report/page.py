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
from bottleneck.report.charts import ReliabilityChart, reliability_chart
from bottleneck.report.curves import CurveChart, MoreLabels, history_charts, more_labels
from bottleneck.report.evaluate import Evaluation
from bottleneck.report.gallery import Gallery
from bottleneck.report.metrics import Share, confusion_matrix, log_loss
from bottleneck.report.overlap import Overlap, accuracy_without
from bottleneck.report.tables import (
    ClassTable,
    Matrix,
    PairRow,
    PlanRow,
    class_table,
    confusion_table,
    pair_rows,
    plan_rows,
)
from bottleneck.report.verdict import against_plan, judge

DELIVERED: dict[StrategyName, str] = {
    "probe": "Linear probe",
    "all_stages_probe": "Linear probe on all stages",
    "finetune": "Fine-tuned network",
    "scratch": "Network trained from random weights",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Headline:
    """The one number, and what to hold it against.

    ``probe`` is None where the probe is what was delivered, ``overlap`` where the training images were not given, and
    ``without_seen`` where no test image is new.
    """

    delivered: str
    backbone: str
    accuracy: Share
    majority: float
    majority_label: str
    estimate: Share | None
    probe: Share | None
    verdict: tuple[str, ...]
    overlap: Overlap | None
    without_seen: Share | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Reliability:
    """How far probabilities can be trusted: the calibration, its chart, and the log-loss."""

    calibration: Calibration
    chart: ReliabilityChart
    log_loss: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Page:
    """A report, from top to bottom. ``matrix`` is None above ``MATRIX_LABELS`` labels."""

    version: str
    headline: Headline
    facts: tuple[tuple[str, str], ...]
    plan: Plan
    plan_rows: tuple[PlanRow, ...]
    outcome: str
    expectation: str
    classes: ClassTable
    matrix: Matrix | None
    pairs: tuple[PairRow, ...]
    reliability: Reliability | None
    more_labels: MoreLabels | None
    history: tuple[CurveChart, ...]
    gallery: Gallery
    n_mistakes: int
    has_proba: bool
    skipped_fit: tuple[ImageFailure, ...]
    skipped_test: tuple[ImageFailure, ...]


def compose_page(
    classifier: TransferClassifier, evaluation: Evaluation, gallery: Gallery, overlap: Overlap | None = None
) -> Page:
    """Work out everything that the report says."""
    confusion = confusion_matrix(evaluation.true, evaluation.predicted, n_labels=len(evaluation.labels))
    headline, plan = _headline(classifier, evaluation, confusion, overlap), classifier.plan_
    groups = (*(group.name for group in classifier.backbone_.layer_groups), "head")
    return Page(
        version=__version__,
        headline=headline,
        facts=_facts(classifier),
        plan=plan,
        plan_rows=plan_rows(plan),
        outcome=classifier.outcome_,
        expectation=against_plan(plan.chosen, headline.accuracy, delivered=plan.strategy_name == classifier.strategy_),
        classes=class_table(evaluation, confusion),
        matrix=confusion_table(evaluation, confusion),
        pairs=pair_rows(evaluation, confusion),
        reliability=_reliability(evaluation),
        more_labels=more_labels(plan.request.evidence, n_labelled=_n_fitted(classifier)),
        history=history_charts(classifier.history_, groups),
        gallery=gallery,
        n_mistakes=int((~evaluation.correct).sum()),
        has_proba=evaluation.has_proba,
        skipped_fit=tuple(classifier.skipped_),
        skipped_test=evaluation.unreadable,
    )


def _headline(
    classifier: TransferClassifier, evaluation: Evaluation, confusion: NDArray[np.int64], overlap: Overlap | None
) -> Headline:
    """Return the accuracy, and what always answering the most frequent class would give."""
    accuracy = Share(n_right=int(np.trace(confusion)), n=int(confusion.sum()))
    n_images = confusion.sum(axis=1)
    majority = int(n_images[: evaluation.n_classes].argmax())
    n_unseen = int(n_images[evaluation.n_classes :].sum())
    share = float(n_images[majority] / accuracy.n)
    estimate, probe = _estimate(classifier), _probe(classifier)
    return Headline(
        delivered=DELIVERED[classifier.strategy_],
        backbone=classifier.backbone_.name,
        accuracy=accuracy,
        majority=share,
        majority_label=evaluation.labels[majority],
        estimate=estimate,
        probe=probe,
        verdict=judge(accuracy, majority=share, estimate=estimate, probe=probe, n_unseen=n_unseen, overlap=overlap),
        overlap=overlap,
        without_seen=None if overlap is None else accuracy_without(evaluation, overlap),
    )


def _estimate(classifier: TransferClassifier) -> Share | None:
    """Return the out-of-fold accuracy as a share of the images fitted on, None where no image could be held out.

    Of a fine-tuned network fewer may have been held out, which errs on the side of pointing at a difference.
    """
    if math.isnan(classifier.accuracy_cv_):
        return None
    n = _n_fitted(classifier)
    return Share(n_right=classifier.accuracy_cv_ * n, n=n)


def _probe(classifier: TransferClassifier) -> Share | None:
    """Return the out-of-fold accuracy of the probe, None where it is what was delivered, or is not known."""
    evidence = classifier.plan_.request.evidence
    if evidence is None or classifier.strategy_ == "probe":
        return None
    n = _n_fitted(classifier)
    return Share(n_right=evidence.accuracy * n, n=n)


def _reliability(evaluation: Evaluation) -> Reliability | None:
    if not evaluation.has_proba:
        return None
    calibration = calibrate(evaluation.certainty, evaluation.correct)
    return Reliability(
        calibration=calibration,
        chart=reliability_chart(calibration),
        log_loss=log_loss(evaluation.scores, evaluation.true),
    )


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
