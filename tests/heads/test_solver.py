"""Several heads solved together are the optima that each has by itself."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import minimize
from sklearn.linear_model import LogisticRegression

from bottleneck.heads.losses import SIGMOID, SOFTMAX, SQUARED_HINGE, Loss
from bottleneck.heads.rotation import rotate
from bottleneck.heads.solver import Problem, compute_logits, solve, zero_heads
from tests.heads.conftest import Draw


def pose(X: NDArray[Any], y: NDArray[Any], weights: NDArray[Any], loss: Loss) -> Problem:
    rotation = rotate(X - X.mean(axis=0))
    n_classes = y.max() + 1
    return Problem(
        scores=rotation.scores,
        spectrum=rotation.spectrum,
        labels=y,
        weights=weights,
        penalty=np.ones(len(weights)),
        loss=loss,
        n_outputs=1 if n_classes == 2 else n_classes,
    )


@pytest.mark.parametrize("n_classes", [2, 4])
@pytest.mark.parametrize("shape", [(60, 8), (30, 50)])
def test_every_head_is_the_logistic_regression_of_its_weights(
    n_classes: int, shape: tuple[int, int], draw: Draw
) -> None:
    X, y = draw(*shape, n_classes=n_classes)
    weights = np.random.default_rng(0).uniform(0, 2, size=(3, len(X))).round()
    problem = pose(X, y, weights, SIGMOID if n_classes == 2 else SOFTMAX)

    heads = solve(problem, C=0.3, start=zero_heads(problem), tol=1e-10, max_iter=500)

    for head, weight in zip(compute_logits(problem, heads), weights, strict=True):
        naive = LogisticRegression(C=0.3, tol=1e-10, max_iter=5000).fit(X, y, sample_weight=weight)
        expected = naive.decision_function(X).reshape(len(X), -1)
        centred = head.T if n_classes == 2 else head.T - head.mean(axis=0)[:, None]
        np.testing.assert_allclose(centred, expected, atol=1e-5)


@pytest.mark.parametrize("n_classes", [2, 3])
def test_squared_hinge_is_minimised_with_a_free_intercept(n_classes: int, draw: Draw) -> None:
    X, y = draw(40, 6, n_classes=n_classes)
    problem = pose(X, y, np.ones((1, 40)), SQUARED_HINGE)

    head = compute_logits(problem, solve(problem, C=0.5, start=zero_heads(problem), tol=1e-10, max_iter=500))[0]

    for decisions, label in zip(head, range(n_classes) if n_classes > 2 else [1], strict=True):
        sign = np.where(y == label, 1, -1)

        def objective(point: NDArray[Any], sign: NDArray[Any] = sign) -> float:
            slack = np.maximum(1 - sign * (X @ point[:-1] + point[-1]), 0)
            return float(0.5 * point[:-1] @ point[:-1] + 0.5 * slack @ slack)

        naive = minimize(objective, np.zeros(7), method="BFGS", options={"gtol": 1e-7}).x
        np.testing.assert_allclose(decisions, X @ naive[:-1] + naive[-1], atol=1e-4)


def test_a_quadratic_penalty_is_a_change_of_features(draw: Draw) -> None:
    X, y = draw(40, 6)
    X -= X.mean(axis=0)
    scale = np.linspace(0.5, 2, 6)
    plain = pose(X / scale, y, np.ones((1, 40)), SOFTMAX)
    problem = replace(plain, scores=X, spectrum=np.square(X).sum(axis=0), penalty=np.diag(scale**2)[None])

    heads = [solve(p, C=0.3, start=zero_heads(p), tol=1e-10, max_iter=500) for p in (plain, problem)]

    np.testing.assert_allclose(*map(compute_logits, (plain, problem), heads), atol=1e-7)


def test_float32_comes_close(draw: Draw) -> None:
    X, y = draw(60, 20)
    exact = pose(X, y, np.ones((2, 60)), SOFTMAX)
    rough = replace(
        exact,
        scores=exact.scores.astype(np.float32),
        weights=exact.weights.astype(np.float32),
        penalty=exact.penalty.astype(np.float32),
    )

    solved = [solve(p, C=0.1, start=zero_heads(p), tol=1e-5, max_iter=500) for p in (exact, rough)]

    assert solved[1].coef.dtype == np.float32
    np.testing.assert_allclose(*map(compute_logits, (exact, rough), solved), atol=1e-3)


def test_rows_are_worked_through_in_blocks(monkeypatch: pytest.MonkeyPatch, draw: Draw) -> None:
    X, y = draw(700, 5)
    problem = pose(X, y, np.ones((1, 700)), SOFTMAX)
    whole = solve(problem, C=0.1, start=zero_heads(problem), tol=1e-8, max_iter=500)

    monkeypatch.setattr("bottleneck.heads.solver.BLOCK_ELEMENTS", 1)
    blocks = solve(problem, C=0.1, start=zero_heads(problem), tol=1e-8, max_iter=500)

    np.testing.assert_allclose(blocks.coef, whole.coef, atol=1e-8)


def test_a_class_without_weight_becomes_improbable_and_breaks_nothing(draw: Draw) -> None:
    X, y = draw(30, 5)
    problem = pose(X, y, (y != 2).astype(float)[None], SOFTMAX)

    logits = compute_logits(problem, solve(problem, C=1.0, start=zero_heads(problem), tol=1e-6, max_iter=500))[0]

    assert np.isfinite(logits).all()
    assert (logits[2] < logits[:2].max(axis=0) - 3).all()


def test_features_without_an_axis_leave_the_frequencies(draw: Draw) -> None:
    y = np.array([0, 0, 0, 1, 2, 2])
    problem = pose(np.zeros((6, 9)), y, np.ones((1, 6)), SOFTMAX)

    logits = compute_logits(problem, solve(problem, C=1.0, start=zero_heads(problem), tol=1e-10, max_iter=500))[0]

    frequencies = np.exp(logits[:, 0]) / np.exp(logits[:, 0]).sum()
    np.testing.assert_allclose(frequencies, [3 / 6, 1 / 6, 2 / 6], atol=1e-7)
