"""Normalisations put features on one scale and fold out of linear heads without a trace."""

import numpy as np
import pytest
from sklearn.preprocessing import StandardScaler

from bottleneck.heads.normalize import (
    NORMALIZATIONS,
    Normalization,
    concatenate_blocks,
    fit_normalizer,
    normalize_rows,
    row_normalization,
)
from tests.heads.conftest import Draw


@pytest.mark.parametrize("kind", NORMALIZATIONS)
def test_folded_coefficients_decide_as_those_on_normalised_features(kind: Normalization, draw: Draw) -> None:
    X, _ = draw(20, 7)
    rng = np.random.default_rng(0)
    coef, intercept = rng.standard_normal((3, 7)), rng.standard_normal(3)

    normalizer = fit_normalizer(X, np.ones(20), kind)
    folded, shifted = normalizer.fold(coef, intercept)

    rows = normalize_rows(X, row_normalization(kind))
    np.testing.assert_allclose(rows @ folded.T + shifted, normalizer(X) @ coef.T + intercept, atol=1e-12)


@pytest.mark.parametrize("kind", ["center", "l2", "standardize"])
def test_features_have_a_mean_of_zero_and_a_variance_of_one_on_average(kind: Normalization, draw: Draw) -> None:
    X, _ = draw(50, 6)

    normalized = fit_normalizer(X, np.ones(50), kind)(X)

    np.testing.assert_allclose(normalized.mean(axis=0), 0, atol=1e-12)
    assert normalized.var(axis=0).mean() == pytest.approx(1)


def test_standardize_is_the_standard_scaler(draw: Draw) -> None:
    X, _ = draw(30, 5)
    weights = np.random.default_rng(0).uniform(0.5, 2, size=30)

    normalized = fit_normalizer(X, weights, "standardize")(X)

    np.testing.assert_allclose(normalized, StandardScaler().fit(X, sample_weight=weights).transform(X), atol=1e-12)


@pytest.mark.parametrize("kind", NORMALIZATIONS)
def test_an_integer_weight_is_as_many_rows(kind: Normalization, draw: Draw) -> None:
    X, _ = draw(12, 4)
    weights = np.arange(12) % 3 + 1

    weighted, repeated = (
        fit_normalizer(X, weights, kind),
        fit_normalizer(np.repeat(X, weights, axis=0), np.ones(weights.sum()), kind),
    )

    np.testing.assert_allclose(weighted.center, repeated.center)
    np.testing.assert_allclose(weighted.scale, repeated.scale)


@pytest.mark.parametrize("kind", NORMALIZATIONS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_constant_features_become_zeros(kind: Normalization, dtype: type, draw: Draw) -> None:
    X = np.full((9, 3), 0.1, dtype=dtype)

    normalized = fit_normalizer(X, np.ones(9), kind)(X)

    np.testing.assert_allclose(normalized, 0, atol=1e-7)


def test_a_row_of_zeros_stays_one() -> None:
    rows = normalize_rows(np.array([[0.0, 0.0], [3.0, 4.0]]), "l2")

    np.testing.assert_allclose(rows, [[0, 0], [0.6, 0.8]])


@pytest.mark.parametrize(("balance", "shares"), [("width", [2, 8]), ("equal", [1, 1])])
def test_blocks_count_by_their_width_or_alike_whatever_their_scale(balance: str, shares: list[int], draw: Draw) -> None:
    X, _ = draw(10, 10)

    joined = concatenate_blocks([100 * X[:, :2], X[:, 2:]], balance=balance)

    assert joined.shape == X.shape
    np.testing.assert_allclose(np.square(joined[:, :2]).sum(axis=1), shares[0])
    np.testing.assert_allclose(np.square(joined[:, 2:]).sum(axis=1), shares[1])


def test_a_single_block_is_left_as_it_is(draw: Draw) -> None:
    X, _ = draw(10, 4)

    assert concatenate_blocks([X]) is X
