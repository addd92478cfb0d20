"""A head and the heads of its folds are what a scikit-learn pipeline gives, scalers fitted inside the folds."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, Normalizer, StandardScaler

from bottleneck.heads import LogisticHead
from bottleneck.heads.normalize import NORMALIZATIONS, Normalization
from tests.heads.conftest import Draw


class OneScale(TransformerMixin, BaseEstimator):
    """Centre, and one scale for all features."""

    def fit(self, X: NDArray[Any], y: None = None) -> "OneScale":
        self.center_ = X.mean(axis=0)
        self.scale_ = np.sqrt(X.var(axis=0).mean())
        return self

    def transform(self, X: NDArray[Any]) -> NDArray[Any]:
        return (X - self.center_) / self.scale_


def naive(kind: Normalization, C: float) -> Any:
    steps = {
        "center": [OneScale()],
        "l2": [Normalizer(), OneScale()],
        "standardize": [StandardScaler()],
        "none": [FunctionTransformer()],
    }
    return make_pipeline(*steps[kind], LogisticRegression(C=C, tol=1e-10, max_iter=10_000))


@pytest.mark.parametrize("kind", NORMALIZATIONS)
@pytest.mark.parametrize("shape", [(60, 9), (30, 45)])
@pytest.mark.parametrize("n_classes", [2, 3])
def test_held_out_probabilities_are_those_of_pipelines_fitted_to_each_fold(
    kind: Normalization, shape: tuple[int, int], n_classes: int, draw: Draw
) -> None:
    X, y = draw(*shape, n_classes=n_classes)
    splits = list(StratifiedKFold(3, shuffle=True, random_state=0).split(X, y))

    head = LogisticHead([0.2], cv=splits, normalize=kind).fit(X, y)

    for train, test in splits:
        expected = naive(kind, 0.2).fit(X[train], y[train]).predict_proba(X[test])
        np.testing.assert_allclose(head.oof_proba_[test], expected, atol=1e-5)


def test_large_problems_hold_out_nearly_the_same_in_float32(draw: Draw) -> None:
    X, y = draw(400, 150)
    splits = list(StratifiedKFold(3, shuffle=True, random_state=0).split(X, y))

    head = LogisticHead([0.01], cv=splits, normalize="standardize").fit(X, y)

    for train, test in splits:
        expected = naive("standardize", 0.01).fit(X[train], y[train]).predict_proba(X[test])
        np.testing.assert_allclose(head.oof_proba_[test], expected, atol=0.02)


def test_a_feature_that_is_constant_in_a_fold_is_no_trouble(draw: Draw) -> None:
    X, y = draw(30, 5)
    splits = list(StratifiedKFold(3).split(X, y))
    X[:, 2] = 0
    X[splits[0][1][:2], 2] = 1

    head = LogisticHead([0.2], cv=splits, normalize="standardize").fit(X, y)

    train, test = splits[0]
    expected = naive("standardize", 0.2).fit(X[train], y[train]).predict_proba(X[test])
    np.testing.assert_allclose(head.oof_proba_[test], expected, atol=1e-5)


def test_without_held_out_rows_the_c_nearest_to_the_typical_one_is_taken(draw: Draw) -> None:
    X, y = draw(3, 20)
    typical = LogisticHead(normalize="center").fit(X, y).C_

    head = LogisticHead([typical / 1000, typical * 2, typical * 100], normalize="center").fit(X, y)

    np.testing.assert_allclose(head.C_, 2 * typical)
