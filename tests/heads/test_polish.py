"""Polishing ends at scikit-learn's optimum, whatever the rows are held in."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from bottleneck.heads.losses import SIGMOID, SOFTMAX, SQUARED_HINGE, Loss
from bottleneck.heads.polish import ExactRows, Polished, polish
from bottleneck.heads.rotation import rotate
from bottleneck.heads.solver import Problem, solve, zero_heads
from tests.heads.conftest import Draw


def pose(X: NDArray[Any], y: NDArray[Any], loss: Loss, weights: NDArray[Any]) -> tuple[Problem, ExactRows]:
    rotation = rotate(X.astype(np.float32))
    n_classes = int(y.max()) + 1
    problem = Problem(
        scores=rotation.scores,
        spectrum=rotation.spectrum,
        labels=y,
        weights=weights[None].astype(np.float32),
        penalty=np.ones(1),
        loss=loss,
        n_outputs=1 if n_classes == 2 else n_classes,
    )
    return problem, ExactRows(block=lambda rows: X[rows], n_rows=len(X), width=X.shape[1], axes=rotation.axes)


@pytest.mark.parametrize("n_classes", [2, 4])
def test_the_result_is_scikit_learns_optimum(n_classes: int, draw: Draw) -> None:
    X, y = draw(700, 40, n_classes=n_classes, spread=2)
    X -= X.mean(axis=0)
    weights = np.random.default_rng(0).integers(1, 3, size=700).astype(float)
    problem, rows = pose(X, y, SIGMOID if n_classes == 2 else SOFTMAX, weights)

    found = polish(rows, problem, C=0.1, start=zero_heads(problem), tol=1e-8, max_iter=1000)

    naive = LogisticRegression(C=0.1, tol=1e-10, max_iter=10_000).fit(X, y, sample_weight=weights)
    np.testing.assert_allclose(found.coef, naive.coef_, atol=1e-6)
    assert found.residual <= 1e-8


def test_squared_hinge_ends_where_l_bfgs_in_float64_does(draw: Draw) -> None:
    X, y = draw(300, 20, n_classes=3, spread=2)
    X -= X.mean(axis=0)
    problem, rows = pose(X, y, SQUARED_HINGE, np.ones(300))
    exact = rotate(X.copy())

    found = polish(rows, problem, C=0.1, start=zero_heads(problem), tol=1e-8, max_iter=1000)

    doubles = Problem(
        scores=exact.scores,
        spectrum=exact.spectrum,
        labels=y,
        weights=np.ones((1, 300)),
        penalty=np.ones(1),
        loss=SQUARED_HINGE,
        n_outputs=3,
    )
    naive = solve(doubles, C=0.1, start=zero_heads(doubles), tol=1e-10, max_iter=1000)
    np.testing.assert_allclose(found.coef, exact.to_features(naive.coef[0]), atol=1e-6)


def test_iterations_are_limited_and_the_residual_says_so(draw: Draw) -> None:
    X, y = draw(300, 20, n_classes=3, spread=2)
    problem, rows = pose(X - X.mean(axis=0), y, SOFTMAX, np.ones(300))

    found = polish(rows, problem, C=0.1, start=zero_heads(problem), tol=1e-8, max_iter=5)

    assert found.n_iter == 5
    assert found.residual > 1e-8


@pytest.mark.parametrize("start", [1.0, 30.0])
def test_a_start_far_from_the_minimum_is_no_trouble(start: float, draw: Draw) -> None:
    X, y = draw(300, 20, n_classes=3, spread=2)
    problem, rows = pose(X - X.mean(axis=0), y, SOFTMAX, np.ones(300))
    far = zero_heads(problem)
    far.coef[...] = start * np.random.default_rng(0).standard_normal(far.coef.shape)

    def minimum(heads: Any) -> Polished:
        return polish(rows, problem, C=0.1, start=heads, tol=1e-7, max_iter=5000)

    np.testing.assert_allclose(minimum(far).coef, minimum(zero_heads(problem)).coef, atol=1e-5)
