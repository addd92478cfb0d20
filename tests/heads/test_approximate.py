"""Leaving a row out by one Newton step is next to leaving it out."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import softmax
from sklearn.utils.estimator_checks import parametrize_with_checks

from bottleneck.errors import InvalidInputError
from bottleneck.heads import LogisticHead, SVMHead
from bottleneck.heads.approximate import MAX_NUMBERS, MAX_TOGETHER, leave_out
from bottleneck.heads.folds import LeftOut, Split
from bottleneck.heads.losses import SIGMOID, SOFTMAX
from bottleneck.heads.solver import Problem, solve, zero_heads
from tests.heads.conftest import Draw


@pytest.mark.slow
@parametrize_with_checks([LogisticHead(cv="loo")])
def test_scikit_learn_accepts_it(estimator: LogisticHead, check: Callable[[Any], None]) -> None:
    check(estimator)


def step_by_the_whole_hessian(
    problem: Problem, coef: NDArray[Any], intercept: NDArray[Any], rows: NDArray[Any], C: float
) -> NDArray[Any]:
    """Return the probabilities of some rows after one Newton step, from here, on the loss of all others."""
    X = np.column_stack([problem.scores, np.ones(len(problem.labels))])
    points = np.column_stack([coef, intercept])
    if problem.n_outputs == 1:
        # The same head as a softmax has half the weight on either side, and so twice the penalty.
        points, C = np.concatenate([-points / 2, points / 2]), C / 2
    n_classes, width = points.shape
    penalty = np.diag(np.tile([*[1 / C] * (width - 1), 0.0], n_classes))
    gradient, hessian = penalty @ points.reshape(-1), penalty.copy()
    for i in np.setdiff1d(np.arange(len(X)), rows):
        p = softmax(points @ X[i])
        gradient += problem.weights[0, i] * np.kron(p - np.eye(n_classes)[problem.labels[i]], X[i])
        hessian += problem.weights[0, i] * np.kron(np.diag(p) - np.outer(p, p), np.outer(X[i], X[i]))
    moved = points - (np.linalg.pinv(hessian, hermitian=True) @ gradient).reshape(points.shape)
    return np.asarray(softmax(X[rows] @ moved.T, axis=1))


@pytest.mark.parametrize("n_classes", [2, 4])
@pytest.mark.parametrize("shape", [(40, 5), (20, 30)])
def test_the_step_is_that_of_newton_with_the_whole_hessian(n_classes: int, shape: tuple[int, int], draw: Draw) -> None:
    X, y = draw(*shape, n_classes=n_classes)
    problem = Problem(
        scores=X - X.mean(axis=0),
        spectrum=np.square(X - X.mean(axis=0)).sum(axis=0),
        labels=y,
        weights=np.random.default_rng(0).uniform(0.3, 2, size=(1, len(y))),
        penalty=np.ones(1),
        loss=SIGMOID if n_classes == 2 else SOFTMAX,
        n_outputs=1 if n_classes == 2 else n_classes,
    )
    units = np.arange(len(y))
    units[[3, 4, 8]], units[5] = 3, -1
    heads = solve(problem, C=0.7, start=zero_heads(problem), tol=1e-13, max_iter=5000)

    found = leave_out(problem, heads, LeftOut(units=units), C=0.7)

    assert np.isnan(found[5]).all()
    logits = np.column_stack([np.zeros(len(y)), found]) if n_classes == 2 else found
    for unit in np.setdiff1d(units, [-1]):
        rows = np.flatnonzero(units == unit)
        naive = step_by_the_whole_hessian(problem, heads.coef[0], heads.intercept[0], rows, 0.7)
        np.testing.assert_allclose(softmax(logits[rows], axis=1), naive, atol=1e-8)


def leaving_one_out(n_samples: int) -> list[Split]:
    rows = np.arange(n_samples)
    return [(np.delete(rows, row), rows[row : row + 1]) for row in rows]


@pytest.mark.parametrize("class_weight", [None, "balanced"])
@pytest.mark.parametrize("kind", ["l2", "standardize"])
@pytest.mark.parametrize("n_classes", [2, 4])
def test_it_agrees_with_heads_fitted_without_each_row(n_classes: int, kind: Any, class_weight: Any, draw: Draw) -> None:
    X, y = draw(60, 40, n_classes=n_classes, spread=4)
    Cs = np.logspace(-4, 0, 9)
    settings: dict[str, Any] = {"normalize": kind, "class_weight": class_weight, "max_iter": 5000}

    step = LogisticHead(Cs, cv="loo", **settings).fit(X, y)
    brute = LogisticHead(Cs, cv=leaving_one_out(60), **settings).fit(X, y)

    assert abs(np.log10(step.C_ / brute.C_)) < 0.51
    chosen = int(np.flatnonzero(brute.Cs_ == brute.C_)[0])
    np.testing.assert_allclose(step.scores_[: chosen + 1], brute.scores_[: chosen + 1], rtol=0.05)
    same_C = LogisticHead([step.C_], cv=leaving_one_out(60), **settings).fit(X, y)
    losses = [-np.log(head.oof_proba_[np.arange(60), y]) for head in (step, same_C)]
    assert np.abs(losses[0] - losses[1]).mean() < 0.04
    assert step.accuracy_cv_ == pytest.approx(same_C.accuracy_cv_, abs=2 / 60)


def test_copies_do_not_vouch_for_each_other(draw: Draw) -> None:
    X, y = draw(30, 40, spread=3)

    thrice = LogisticHead([0.1], cv="loo", normalize="l2").fit(np.repeat(X, 3, axis=0), np.repeat(y, 3))
    heavy = LogisticHead([0.1], cv="loo", normalize="l2").fit(X, y, sample_weight=np.full(30, 3.0))

    np.testing.assert_allclose(thrice.oof_proba_[::3], heavy.oof_proba_, atol=1e-6)
    np.testing.assert_allclose(thrice.oof_proba_[1::3], heavy.oof_proba_, atol=1e-6)


def test_groups_are_left_out_together() -> None:
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(20), 4)
    y = groups % 2
    X = rng.standard_normal((20, 60))[groups] + 0.3 * rng.standard_normal((80, 60))
    by_hand = [(np.flatnonzero(groups != group), np.flatnonzero(groups == group)) for group in range(20)]

    alone = LogisticHead([0.01], cv="loo", normalize="center").fit(X, y)
    together = LogisticHead([0.01], cv="loo", normalize="center").fit(X, y, groups=groups)
    brute = LogisticHead([0.01], cv=by_hand, normalize="center").fit(X, y)

    assert alone.accuracy_cv_ > together.accuracy_cv_ + 0.2
    assert together.accuracy_cv_ == pytest.approx(brute.accuracy_cv_, abs=0.05)
    np.testing.assert_allclose(together.oof_proba_, brute.oof_proba_, atol=0.05)


def test_a_class_with_one_distinct_row_is_never_left_out(draw: Draw) -> None:
    X, y = draw(31, 12)
    X, y = np.concatenate([X, X[:1] + 5, X[:1] + 5]), np.concatenate([y, [3, 3]])

    head = LogisticHead(cv="loo").fit(X, y)

    assert np.isnan(head.oof_proba_).any(axis=1).tolist() == [False] * 31 + [True] * 2


def test_rows_without_weight_are_no_rows(draw: Draw) -> None:
    X, y = draw(40, 12, spread=3)
    weight = (np.arange(40) % 5 > 0).astype(float)

    weighted = LogisticHead(cv="loo").fit(X, y, sample_weight=weight)
    removed = LogisticHead(cv="loo").fit(X[weight > 0], y[weight > 0])

    np.testing.assert_array_equal(weighted.oof_proba_[weight > 0], removed.oof_proba_)
    assert np.isnan(weighted.oof_proba_[weight == 0]).all()


@pytest.mark.parametrize("n_classes", [2, 3])
def test_what_comes_of_it_is_the_log_loss_of_its_probabilities(n_classes: int, draw: Draw) -> None:
    X, y = draw(120, 30, n_classes=n_classes, spread=3)

    head = LogisticHead(cv="loo").fit(X, y)

    own = head.oof_proba_[np.arange(120), y]
    assert head.log_loss_cv_ == pytest.approx(-np.log(own).mean())
    assert head.log_loss_cv_ == pytest.approx(head.scores_[head.Cs_ == head.C_][0])
    assert head.accuracy_cv_ == pytest.approx((head.oof_proba_.argmax(axis=1) == y).mean())


@pytest.mark.parametrize("n_classes", [2, 3])
def test_no_strength_of_the_penalty_breaks_it(n_classes: int, draw: Draw) -> None:
    X, y = draw(30, 40, n_classes=n_classes)

    head = LogisticHead([1e-12, 1.0, 1e9], cv="loo", normalize="center", max_iter=20_000).fit(X, y)

    assert np.isfinite(head.scores_).all()
    assert head.scores_[0] == pytest.approx(np.log(n_classes), abs=0.1)


def test_nothing_to_leave_out_is_no_reason_to_fail(draw: Draw) -> None:
    X, y = draw(4, 40, n_classes=4)
    many, of_many = draw(40, 12)

    assert (LogisticHead(cv="loo").fit(X, y).predict(X) == y).all()
    assert np.isnan(LogisticHead(cv="loo").fit(many, of_many, groups=np.zeros(40)).accuracy_cv_)


def test_more_than_can_be_left_out_in_seconds_is_refused() -> None:
    rng = np.random.default_rng(0)
    n_samples = int(np.sqrt(MAX_NUMBERS / 3)) + 1
    X, y = rng.standard_normal((n_samples, 2)), np.arange(n_samples) % 3

    with pytest.raises(InvalidInputError, match=f"limit is {n_samples - 1} rows. Pass a number of folds as 'cv'"):
        LogisticHead(cv="loo", normalize="center").fit(X, y)
    with pytest.raises(InvalidInputError, match=r"cannot be left out in one step\. With 2 classes the limit is 2000"):
        LogisticHead(cv="loo", normalize="center").fit(
            X, y == 0, groups=np.minimum(np.arange(n_samples) // (MAX_TOGETHER + 1), 1)
        )


def test_it_is_refused_where_rows_are_not_left_out(draw: Draw) -> None:
    X, y = draw(40, 6)

    with pytest.raises(InvalidInputError, match=r"The 'cv' parameter of SVMHead must be an integer .* Got 'loo'"):
        SVMHead(cv="loo").fit(X, y)  # type: ignore[arg-type]
    with pytest.raises(InvalidInputError, match=r"integer of at least 2, 'loo', a splitter .* Got 'leave'"):
        LogisticHead(cv="leave").fit(X, y)  # type: ignore[arg-type]
    with pytest.raises(InvalidInputError, match=r"where each has one class\. Pass a number of folds"):
        LogisticHead(cv="loo").fit(X, np.eye(3, dtype=int)[y] | 1)
    with pytest.raises(InvalidInputError, match="a number of folds for features that do not fit in memory"):
        LogisticHead(cv="loo", memory_limit=0).fit(X, y)
