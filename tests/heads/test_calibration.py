"""Slopes make decisions into probabilities and change no decision."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import softmax

from bottleneck.heads.calibration import fit_slope, log_losses, log_probabilities


def draw_decisions(slope: float, n_classes: int = 3, n: int = 4000) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    rng = np.random.default_rng(0)
    logits = 2 * rng.standard_normal((n, n_classes))
    labels = (softmax(logits, axis=1).cumsum(axis=1) < rng.random((n, 1))).sum(axis=1)
    return logits / slope, labels


@pytest.mark.parametrize("slope", [1e-3, 0.2, 1.0, 500.0])
def test_the_slope_behind_the_labels_is_found(slope: float) -> None:
    decisions, labels = draw_decisions(slope)

    assert fit_slope(decisions, labels, np.ones(len(labels))) == pytest.approx(slope, rel=0.1)


def test_one_column_of_decisions_stands_for_two_classes() -> None:
    decisions, labels = draw_decisions(0.5, n_classes=2)
    difference = decisions[:, 1:] - decisions[:, :1]
    centred = np.concatenate([-difference, difference], axis=1) / 2

    assert fit_slope(difference, labels, np.ones(len(labels))) == pytest.approx(
        fit_slope(centred, labels, np.ones(len(labels))), rel=1e-3
    )
    np.testing.assert_allclose(log_probabilities(difference), log_probabilities(centred), atol=1e-12)


def test_the_slope_has_the_least_log_loss_when_rows_are_many() -> None:
    decisions, labels = draw_decisions(0.3)
    weights = np.random.default_rng(1).uniform(0.5, 2, size=len(labels))

    naive = minimize_scalar(lambda s: weights @ log_losses(s * decisions, labels), bounds=(0.01, 3), method="bounded")

    assert fit_slope(decisions, labels, weights) == pytest.approx(naive.x, rel=1e-2)


def test_a_weight_of_two_is_two_rows() -> None:
    decisions, labels = draw_decisions(0.3, n=50)
    weights = np.arange(50) % 3

    assert fit_slope(decisions, labels, weights) == pytest.approx(
        fit_slope(np.repeat(decisions, weights, axis=0), np.repeat(labels, weights), np.ones(weights.sum())), rel=1e-9
    )


def test_decisions_without_an_error_do_not_become_certainties() -> None:
    labels = np.arange(20) % 2
    decisions = np.where(labels == 1, 1.0, -1.0)[:, None]

    slope = fit_slope(decisions, labels, np.ones(20))

    assert 0.9 < np.exp(log_probabilities(slope * decisions)).max() < 0.99


def test_decisions_worse_than_chance_keep_their_order_and_lose_their_confidence() -> None:
    decisions, labels = draw_decisions(1.0)

    slope = fit_slope(-decisions, labels, np.ones(len(labels)))

    assert 0 < slope < 1e-2


def test_decisions_of_zero_stay_undecided() -> None:
    assert fit_slope(np.zeros((4, 3)), np.array([0, 1, 2, 0]), np.ones(4)) == 1.0
