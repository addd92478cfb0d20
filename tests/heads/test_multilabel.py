"""Each label has the head that it would have alone, on normalised features in common."""

from typing import Any

import numpy as np
import pytest
from scipy.sparse import csr_array
from scipy.special import expit
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss

from bottleneck.errors import InvalidInputError
from bottleneck.heads import LogisticHead
from bottleneck.heads.multilabel import fold_labelled_rows, is_multilabel, parse_labelled_rows
from bottleneck.heads.normalize import NORMALIZATIONS, Normalization, fit_normalizer
from tests.heads.conftest import Draw


def with_labels(draw: Draw, n_samples: int = 150, n_features: int = 12) -> tuple[np.ndarray, np.ndarray]:
    """Return features, and three labels: of the class, of the first feature, and a rare one."""
    X, y = draw(n_samples, n_features, spread=2)
    return X, np.column_stack([y == 0, X[:, 0] > np.median(X[:, 0]), np.arange(n_samples) % 15 == 0]).astype(int)


@pytest.mark.parametrize("kind", NORMALIZATIONS)
@pytest.mark.parametrize("shape", [(150, 12), (50, 80)])
def test_each_label_has_scikit_learns_minimum(kind: Normalization, shape: tuple[int, int], draw: Draw) -> None:
    X, Y = with_labels(draw, *shape)
    weight = np.random.default_rng(0).uniform(0.3, 2, size=len(X))

    head = LogisticHead(normalize=kind, class_weight="balanced", random_state=0).fit(X, Y, sample_weight=weight)

    normalizer = fit_normalizer(X, weight, kind)
    for label in range(3):
        naive = LogisticRegression(C=head.C_[label], class_weight="balanced", tol=1e-12, max_iter=50_000)
        naive.fit(normalizer(X), Y[:, label], sample_weight=weight)
        coef, intercept = normalizer.fold(naive.coef_, naive.intercept_)
        np.testing.assert_allclose(head.coef_[label], coef[0], atol=1e-4 * np.abs(coef).max())
        np.testing.assert_allclose(head.intercept_[label], intercept[0], atol=1e-4 * max(1, abs(intercept[0])))


def test_predictions_are_zeros_and_ones_for_each_label(draw: Draw) -> None:
    X, Y = with_labels(draw)

    head = LogisticHead(random_state=0).fit(X, Y)

    assert head.multilabel_
    assert head.classes_.tolist() == [0, 1, 2]
    assert (head.predict(X) == (head.predict_proba(X) > 0.5)).all()
    np.testing.assert_allclose(head.predict_proba(X), expit(head.decision_function(X)))
    np.testing.assert_allclose(head.predict_log_proba(X), np.log(head.predict_proba(X)), atol=1e-12)
    assert (head.predict(X) == Y).mean() > 0.8


def test_held_out_rows_say_how_good_labels_are(draw: Draw) -> None:
    X, Y = with_labels(draw)

    head = LogisticHead(random_state=0).fit(X, Y)

    by_label = [log_loss(Y[:, label], head.oof_proba_[:, label]) for label in range(3)]
    assert head.log_loss_cv_ == pytest.approx(np.mean(by_label))
    assert head.accuracy_cv_ == pytest.approx(((head.oof_proba_ > 0.5) == Y).mean())
    assert 0 < head.accuracy_se_ < 0.05
    assert [len(Cs) for Cs in head.Cs_] == [len(scores) for scores in head.scores_]


def test_every_fold_has_its_share_of_every_label(draw: Draw) -> None:
    X, Y = with_labels(draw)
    given = parse_labelled_rows(LogisticHead(), X, Y, sample_weight=None, class_weight=None, groups=None)

    folds = fold_labelled_rows(5, given, np.random.default_rng(0))

    assert (folds.held_out.sum(axis=0) == 1).all()
    assert np.ptp(folds.held_out @ Y, axis=0).max() <= 2


def test_groups_stay_together(draw: Draw) -> None:
    X, Y = with_labels(draw)
    groups = np.arange(150) // 5
    given = parse_labelled_rows(LogisticHead(), X, Y, sample_weight=None, class_weight=None, groups=groups)

    folds = fold_labelled_rows(5, given, np.random.default_rng(0))

    assert (np.ptp(folds.held_out.reshape(5, 30, 5).astype(int), axis=2) == 0).all()


def test_labels_that_all_rows_have_or_one_has_are_no_obstacle(draw: Draw) -> None:
    X, Y = with_labels(draw)
    Y = np.column_stack([Y[:, 0], np.ones(150), np.zeros(150), np.arange(150) == 7]).astype(int)

    head = LogisticHead(random_state=0).fit(X, Y)

    assert (head.predict(X)[:, 1:3] == [1, 0]).all()
    assert np.isfinite(head.predict_proba(X)).all()


@pytest.mark.parametrize("kind", [csr_array, lambda Y: Y.astype(bool), lambda Y: Y.astype(float)])
def test_labels_may_be_sparse_or_of_any_type(kind: Any, draw: Draw) -> None:
    X, Y = with_labels(draw)

    head, dense = (LogisticHead(random_state=0).fit(X, given) for given in (kind(Y), Y))

    np.testing.assert_array_equal(head.coef_, dense.coef_)


def test_a_head_can_be_fitted_to_one_class_a_row_afterwards(draw: Draw) -> None:
    X, Y = with_labels(draw)
    head = LogisticHead(random_state=0).fit(X, Y)

    with pytest.raises(InvalidInputError, match="fitted to several labels a row"):
        head.linear_on_normalised()
    assert head.fit(X, Y[:, 0]).predict(X).shape == (150,)
    assert not is_multilabel(Y[:, 0])


def test_class_weights_by_name_are_refused(draw: Draw) -> None:
    X, Y = with_labels(draw)

    with pytest.raises(InvalidInputError, match="'balanced' or None for rows with several labels"):
        LogisticHead(class_weight={0: 1, 1: 2}).fit(X, Y)
