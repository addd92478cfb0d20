"""Each label has the head that it would have alone, on normalised features in common."""

from typing import Any

import numpy as np
import pytest
from scipy.sparse import csr_array
from scipy.special import expit
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss

from bottleneck.errors import InvalidInputError
from bottleneck.heads import LogisticHead, SVMHead
from bottleneck.heads.multilabel import fold_labelled_rows, is_multilabel, parse_labelled_rows
from bottleneck.heads.normalize import NORMALIZATIONS, Normalization, fit_normalizer
from tests.heads.conftest import Draw
from tests.heads.test_blocks import Shards


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


def test_standard_error_of_the_accuracy_is_over_groups(draw: Draw) -> None:
    X, Y = with_labels(draw)
    groups = np.arange(150) // 5

    head = LogisticHead(random_state=0).fit(X, Y, groups=groups)

    errors = ((head.oof_proba_ > 0.5) == Y).mean(axis=1) - head.accuracy_cv_
    of_groups = [errors[groups == group].sum() for group in range(30)]
    assert head.accuracy_se_ == pytest.approx(np.sqrt(np.square(of_groups).sum()) / 150)


def test_rows_of_a_group_do_not_vouch_for_each_other(draw: Draw) -> None:
    """Each group has one row of noise, with four more of nearly the same: nothing can be learned of other groups."""
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(40), 5)
    X = rng.standard_normal((40, 60))[groups] + 0.2 * rng.standard_normal((200, 60))
    Y = rng.integers(0, 2, size=(40, 2))[groups]

    alone, grouped = (LogisticHead(random_state=0).fit(X, Y, groups=g) for g in (None, groups))

    assert alone.accuracy_cv_ > 0.8
    assert grouped.accuracy_cv_ < 0.7
    assert (grouped.C_ < alone.C_).all()


@pytest.mark.parametrize("n_groups, kind", [(30, "standardize"), (1, "center")])
def test_normalisation_is_chosen_by_groups_unless_none_can_be_held_out(n_groups: int, kind: str, draw: Draw) -> None:
    """A feature of huge scale that says nothing calls for standardising."""
    X, Y = with_labels(draw)
    X[:, -1] = 1e4 * np.random.default_rng(0).standard_normal(150)

    head = LogisticHead(random_state=0).fit(X, Y, groups=np.arange(150) % n_groups)

    assert head.normalize_ == kind


def test_features_in_blocks_are_loaded_where_they_fit_in_memory(draw: Draw) -> None:
    X, Y = with_labels(draw)

    loaded, given = (LogisticHead(random_state=0).fit(features, Y) for features in (Shards(X), X))

    np.testing.assert_array_equal(loaded.coef_, given.coef_)


@pytest.mark.parametrize("in_blocks", [True, False])
def test_features_that_do_not_fit_in_memory_are_an_error_with_a_way_out(in_blocks: bool, draw: Draw) -> None:
    X, Y = with_labels(draw)
    features = Shards(X) if in_blocks else X

    with pytest.raises(InvalidInputError, match=r"150 rows of 12 features need about 0.0 GiB.*each column of y"):
        LogisticHead(memory_limit=0).fit(features, Y)
    assert LogisticHead(memory_limit=0, random_state=0).fit(features, Y[:, 0]).score(X, Y[:, 0]) > 0.8


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


@pytest.mark.parametrize("head", [SVMHead(), SVMHead(kernel="rbf"), SVMHead(memory_limit=0)], ids=str)
def test_support_vector_machines_name_the_head_to_take_instead(head: SVMHead, draw: Draw) -> None:
    with pytest.raises(InvalidInputError, match="SVMHead needs one class a row"):
        head.fit(*with_labels(draw))


def test_class_weights_by_name_are_refused(draw: Draw) -> None:
    X, Y = with_labels(draw)

    with pytest.raises(InvalidInputError, match="'balanced' or None for rows with several labels"):
        LogisticHead(class_weight={0: 1, 1: 2}).fit(X, Y)
