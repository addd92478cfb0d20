"""Losses agree with finite differences of themselves, and survive large logits."""

import numpy as np
import pytest
from numpy.typing import NDArray

from bottleneck.heads.losses import SIGMOID, SOFTMAX, SQUARED_HINGE, Loss

CASES = [
    pytest.param(SOFTMAX, 3, id="softmax"),
    pytest.param(SIGMOID, 1, id="sigmoid"),
    pytest.param(SQUARED_HINGE, 1, id="hinge of two"),
    pytest.param(SQUARED_HINGE, 4, id="hinge of four"),
]
STEP = 1e-5


def draw_logits(n_outputs: int) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    rng = np.random.default_rng(0)
    return rng.standard_normal((2, n_outputs, 12)), rng.integers(max(2, n_outputs), size=12)


@pytest.mark.parametrize(("loss", "n_outputs"), CASES)
def test_residuals_are_the_derivative_of_the_loss(loss: Loss, n_outputs: int) -> None:
    logits, labels = draw_logits(n_outputs)
    residuals = logits.copy()
    loss.residuals(residuals, labels)

    for output in range(n_outputs):
        shift = np.zeros_like(logits)
        shift[:, output] = STEP
        slope = (loss.residuals(logits + shift, labels) - loss.residuals(logits - shift, labels)) / (2 * STEP)

        np.testing.assert_allclose(residuals[:, output], slope, atol=1e-8)


@pytest.mark.parametrize(("loss", "n_outputs"), CASES)
def test_curvature_is_the_derivative_of_the_residuals(loss: Loss, n_outputs: int) -> None:
    logits, labels = draw_logits(n_outputs)
    here = logits.copy()
    loss.residuals(here, labels)

    for output in range(n_outputs):
        beyond = logits.copy()
        beyond[:, output] += STEP
        loss.residuals(beyond, labels)

        np.testing.assert_allclose(
            loss.curvature(here)[:, output], (beyond - here)[:, output] / STEP, atol=1e-4, rtol=1e-4
        )


@pytest.mark.parametrize(("loss", "n_outputs"), CASES)
def test_bends_are_the_derivative_of_the_residuals_in_any_direction(loss: Loss, n_outputs: int) -> None:
    logits, labels = draw_logits(n_outputs)
    change = np.random.default_rng(1).standard_normal(logits.shape)
    here, beyond, before = logits.copy(), logits + STEP * change, logits - STEP * change

    for residuals in (here, beyond, before):
        loss.residuals(residuals, labels)

    expected = (beyond - before) / (2 * STEP)
    np.testing.assert_allclose(loss.bend(here[0], labels, change[0]), expected[0], atol=1e-6)


@pytest.mark.parametrize(("loss", "n_outputs"), CASES)
def test_large_logits_neither_overflow_nor_warn(loss: Loss, n_outputs: int) -> None:
    logits, labels = draw_logits(n_outputs)
    logits = (1e6 * logits).astype(np.float32)

    losses = loss.residuals(logits, labels)

    assert np.isfinite(losses).all()
    assert np.isfinite(logits).all()


def test_sigmoid_is_a_softmax_against_zero() -> None:
    logits, labels = draw_logits(1)

    np.testing.assert_allclose(
        SIGMOID.residuals(logits.copy(), labels),
        SOFTMAX.residuals(np.concatenate([np.zeros_like(logits), logits], axis=1), labels),
    )
