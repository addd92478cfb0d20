"""The path finds the C that cross-validation by hand finds, and stops when it has passed it."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_predict

from bottleneck.heads import LogisticHead
from bottleneck.heads.losses import SOFTMAX
from bottleneck.heads.path import PATIENCE, scored_rows
from bottleneck.heads.solver import Problem
from tests.heads.conftest import Draw

CS = np.logspace(-4, 2, 13)


def test_the_chosen_c_has_the_least_held_out_log_loss(draw: Draw) -> None:
    X, y = draw(240, 12, spread=1.5)
    splitter = StratifiedKFold(4)

    head = LogisticHead(CS.tolist(), cv=splitter, normalize="none").fit(X, y)

    by_hand = []
    for C in CS:
        logistic = LogisticRegression(C=C, tol=1e-8, max_iter=5000)
        proba = cross_val_predict(logistic, X, y, cv=splitter, method="predict_proba")
        by_hand.append(-np.log(proba[np.arange(240), y]).mean())
    np.testing.assert_allclose(head.scores_, by_hand, atol=1e-4)
    assert CS[np.argmin(by_hand)] == pytest.approx(head.C_)
    assert head.log_loss_cv_ == pytest.approx(min(head.scores_))


def test_the_path_ends_soon_after_it_has_turned(draw: Draw) -> None:
    X, y = draw(240, 12, spread=1.5)

    head = LogisticHead(normalize="none", random_state=0).fit(X, y)

    assert 1 <= len(head.Cs_) - 1 - np.flatnonzero(head.Cs_ == head.C_)[0] <= PATIENCE
    np.testing.assert_allclose(np.diff(np.log10(head.Cs_)), 1 / 3)


def test_the_path_goes_the_other_way_when_its_first_c_is_too_large() -> None:
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((20_000, 4)), rng.integers(2, size=20_000)

    head = LogisticHead(normalize="none", random_state=0).fit(X, y)

    assert 1 <= np.flatnonzero(head.Cs_ == head.C_)[0] <= PATIENCE
    np.testing.assert_allclose(np.diff(np.log10(head.Cs_)), 1 / 3)


def test_cs_that_were_asked_for_are_all_tried_in_order(draw: Draw) -> None:
    X, y = draw(60, 5)

    head = LogisticHead([10, 1e-5, 1e-3, 100]).fit(X, y)

    assert head.Cs_.tolist() == [1e-5, 1e-3, 10, 100]
    assert head.C_ in head.Cs_


def test_features_that_say_nothing_are_hardly_used() -> None:
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((300, 40)), rng.integers(3, size=300)

    head = LogisticHead(random_state=0).fit(X, y)

    assert np.abs(head.predict_proba(X) - 1 / 3).max() < 0.2


def test_separable_classes_do_not_ask_for_an_infinite_c(draw: Draw) -> None:
    X, y = draw(12, 40, n_classes=2, spread=0.01)

    head = LogisticHead(random_state=0).fit(X, y)

    assert head.accuracy_cv_ == 1
    assert len(head.Cs_) < 22
    assert head.predict_proba(X).max() < 0.9999


def test_the_scale_of_the_features_does_not_change_predictions(draw: Draw) -> None:
    X, y = draw(60, 8)

    small, large = (
        LogisticHead(normalize="none", random_state=0).fit(f * X, y).predict_proba(f * X) for f in (1, 1000)
    )

    np.testing.assert_allclose(small, large, atol=1e-4)


def test_rows_whose_class_a_fold_has_not_seen_are_not_scored() -> None:
    labels = np.array([0, 0, 1, 1, 2])
    held_out = np.array([[True, False, True, False, True], [False, True, False, True, False]])
    problem = Problem(
        scores=np.zeros((5, 1)),
        spectrum=np.zeros(1),
        labels=labels,
        weights=(~held_out).astype(float),
        penalty=np.ones(2),
        loss=SOFTMAX,
        n_outputs=3,
    )

    assert scored_rows(problem, held_out).tolist() == [True, True, True, True, False]
