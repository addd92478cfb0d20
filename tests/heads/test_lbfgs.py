"""L-BFGS reaches the minima of several problems at once."""

import numpy as np
import pytest
from numpy.typing import NDArray

from bottleneck.heads.lbfgs import Objective, minimize_together


def quadratics(n_problems: int, n_variables: int) -> tuple[Objective, NDArray[np.float64]]:
    rng = np.random.default_rng(0)
    bends = 10 ** rng.uniform(-1.5, 1.5, size=(n_problems, n_variables))
    minima = rng.standard_normal((n_problems, n_variables))

    def objective(points: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        away = points - minima
        return 0.5 * (bends * np.square(away)).sum(axis=1), bends * away

    return objective, minima


def test_every_problem_reaches_its_own_minimum() -> None:
    objective, minima = quadratics(4, 20)

    found = minimize_together(objective, np.zeros((4, 20)), tol=np.full(4, 1e-10), max_iter=500)

    np.testing.assert_allclose(found.points, minima, atol=1e-8)
    assert (found.residuals <= 1e-10).all()


def test_a_problem_that_is_done_waits_for_the_others() -> None:
    objective, minima = quadratics(2, 20)
    start = np.stack([minima[0], np.zeros(20)])

    found = minimize_together(objective, start, tol=np.full(2, 1e-8), max_iter=500)

    assert (found.points[0] == minima[0]).all()
    np.testing.assert_allclose(found.points[1], minima[1], atol=1e-6)


def test_each_problem_has_its_own_tolerance() -> None:
    objective, _ = quadratics(2, 20)

    found = minimize_together(objective, np.zeros((2, 20)), tol=np.array([1e-1, 1e-9]), max_iter=500)

    assert 1e-9 < found.residuals[0] <= 1e-1
    assert found.residuals[1] <= 1e-9


def test_iterations_are_limited_and_counted() -> None:
    objective, _ = quadratics(2, 20)

    found = minimize_together(objective, np.zeros((2, 20)), tol=np.full(2, 1e-12), max_iter=7)

    assert found.n_iter == 7


def test_a_step_that_is_too_long_is_halved() -> None:
    def objective(points: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        return 50 * np.square(points).sum(axis=1), 100 * points

    found = minimize_together(objective, np.ones((1, 3)), tol=np.array([1e-8]), max_iter=50)

    np.testing.assert_allclose(found.points, 0, atol=1e-9)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_search_ends_where_rounding_hides_the_rest(dtype: type) -> None:
    objective, minima = quadratics(3, 20)

    def rounded(points: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        values, gradients = objective(points)
        return values.astype(dtype).astype(float), gradients.astype(dtype)

    found = minimize_together(rounded, np.zeros((3, 20), dtype=dtype), tol=np.zeros(3), max_iter=2000)

    assert found.n_iter < 500
    np.testing.assert_allclose(found.points, minima, atol=1e-2 if dtype is np.float32 else 1e-6)
