"""LogisticHead is scikit-learn's logistic regression, with its choices made."""

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import softmax
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.utils.estimator_checks import parametrize_with_checks

from bottleneck.errors import InvalidInputError
from bottleneck.heads import LogisticHead, normalize_rows
from bottleneck.heads.normalize import NORMALIZATIONS, Normalization, fit_normalizer
from tests.heads.conftest import Draw


@parametrize_with_checks([LogisticHead()])
def test_scikit_learn_accepts_it(estimator: LogisticHead, check: Callable[[Any], None]) -> None:
    check(estimator)


def objective(naive: LogisticRegression, X: NDArray[Any], y: NDArray[Any], weight: NDArray[Any], C: float) -> float:
    own = naive.predict_log_proba(X)[np.arange(len(y)), y]
    return float(-C * weight @ own + 0.5 * np.square(naive.coef_).sum())


@pytest.mark.parametrize("kind", NORMALIZATIONS)
@pytest.mark.parametrize("n_classes", [2, 4])
@pytest.mark.parametrize("shape", [(90, 12), (40, 60)])
def test_it_is_the_minimum_that_scikit_learn_finds(
    kind: Normalization, n_classes: int, shape: tuple[int, int], draw: Draw
) -> None:
    X, y = draw(*shape, n_classes=n_classes)
    weight = np.random.default_rng(0).uniform(0.3, 2, size=len(X))

    head = LogisticHead(normalize=kind, class_weight="balanced", random_state=0).fit(X, y, sample_weight=weight)

    normalizer = fit_normalizer(X, weight, kind)
    naive = LogisticRegression(C=head.C_, class_weight="balanced", tol=1e-12, max_iter=50_000)
    naive.fit(normalizer(X), y, sample_weight=weight)
    coef, intercept = normalizer.fold(naive.coef_, naive.intercept_)
    np.testing.assert_allclose(head.coef_, coef, atol=1e-4 * np.abs(coef).max())
    np.testing.assert_allclose(head.intercept_, intercept, atol=1e-4 * np.abs(intercept).max())
    np.testing.assert_array_equal(head.predict(X), naive.predict(normalizer(X)))
    ours = LogisticRegression(C=head.C_)
    ours.classes_, ours.coef_ = naive.classes_, head.coef_ * normalizer.scale
    ours.intercept_ = head.intercept_ + head.coef_ @ normalizer.center
    total = weight * (weight.sum() / (n_classes * np.bincount(y, weights=weight)))[y]
    least, reached = (objective(model, normalizer(X), y, total, head.C_) for model in (naive, ours))
    assert reached <= least * (1 + 1e-6)


def test_deep_features_with_few_images_are_not_standardised() -> None:
    rng = np.random.default_rng(0)
    means = rng.standard_normal((5, 300)) * (np.arange(300) < 30)
    y = np.arange(25) % 5
    X = np.concatenate([means[y], means[y]]) + 0.3 * rng.standard_normal((50, 300)) * np.linspace(1, 0.01, 300)
    X *= np.exp(rng.standard_normal((50, 1)))

    head = LogisticHead(random_state=0).fit(X[:25], y)

    assert head.normalize_ == "l2"
    assert head.score(X[25:], y) >= LogisticHead(normalize="standardize", random_state=0).fit(X[:25], y).score(
        X[25:], y
    )


def test_features_on_different_scales_are_standardised() -> None:
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((200, 20)), np.arange(200) % 2
    X[:, 0] += 2 * y
    X *= 10.0 ** (np.arange(20) % 5)

    head = LogisticHead(random_state=0).fit(X, y)

    assert head.normalize_ == "standardize"


def test_one_image_of_each_class_is_enough(draw: Draw) -> None:
    X, y = draw(4, 40, n_classes=4)

    head = LogisticHead().fit(X, y)

    assert (head.predict(X) == y).all()
    assert (head.predict_proba(X).max(axis=1) > 0.9).all()
    assert np.isnan(head.oof_proba_).all()
    assert np.isnan(head.accuracy_cv_)
    assert np.isnan(head.scores_).all()
    assert np.isnan(head.C_)


@pytest.mark.parametrize("settings", [{"Cs": [1.0]}, {"normalize": "center"}])
def test_one_image_of_each_class_follows_what_was_asked_for(settings: dict[str, Any], draw: Draw) -> None:
    X, y = draw(4, 40, n_classes=4)

    head = LogisticHead(**settings).fit(X, y)

    assert (head.predict(X) == y).all()
    assert head.C_ > 0
    assert head.Cs_.tolist() == [head.C_]


def test_two_images_of_each_class_are_not_screened(draw: Draw) -> None:
    X, y = draw(8, 40, n_classes=4)

    head = LogisticHead(random_state=0).fit(X * 10.0 ** (np.arange(40) % 5), y)

    assert head.normalize_ == "l2"
    assert head.C_ > 0


def test_class_weights_move_predictions_to_the_heavy_class(draw: Draw) -> None:
    X, y = draw(90, 5, n_classes=2, spread=3)

    light, heavy = (LogisticHead(class_weight={1: w}, random_state=0).fit(X, y).predict(X).mean() for w in (0.1, 10))

    assert light < heavy


def test_too_few_iterations_are_announced(draw: Draw) -> None:
    X, y = draw(60, 10)

    with pytest.warns(ConvergenceWarning, match="LogisticHead stopped after 2 iterations .* Raise max_iter or tol"):
        LogisticHead(max_iter=2).fit(X, y)


def test_convergence_is_silent_and_counted(draw: Draw) -> None:
    X, y = draw(60, 10)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        head = LogisticHead().fit(X, y)

    assert 1 <= head.n_iter_ < head.max_iter


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("kind", NORMALIZATIONS)
def test_a_head_is_rebuilt_from_its_arrays(kind: Normalization, n_classes: int, draw: Draw) -> None:
    X, y = draw(40, 6, n_classes=n_classes)
    head = LogisticHead(normalize=kind).fit(X, y)

    rebuilt = LogisticHead.from_arrays(
        classes=head.classes_, coef=head.coef_, intercept=head.intercept_, normalize=head.normalize_
    )

    np.testing.assert_array_equal(rebuilt.predict_proba(X), head.predict_proba(X))


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("kind", NORMALIZATIONS)
def test_a_head_is_a_linear_layer_and_back(kind: Normalization, n_classes: int, draw: Draw) -> None:
    X, y = draw(40, 6, n_classes=n_classes)
    head = LogisticHead(normalize=kind).fit(X, y)

    layer = head.linear_on_normalised()
    back = LogisticHead.from_arrays(classes=head.classes_, coef=layer.weight, intercept=layer.bias, normalize=kind)

    assert layer.weight.shape == (n_classes, 6)
    logits = normalize_rows(X, layer.rows) @ layer.weight.T + layer.bias
    np.testing.assert_allclose(softmax(logits, axis=1), head.predict_proba(X), atol=1e-12)
    np.testing.assert_allclose(back.predict_proba(X), head.predict_proba(X), atol=1e-12)


def test_arrays_that_do_not_fit_together_are_refused() -> None:
    with pytest.raises(InvalidInputError, match="3 classes need as many rows of coefficients"):
        LogisticHead.from_arrays(classes=["a", "b", "c"], coef=np.zeros((2, 5)), intercept=np.zeros(2))
