"""Fits a small linear model of what fine-tuning gains to the table of cells, and says how far it can be trusted.

The gain over the penultimate probe is measured on test images and divided by the headroom that the probe leaves out of
fold, so that tasks of any difficulty can be compared. The model is least squares on standardised features that a
planner has, with a ridge penalty that leave-one-dataset-out chooses; residuals are those of datasets left out.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import log

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score

from bottleneck.planner import ProbeEvidence, Profile
from tests.benchmarks.planner_cells import Record
from tests.benchmarks.planner_policies import better_probe
from tests.benchmarks.planner_replay import PlayedCell, Policy, positions_by_task, rounded

LEAST_HEADROOM = 0.02
"""Shares of less than this would be mostly noise."""
WORTHWHILE = 0.01
PENALTIES = (0.0, 1.0, 3.0, 10.0, 30.0)
DELIVERY = "finetune_far"
"""What is predicted: what the library delivers, with comparison, blend and fallback."""

FEATURES: dict[str, Callable[[ProbeEvidence, Profile], float]] = {
    "delta_share": lambda evidence, profile: (evidence.delta_multi or 0.0) / headroom_of(evidence),
    "log_per_class": lambda evidence, profile: log(profile.n_samples / profile.n_classes),
    "fit_gap": lambda evidence, profile: evidence.train_accuracy - evidence.accuracy,
    "headroom": lambda evidence, profile: headroom_of(evidence),
}
"""What the model is linear in: all of it is known when the probes are fitted."""


@dataclass(frozen=True, kw_only=True, slots=True)
class GainModel:
    """Gain as a share of the headroom: ``intercept`` + the sum of coefficient times feature, +- ``residual``."""

    intercept: float
    coefficients: dict[str, float]
    residual: float

    def share(self, evidence: ProbeEvidence, profile: Profile) -> float:
        """Return the predicted gain over the penultimate probe as a share of the headroom."""
        return self.intercept + sum(
            coefficient * FEATURES[name](evidence, profile) for name, coefficient in self.coefficients.items()
        )

    def gain(self, evidence: ProbeEvidence, profile: Profile) -> float:
        """Return the predicted gain in accuracy."""
        return self.share(evidence, profile) * headroom_of(evidence)


def headroom_of(evidence: ProbeEvidence) -> float:
    """Return what is left to gain."""
    return max(1 - evidence.accuracy, LEAST_HEADROOM)


def gains_of(cells: Sequence[PlayedCell], delivery: str) -> NDArray[np.float64]:
    """Return the gain (n_cells,) of a delivery over the penultimate probe, on test images."""
    return np.array([cell.deliveries[delivery].accuracy - cell.deliveries["probe"].accuracy for cell in cells])


def fit_gain_model(cells: Sequence[PlayedCell], *, delivery: str, names: Sequence[str] = tuple(FEATURES)) -> GainModel:
    """Fit the model to cells, datasets counting alike; the penalty is chosen by leaving out one dataset at a time."""
    features = np.array([[FEATURES[name](cell.evidence, cell.profile) for name in names] for cell in cells])
    shares = gains_of(cells, delivery) / np.array([headroom_of(cell.evidence) for cell in cells])
    groups = list(positions_by_task(cells).values())
    residuals = {penalty: _left_out_residuals(features, shares, groups, penalty) for penalty in PENALTIES}
    best = min(PENALTIES, key=lambda penalty: _root_mean_square(residuals[penalty], groups))
    coefficients, intercept = _ridge(features, shares, groups, best)
    return GainModel(
        intercept=intercept,
        coefficients=dict(zip(names, coefficients.tolist(), strict=True)),
        residual=_root_mean_square(residuals[best], groups),
    )


def _left_out_residuals(
    features: NDArray[np.float64], targets: NDArray[np.float64], groups: list[NDArray[np.int64]], penalty: float
) -> NDArray[np.float64]:
    """Return target minus prediction (n_cells,), by models that have not seen the cell's dataset."""
    residuals = targets - targets.mean()
    if len(groups) < 3:
        return residuals
    for left_out in groups:
        others = [group for group in groups if group is not left_out]
        coefficients, intercept = _ridge(features, targets, others, penalty)
        residuals[left_out] = targets[left_out] - intercept - features[left_out] @ coefficients
    return residuals


def _ridge(
    features: NDArray[np.float64], targets: NDArray[np.float64], groups: list[NDArray[np.int64]], penalty: float
) -> tuple[NDArray[np.float64], float]:
    """Return coefficients and intercept on the rows of ``groups``, each of which has the same weight in all."""
    rows = np.concatenate(groups)
    weights = np.concatenate([np.full(len(group), 1 / len(group)) for group in groups])
    weights *= len(rows) / weights.sum()
    mean = np.average(features[rows], axis=0, weights=weights)
    spread = np.sqrt(np.average((features[rows] - mean) ** 2, axis=0, weights=weights))
    spread[spread < 1e-9] = 1.0  # the same everywhere, so that nothing can be learned from it
    standard, level = (features[rows] - mean) / spread, float(np.average(targets[rows], weights=weights))
    gram = (standard * weights[:, None]).T @ standard + (penalty + 1e-9) * np.eye(features.shape[1])
    scaled = np.linalg.solve(gram, (standard * weights[:, None]).T @ (targets[rows] - level))
    coefficients = scaled / spread
    return coefficients, level - float(mean @ coefficients)


