"""Decisions, classes and probabilities agree, and held-out rows are reported where they were passed."""

import numpy as np
import pandas
import pytest
from sklearn.base import clone
from sklearn.metrics import accuracy_score, log_loss

from bottleneck.heads import LogisticHead, SVMHead
from tests.heads.conftest import Draw

HEADS = [LogisticHead(random_state=0), SVMHead(random_state=0), SVMHead(kernel="rbf", random_state=0)]


@pytest.fixture(params=HEADS, ids=["logistic", "hinge", "rbf"])
def head(request: pytest.FixtureRequest) -> LogisticHead | SVMHead:
    return clone(request.param)


@pytest.mark.parametrize("n_classes", [2, 4])
def test_the_predicted_class_is_the_most_probable_one(n_classes: int, head: LogisticHead | SVMHead, draw: Draw) -> None:
    X, y = draw(80, 10, n_classes=n_classes)
    names = np.array(["ant", "bee", "cat", "dog"])[y]

    head.fit(X, names)

    proba = head.predict_proba(X)
    assert (head.predict(X) == head.classes_[proba.argmax(axis=1)]).all()
    assert head.decision_function(X).shape == ((80,) if n_classes == 2 else (80, 4))
    np.testing.assert_allclose(proba.sum(axis=1), 1)
    np.testing.assert_allclose(np.log(proba), head.predict_log_proba(X), atol=1e-12)
    assert head.score(X, names) > 0.8


def test_held_out_accuracy_and_log_loss_are_those_of_held_out_probabilities(
    head: LogisticHead | SVMHead, draw: Draw
) -> None:
    X, y = draw(90, 10, spread=2)
    weight = np.random.default_rng(0).uniform(0.5, 2, size=90)

    head.fit(X, y, sample_weight=weight)

    predicted = head.oof_proba_.argmax(axis=1)
    assert head.accuracy_cv_ == pytest.approx(accuracy_score(y, predicted, sample_weight=weight))
    assert head.log_loss_cv_ == pytest.approx(log_loss(y, head.oof_proba_, sample_weight=weight))
    assert 0.5 < head.accuracy_cv_ < head.score(X, y)


def test_standard_errors_are_those_of_a_share(head: LogisticHead | SVMHead, draw: Draw) -> None:
    X, y = draw(90, 10, spread=2)

    head.fit(X, y)

    share = head.accuracy_cv_
    assert head.accuracy_se_ == pytest.approx(np.sqrt(share * (1 - share) / 90))


def test_standard_error_of_the_accuracy_is_over_groups(head: LogisticHead | SVMHead, draw: Draw) -> None:
    X, y = draw(90, 10, spread=2)
    groups = np.arange(90) // 3

    head.fit(X, y, groups=groups)

    scored = ~np.isnan(head.oof_proba_[:, 0])
    errors = (head.classes_[head.oof_proba_[scored].argmax(axis=1)] == y[scored]) - head.accuracy_cv_
    of_groups = [errors[groups[scored] == group].sum() for group in np.unique(groups[scored])]
    assert head.accuracy_se_ == pytest.approx(np.sqrt(np.square(of_groups).sum()) / scored.sum())


def test_rows_that_were_never_held_out_have_no_held_out_probabilities(head: LogisticHead | SVMHead, draw: Draw) -> None:
    X, y = draw(30, 10)
    y[y == 2] = 1
    y[7] = 2
    weight = np.ones(30)
    weight[[3, 4]] = 0

    head.fit(X, y, sample_weight=weight)

    assert np.flatnonzero(np.isnan(head.oof_proba_).all(axis=1)).tolist() == [3, 4, 7]
    assert not np.isnan(head.oof_proba_).any(axis=1)[[0, 1, 2, 5, 6, 8]].any()


def test_a_row_of_no_weight_is_no_row(head: LogisticHead | SVMHead, draw: Draw) -> None:
    X, y = draw(40, 6)
    weight = np.ones(40)
    weight[::7] = 0

    weighted = clone(head).fit(X, y, sample_weight=weight)
    removed = clone(head).fit(X[weight > 0], y[weight > 0])

    np.testing.assert_array_equal(weighted.predict_proba(X), removed.predict_proba(X))


def test_copies_count_as_weight_with_the_default_folds(head: LogisticHead | SVMHead, draw: Draw) -> None:
    X, y = draw(40, 6)
    weight = np.arange(40) % 3 + 1

    weighted = clone(head).fit(X, y, sample_weight=weight)
    repeated = clone(head).fit(np.repeat(X, weight, axis=0), np.repeat(y, weight))

    np.testing.assert_allclose(weighted.predict_proba(X), repeated.predict_proba(X), atol=1e-5)


def test_the_same_seed_gives_the_same_head(head: LogisticHead | SVMHead, draw: Draw) -> None:
    X, y = draw(60, 70)

    first, again = (clone(head).fit(X, y) for _ in range(2))

    np.testing.assert_array_equal(first.predict_proba(X), again.predict_proba(X))
    np.testing.assert_array_equal(first.oof_proba_, again.oof_proba_)


def test_float32_features_give_the_same_predictions(head: LogisticHead | SVMHead, draw: Draw) -> None:
    X, y = draw(60, 10)
    X = X.astype(np.float32)

    narrow, wide = clone(head).fit(X, y), clone(head).fit(X.astype(float), y)

    np.testing.assert_allclose(narrow.predict_proba(X), wide.predict_proba(X.astype(float)), atol=1e-3)


def test_a_class_is_kept_however_few_images_it_has(head: LogisticHead | SVMHead, draw: Draw) -> None:
    X, y = draw(23, 10, n_classes=2)
    y[[0, 1]], y[2] = 2, 3

    head.fit(X, y)

    assert head.classes_.tolist() == [0, 1, 2, 3]
    assert np.isfinite(head.predict_proba(X)).all()
    assert not np.isnan(head.oof_proba_[:2]).any()


def test_names_of_features_are_kept_and_checked(head: LogisticHead | SVMHead, draw: Draw) -> None:
    X, y = draw(40, 3)
    frame = pandas.DataFrame(X, columns=["red", "green", "blue"])

    head.fit(frame, y)

    assert head.feature_names_in_.tolist() == ["red", "green", "blue"]
    with pytest.raises(ValueError, match="feature names should match"):
        head.predict(frame[["blue", "green", "red"]])


def test_balanced_classes_count_alike(head: LogisticHead | SVMHead, draw: Draw) -> None:
    X, y = draw(90, 5, n_classes=2, spread=3)
    X, y = np.concatenate([X[y == 0], X[y == 1][:9]]), np.repeat([0, 1], [45, 9])

    as_they_are, balanced = (
        clone(head).set_params(class_weight=weight).fit(X, y).predict(X).mean() for weight in (None, "balanced")
    )

    assert balanced > as_they_are
