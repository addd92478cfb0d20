"""Closed-form leave-one-out is what leaving one out gives."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from bottleneck.heads.ridge import BLOCK_ELEMENTS, leave_one_out, leave_one_out_by_gram
from tests.heads.conftest import Draw


def predict_each_row_by_the_others(
    X: NDArray[Any], y: NDArray[Any], weights: NDArray[Any], penalty: float
) -> NDArray[Any]:
    targets = np.eye(y.max() + 1)[y]
    ridge = np.diag([*[penalty] * X.shape[1], 0.0])
    design = np.column_stack([X, np.ones(len(X))])
    predictions = np.empty_like(targets)
    for row in range(len(X)):
        others = np.arange(len(X)) != row
        A, w = design[others], weights[others, None]
        predictions[row] = design[row] @ np.linalg.solve(A.T @ (w * A) + ridge, A.T @ (w * targets[others]))
    return predictions


@pytest.mark.parametrize("shape", [(40, 6), (15, 40)])
@pytest.mark.parametrize("weighted", [False, True])
def test_leave_one_out_is_exact(shape: tuple[int, int], weighted: bool, draw: Draw) -> None:
    X, y = draw(*shape)
    weights = np.random.default_rng(0).uniform(0.2, 3, size=len(X)) if weighted else np.ones(len(X))
    penalties = np.array([0.1, 3.0, 100.0])

    found = list(leave_one_out(X, y, weights=weights, penalties=penalties))

    assert [loo.penalty for loo in found] == penalties.tolist()
    for loo in found:
        brute = predict_each_row_by_the_others(X, y, weights, loo.penalty)
        np.testing.assert_allclose(loo.predictions, brute, rtol=0, atol=1e-8)


@pytest.mark.parametrize("weighted", [False, True])
def test_products_of_rows_are_enough(weighted: bool, draw: Draw) -> None:
    X, y = draw(30, 60)
    weights = np.random.default_rng(0).uniform(0.2, 3, size=30) if weighted else np.ones(30)
    some = np.random.default_rng(1).permutation(30)[:17]

    found = leave_one_out_by_gram((X @ X.T)[np.ix_(some, some)], y[some], weights=weights[some])

    for loo, expected in zip(found, leave_one_out(X[some], y[some], weights=weights[some]), strict=True):
        assert loo.penalty == pytest.approx(expected.penalty)
        np.testing.assert_allclose(loo.predictions, expected.predictions, atol=1e-8)


def test_many_classes_are_predicted_a_few_penalties_at_a_time(draw: Draw) -> None:
    X, _ = draw(600, 3)
    y = np.arange(600) // 2
    penalties = np.logspace(-2, 2, 9)
    assert X.shape[0] * 300 * len(penalties) > BLOCK_ELEMENTS

    together = list(leave_one_out(X, y, weights=np.ones(600), penalties=penalties))

    assert [loo.penalty for loo in together] == penalties.tolist()
    for penalty, loo in zip(penalties[::4], together[::4], strict=True):
        alone = next(iter(leave_one_out(X, y, weights=np.ones(600), penalties=np.array([penalty]))))
        np.testing.assert_allclose(loo.predictions, alone.predictions, atol=1e-10)


def test_penalties_span_the_scale_of_the_features(draw: Draw) -> None:
    X, y = draw(40, 6)

    small, large = (
        [loo.penalty for loo in leave_one_out(factor * X, y, weights=np.ones(40))] for factor in (1.0, 10.0)
    )

    np.testing.assert_allclose(100 * np.array(small), large)


def test_features_without_variance_predict_the_frequencies_of_the_others() -> None:
    y = np.array([0, 0, 0, 1])

    found = next(iter(leave_one_out(np.zeros((4, 5)), y, weights=np.ones(4))))

    np.testing.assert_allclose(found.predictions[:, 1], [1 / 3, 1 / 3, 1 / 3, 0])
