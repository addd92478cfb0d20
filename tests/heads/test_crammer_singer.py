"""The machine of Crammer and Singer is scikit-learn's on normalised features, with its C chosen as for other heads."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import log_loss
from sklearn.svm import LinearSVC

from bottleneck.errors import InvalidInputError
from bottleneck.heads import SVMHead
from bottleneck.heads.calibration import log_probabilities
from bottleneck.heads.normalize import Normalization, fit_normalizer
from tests.heads.conftest import Draw


def naive(X: NDArray[Any], y: NDArray[Any], C: float, **kwargs: Any) -> LinearSVC:
    return LinearSVC(multi_class="crammer_singer", C=C, tol=1e-8, max_iter=100_000, **kwargs).fit(X, y)


def value(coef: NDArray[Any], intercept: NDArray[Any], X: NDArray[Any], y: NDArray[Any], C: float) -> float:
    decisions = X @ coef.T + intercept
    own = np.take_along_axis(decisions, y[:, None], axis=1)
    wrong = np.where(np.arange(len(coef)) == y[:, None], 0, 1 + decisions - own)
    return float(0.5 * (np.square(coef).sum() + np.square(intercept).sum()) + C * wrong.max(axis=1).sum())


@pytest.mark.parametrize("shape", [(40, 6), (25, 40)], ids=["tall", "wide"])
@pytest.mark.parametrize("n_classes", [2, 4])
@pytest.mark.parametrize("kind", ["center", "l2", "standardize"])
def test_it_is_linear_svc_on_normalised_features(
    shape: tuple[int, int], n_classes: int, kind: Normalization, draw: Draw
) -> None:
    X, y = draw(*shape, n_classes=n_classes)

    head = SVMHead([0.01, 0.1], multi_class="crammer_singer", normalize=kind, random_state=0).fit(X, y)

    normalizer = fit_normalizer(X, np.ones(len(X)), kind)
    expected = naive(normalizer(X), y, head.C_)
    coef, intercept = normalizer.fold(expected.coef_, expected.intercept_)
    np.testing.assert_allclose(head.coef_, coef, atol=1e-4 * np.abs(coef).max())
    np.testing.assert_allclose(head.intercept_, intercept, atol=1e-4 * np.abs(coef).max())
    np.testing.assert_array_equal(head.predict(X), expected.predict(normalizer(X)))


def test_larger_machines_end_next_to_the_optimum_too(draw: Draw) -> None:
    X, y = draw(200, 250, spread=6)

    head = SVMHead(multi_class="crammer_singer", normalize="center", random_state=0).fit(X, y)

    normalizer = fit_normalizer(X, np.ones(len(X)), "center")
    expected = naive(normalizer(X), y, head.C_)
    coef, intercept = head.coef_ * normalizer.scale, head.intercept_ + head.coef_ @ normalizer.center
    least = value(expected.coef_, expected.intercept_, normalizer(X), y, head.C_)
    assert value(coef, intercept, normalizer(X), y, head.C_) < (1 + 1e-5) * least


def test_two_classes_are_the_hinge_loss_at_twice_the_c(draw: Draw) -> None:
    X, y = draw(60, 8, n_classes=2, spread=3)

    head = SVMHead(multi_class="crammer_singer", normalize="center", random_state=0).fit(X, y)

    normalized = fit_normalizer(X, np.ones(60), "center")(X)
    hinge = LinearSVC(loss="hinge", C=2 * head.C_, tol=1e-9, max_iter=1_000_000, random_state=0).fit(normalized, y)
    np.testing.assert_allclose(head.decision_function(X), hinge.decision_function(normalized), atol=1e-4)


def test_held_out_decisions_and_log_losses_are_those_of_folds_by_hand(draw: Draw) -> None:
    X, y = draw(60, 5, spread=3)
    splits = [
        (np.arange(20, 60), np.arange(20)),
        (np.arange(40), np.arange(40, 60)),
        (np.arange(30), np.arange(50, 60)),
    ]
    Cs = [0.001, 0.01, 0.1]

    head = SVMHead(Cs, multi_class="crammer_singer", cv=splits, normalize="standardize", random_state=0).fit(X, y)

    decisions, times = np.zeros((60, 3)), np.zeros(60)
    for train, held_out in splits:
        normalizer = fit_normalizer(X[train], np.ones(len(train)), "standardize")
        machine = naive(normalizer(X[train]), y[train], head.C_)
        decisions[held_out] += machine.decision_function(normalizer(X[held_out]))
        times[held_out] += 1
    held_out = times > 0
    logits = head.slope_ * decisions[held_out] / times[held_out, None]
    proba = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(head.oof_proba_[held_out], proba, atol=1e-6)
    assert head.Cs_.tolist() == Cs
    assert head.scores_[Cs.index(head.C_)] == pytest.approx(log_loss(y[held_out], proba), abs=1e-6)


def test_a_sample_weight_is_so_many_equal_rows(draw: Draw) -> None:
    X, y = draw(50, 6, spread=3)
    times = np.arange(50) % 3

    settings: dict[str, Any] = {"multi_class": "crammer_singer", "normalize": "center", "Cs": [0.01], "random_state": 0}
    weighted = SVMHead(**settings).fit(X, y, sample_weight=times)

    repeated = SVMHead(**settings).fit(np.repeat(X, times, axis=0), np.repeat(y, times))
    np.testing.assert_allclose(weighted.coef_, repeated.coef_, atol=1e-6)
    np.testing.assert_allclose(weighted.intercept_, repeated.intercept_, atol=1e-6)


def test_class_weights_move_decisions_as_linear_svc_has_it(draw: Draw) -> None:
    X, y = draw(60, 6, spread=3)
    X, y = X[y < np.arange(60) % 5], y[y < np.arange(60) % 5]

    head = SVMHead([0.01], multi_class="crammer_singer", normalize="none", class_weight="balanced").fit(X, y)

    centred = X - X.mean(axis=0)
    expected = naive(centred, y, 0.01, class_weight="balanced")
    np.testing.assert_allclose(head.decision_function(X), expected.decision_function(centred), atol=1e-5)


@pytest.mark.parametrize("n_classes", [2, 3])
def test_rows_of_a_class_that_a_fold_lacks_are_not_judged(n_classes: int, draw: Draw) -> None:
    X, y = draw(40, 6, n_classes=n_classes)
    last = n_classes - 1
    splits = [(np.flatnonzero(y < last), np.flatnonzero(y == last)), (np.arange(20), np.arange(20, 40))]

    head = SVMHead([0.01, 0.1], multi_class="crammer_singer", cv=splits, random_state=0).fit(X, y)

    assert np.isfinite(head.scores_).all()
    assert head.oof_proba_[20:].shape == (20, n_classes)
    assert np.isfinite(head.oof_proba_[20:]).all()


def test_folds_that_lack_a_class_decide_against_it(draw: Draw) -> None:
    X, y = draw(60, 6, n_classes=3)
    few = np.flatnonzero((y < 2) & (np.arange(60) < 40))
    splits = [(few, np.arange(40, 60))]

    head = SVMHead([0.01], multi_class="crammer_singer", cv=splits, random_state=0).fit(X, y)

    unjudged = head.oof_proba_[40:][y[40:] < 2]
    assert (unjudged.argmax(axis=1) < 2).all()


def test_probabilities_are_those_of_its_errors_on_new_rows(draw: Draw) -> None:
    X, y = draw(100, 150, n_classes=4, spread=6)
    new_X, new_y = draw(400, 150, n_classes=4, spread=6, part=1)

    head = SVMHead(multi_class="crammer_singer", random_state=0).fit(X, y)

    calibrated = log_loss(new_y, head.predict_proba(new_X))
    assert calibrated == pytest.approx(head.log_loss_cv_, abs=0.15)
    assert calibrated < log_loss(new_y, np.exp(log_probabilities(head.decision_function(new_X)))) - 0.02


def test_images_of_a_group_do_not_vouch_for_each_other() -> None:
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(20), 5)
    y = (groups % 2).astype(int)
    X = rng.standard_normal((20, 30))[groups] + 0.01 * rng.standard_normal((100, 30))

    alone = SVMHead([0.01], multi_class="crammer_singer", random_state=0).fit(X, y)
    grouped = SVMHead([0.01], multi_class="crammer_singer", random_state=0).fit(X, y, groups=groups)

    assert alone.accuracy_cv_ > 0.95
    assert grouped.accuracy_cv_ < 0.8


def test_the_same_seed_gives_the_same_head(draw: Draw) -> None:
    X, y = draw(50, 70, spread=3)

    first, second = (SVMHead(multi_class="crammer_singer", random_state=3).fit(X, y) for _ in range(2))

    np.testing.assert_array_equal(first.coef_, second.coef_)
    np.testing.assert_array_equal(first.scores_, second.scores_)


def test_features_that_tell_nothing_are_decided_by_intercepts() -> None:
    X, y = np.full((12, 20), 2.0), np.arange(12) % 3

    head = SVMHead(multi_class="crammer_singer", random_state=0).fit(X, y)

    assert not head.coef_.any()


def test_a_machine_that_liblinear_gave_up_is_reported() -> None:
    X, y = np.random.default_rng(0).standard_normal((12, 2)), np.arange(12) % 2

    with pytest.warns(ConvergenceWarning, match=r"SVMHead stopped after 100000 passes .* Raise tol, or give smaller"):
        SVMHead([1e8], multi_class="crammer_singer", cv=2, normalize="center", random_state=0).fit(X, y)


def test_features_that_do_not_fit_in_memory_are_refused_with_a_way_on(draw: Draw) -> None:
    X, y = draw(30, 5)

    with pytest.raises(InvalidInputError, match=r"these 30 x 5 do not fit\. Use multi_class='ovr', .*memory_limit"):
        SVMHead(multi_class="crammer_singer", memory_limit=0).fit(X, y)
