"""One pass measures what the whole features would say."""

import numpy as np
import pytest

from bottleneck.errors import InvalidInputError
from bottleneck.heads.blocks import ArrayBlocks, BlockReader
from bottleneck.heads.moments import Moments, measure_moments
from bottleneck.heads.normalize import NORMALIZATIONS, Normalization, fit_normalizer
from tests.heads.conftest import Draw

PARTS = np.arange(300) % 4 - 1


def measured(X: np.ndarray, weights: np.ndarray, kind: Normalization) -> Moments:
    return measure_moments(BlockReader(ArrayBlocks(X, n_rows=64)), kind=kind, weights=weights, parts=PARTS, n_folds=3)


@pytest.fixture
def weights() -> np.ndarray:
    return np.random.default_rng(0).uniform(0, 2, size=300)


@pytest.mark.parametrize("kind", NORMALIZATIONS)
@pytest.mark.parametrize("offset", [0.0, 1000.0])
def test_the_normalisation_is_that_of_all_rows(
    kind: Normalization, offset: float, weights: np.ndarray, draw: Draw
) -> None:
    X = (draw(300, 8)[0] + offset).astype(np.float32)
    X[:, 3] = 0.1

    found, naive = measured(X, weights, kind).normalizer(), fit_normalizer(X, weights, kind)

    np.testing.assert_allclose(found.center, naive.center, rtol=1e-6)
    np.testing.assert_allclose(found.scale, naive.scale, rtol=1e-5)


@pytest.mark.parametrize("kind", ["center", "l2", "standardize"])
def test_each_fold_has_its_own_scale(kind: Normalization, weights: np.ndarray, draw: Draw) -> None:
    X, _ = draw(300, 8)
    moments = measured(X, weights, kind)
    normalizer = moments.normalizer()

    spread = moments.fold_spread(normalizer)

    for fold in range(3):
        own = fit_normalizer(X[fold != PARTS], weights[fold != PARTS], kind)
        np.testing.assert_allclose(np.sqrt(spread[fold]), own.scale / normalizer.scale, rtol=1e-9)


def test_axes_are_those_of_the_normalised_rows(weights: np.ndarray, draw: Draw) -> None:
    X, _ = draw(300, 8)
    moments = measured(X, weights, "standardize")
    normalizer = moments.normalizer()

    axes, spectrum = moments.principal_axes(normalizer)

    scores = normalizer(X) @ axes
    np.testing.assert_allclose(axes.T @ axes, np.eye(8), atol=1e-12)
    np.testing.assert_allclose(scores.T @ scores, np.diag(spectrum), atol=1e-9 * spectrum.max())


def test_no_rows_are_refused() -> None:
    with pytest.raises(InvalidInputError, match="the blocks have no rows"):
        measured(np.empty((0, 3)), np.empty(0), "center")
