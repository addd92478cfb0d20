"""What is passed to fit is checked, and rows of no weight are gone."""

from typing import Any

import numpy as np
import pytest
from sklearn.model_selection import StratifiedKFold

from bottleneck.errors import InvalidInputError
from bottleneck.heads import LogisticHead, SVMHead
from bottleneck.heads.training import check_settings, make_folds, parse_training_set
from tests.heads.conftest import Draw


def test_rows_of_no_weight_and_their_classes_are_gone(draw: Draw) -> None:
    X, y = draw(12, 4)
    weight = np.where(y == 1, 0.0, 2.0)

    training = parse_training_set(LogisticHead(), X, y, sample_weight=weight, class_weight=None)

    assert training.classes.tolist() == [0, 2]
    assert training.rows.tolist() == np.flatnonzero(y != 1).tolist()
    assert training.labels.tolist() == (y[y != 1] == 2).astype(int).tolist()
    assert (training.features == X[y != 1]).all()


def test_class_weights_count_on_top_of_sample_weights(draw: Draw) -> None:
    X, y = draw(6, 4)
    weight = np.arange(1.0, 7.0)

    training = parse_training_set(LogisticHead(), X, y, sample_weight=weight, class_weight={0: 10, 1: 1, 2: 0.5})

    assert training.sample_weights.tolist() == weight.tolist()
    assert training.weights.tolist() == (weight * np.array([10, 1, 0.5])[y]).tolist()


def test_one_class_is_refused_by_name(draw: Draw) -> None:
    X, _ = draw(4, 2)

    with pytest.raises(InvalidInputError, match=r"LogisticHead needs at least two classes.* one class: ants"):
        parse_training_set(LogisticHead(), X, np.array(["ants"] * 4), sample_weight=None, class_weight=None)


def test_explicit_splits_number_the_rows_that_were_passed(draw: Draw) -> None:
    X, y = draw(12, 4, n_classes=2)
    weight = np.ones(12)
    weight[:3] = 0
    training = parse_training_set(LogisticHead(), X, y, sample_weight=weight, class_weight=None)
    splits = list(StratifiedKFold(3).split(X, y))

    folds = make_folds(splits, training, np.random.default_rng(0))

    assert folds.held_out.shape == (3, 9)
    for fold, (_, test) in enumerate(splits):
        assert training.rows[folds.held_out[fold]].tolist() == [row for row in test if row >= 3]


def test_a_split_without_training_rows_is_refused(draw: Draw) -> None:
    X, y = draw(12, 4)
    training = parse_training_set(LogisticHead(), X, y, sample_weight=None, class_weight=None)

    with pytest.raises(InvalidInputError, match="no training rows"):
        make_folds([(np.array([], dtype=int), np.arange(12))], training, np.random.default_rng(0))


@pytest.mark.parametrize("Cs", ["all", [], [0.0], [1, -1], 1.0, [[1.0]], ["1"], None])
def test_what_are_no_strengths_is_refused(Cs: Any) -> None:
    with pytest.raises(InvalidInputError, match="The 'Cs' parameter of SVMHead must be 'auto' or a list of positive"):
        check_settings(SVMHead(Cs))


@pytest.mark.parametrize("Cs", ["auto", [1], (0.1, 1), np.array([0.5, 2.0])])
def test_strengths_may_be_any_sequence(Cs: Any) -> None:
    check_settings(SVMHead(Cs))


def test_a_misspelt_normalisation_is_answered_with_the_nearest() -> None:
    with pytest.raises(InvalidInputError, match=r"Got 'standardise' instead\. Did you mean 'standardize'"):
        check_settings(SVMHead(normalize="standardise"))


@pytest.mark.parametrize(
    "settings", [{"max_iter": 0}, {"max_iter": 1.5}, {"tol": 0}, {"tol": float("nan")}, {"tol": "small"}]
)
def test_limits_that_end_no_search_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError, match=f"The '{next(iter(settings))}' parameter of LogisticHead must be"):
        check_settings(LogisticHead(**settings))