def _root_mean_square(values: NDArray[np.float64], groups: list[NDArray[np.int64]]) -> float:
    return float(np.sqrt(np.mean([np.mean(values[group] ** 2) for group in groups])))


def fit_delivered(cells: Sequence[PlayedCell]) -> GainModel:
    """Fit the model to what the library delivers."""
    return fit_gain_model(cells, delivery=DELIVERY)


def learned_policy(evidence: ProbeEvidence, profile: Profile, model: GainModel) -> str:
    """Fine-tune if that promises a point more than the better probe; a ``Policy``."""
    choice = better_probe(evidence, profile)
    lead = evidence.delta_multi if choice == "all_stages" and evidence.delta_multi is not None else 0.0
    return DELIVERY if model.gain(evidence, profile) > lead + WORTHWHILE else choice


LEARNED: Policy[GainModel] = learned_policy


def candidate_signals(cell: PlayedCell) -> dict[str, float]:
    """Return everything that might tell whether fine-tuning pays, by name."""
    evidence, profile, layers = cell.evidence, cell.profile, cell.signals["layers"]
    found = {name: feature(evidence, profile) for name, feature in FEATURES.items()}
    found |= {
        "delta_multi": evidence.delta_multi or 0.0,
        "log_n": log(profile.n_samples),
        "imbalance": profile.largest_class / profile.smallest_class,
        "neighbours_minus_probe": cell.signals["neighbours"] - evidence.accuracy,
        "early_minus_penultimate": layers.get("early", np.nan) - layers["penultimate"],
        "stages_gain_in_errors": (evidence.delta_multi or 0.0) / max(layers.get("all_stages_gain_se", 0.0), 0.005),
        "batch_norm_shift": np.nan if cell.signals["batch_norm_shift"] is None else cell.signals["batch_norm_shift"],
    }
    if len(evidence.learning_curve) > 1:
        (_, before), (_, last) = sorted(evidence.learning_curve)[-2:]
        found["curve_slope"] = last - before
    return found


def describe_signals(cells: Sequence[PlayedCell], *, delivery: str) -> list[Record]:
    """Return a line a signal: Spearman with the gain, and AUROC for a gain of more than a point; best first."""
    gains, signals = gains_of(cells, delivery), [candidate_signals(cell) for cell in cells]
    lines = []
    for name in signals[0]:
        values = np.array([each.get(name, np.nan) for each in signals])
        known = np.isfinite(values)
        lines.append(
            {"signal": name, "delivery": delivery, "cells": int(known.sum()), **agreement(values[known], gains[known])}
        )
    return sorted(lines, key=lambda line: -abs(line["spearman"] or 0.0))


def agreement(values: NDArray[np.float64], gains: NDArray[np.float64]) -> Record:
    """Return Spearman's correlation with the gain and the AUROC for more than a point; None where undefined."""
    pays = gains > WORTHWHILE
    varied = len(gains) > 1 and bool(np.ptp(values) > 0 and np.ptp(gains) > 0)
    return {
        "spearman": rounded(float(spearmanr(values, gains).statistic)) if varied else None,
        "auroc": rounded(float(roc_auc_score(pays, values))) if pays.any() and not pays.all() else None,
    }


def describe_model(cells: Sequence[PlayedCell], *, delivery: str) -> Record:
    """Return the constants of the model with the quality of its predictions for datasets that were left out."""
    model = fit_gain_model(cells, delivery=delivery)
    gains, predicted = gains_of(cells, delivery), np.empty(len(cells))
    groups = positions_by_task(cells)
    for task, rows in groups.items():
        other = fit_gain_model([cell for cell in cells if cell.task != task], delivery=delivery)
        predicted[rows] = [other.gain(cells[row].evidence, cells[row].profile) for row in rows]
    error = gains - predicted
    return {
        "model": delivery,
        "intercept": model.intercept,
        "coefficients": model.coefficients,
        "residual_share": rounded(model.residual),
        **{f"left_out_{name}": value for name, value in agreement(predicted, gains).items()},
        "left_out_error_points": rounded(100 * float(np.sqrt(np.mean(error**2)))),
        "mean_gain_points": rounded(100 * float(gains.mean())),
        "error_points_by_dataset": {task: rounded(100 * float(error[rows].mean())) for task, rows in groups.items()},
    }
