"""Folds are stratified, keep copies together, and cope with classes of any size."""

import numpy as np
import pytest
from sklearn.model_selection import GroupKFold, ShuffleSplit, StratifiedKFold

from bottleneck.errors import InvalidInputError
from bottleneck.heads.folds import (
    check_cross_validation,
    deal_folds,
    duplicate_groups,
    follow_splits,
    leave_out_units,
)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_every_row_is_held_out_once_and_trained_on_otherwise(rng: np.random.Generator) -> None:
    X, y = rng.standard_normal((23, 2)), np.arange(23) % 3

    folds = deal_folds(5, X, y, rng)

    assert len(folds) == 5
    assert (folds.held_out.sum(axis=0) == 1).all()
    assert (folds.train == ~folds.held_out).all()


def test_classes_and_rows_are_spread_evenly(rng: np.random.Generator) -> None:
    X, y = rng.standard_normal((48, 2)), np.repeat([0, 1, 2], [7, 11, 30])

    folds = deal_folds(5, X, y, rng)

    for label in range(3):
        assert np.ptp(folds.held_out[:, y == label].sum(axis=1)) <= 1
    assert np.ptp(folds.held_out.sum(axis=1)) <= 1


def test_copies_of_an_image_are_never_on_both_sides(rng: np.random.Generator) -> None:
    X, y = np.repeat(rng.standard_normal((12, 2)), 4, axis=0), np.repeat(np.arange(12) % 2, 4)

    folds = deal_folds(3, X, y, rng)

    assert (folds.held_out.reshape(3, 12, 4).sum(axis=2) % 4 == 0).all()


def test_a_class_with_one_image_is_never_held_out(rng: np.random.Generator) -> None:
    X, y = rng.standard_normal((7, 2)), np.array([0, 0, 0, 1, 1, 1, 2])

    folds = deal_folds(3, X, y, rng)

    assert not folds.held_out[:, 6].any()
    assert folds.train[:, 6].all()
    assert folds.held_out[:, :6].any(axis=0).all()


def test_a_class_smaller_than_the_number_of_folds_is_held_out_by_some(rng: np.random.Generator) -> None:
    X, y = rng.standard_normal((12, 2)), np.repeat([0, 1], [10, 2])

    folds = deal_folds(5, X, y, rng)

    assert len(folds) == 5
    assert (folds.held_out[:, y == 1].sum(axis=1) <= 1).all()


def test_there_are_no_more_folds_than_members_of_the_largest_class(rng: np.random.Generator) -> None:
    assert len(deal_folds(5, rng.standard_normal((5, 2)), np.array([0, 0, 0, 1, 1]), rng)) == 3


def test_one_image_of_each_class_leaves_no_fold(rng: np.random.Generator) -> None:
    assert len(deal_folds(5, rng.standard_normal((4, 2)), np.arange(4), rng)) == 0


def test_the_seed_decides(rng: np.random.Generator) -> None:
    X, y = rng.standard_normal((30, 2)), np.arange(30) % 3

    first, again, other = (deal_folds(5, X, y, np.random.default_rng(seed)).held_out for seed in (1, 1, 2))

    assert (first == again).all()
    assert (first != other).any()


def test_splitters_and_explicit_splits_are_followed() -> None:
    y = np.arange(12) % 2
    splitter = StratifiedKFold(3)
    splits = list(splitter.split(np.zeros((12, 1)), y))

    by_splitter, by_splits = follow_splits(splitter, y), follow_splits(splits, y)

    assert (by_splitter.held_out == by_splits.held_out).all()
    assert np.flatnonzero(by_splits.train[1]).tolist() == splits[1][0].tolist()


def test_rows_in_neither_part_of_a_split_are_left_out() -> None:
    folds = follow_splits(ShuffleSplit(2, train_size=4, test_size=3, random_state=0), np.arange(12) % 2)

    assert folds.train.sum(axis=1).tolist() == [4, 4]
    assert folds.held_out.sum(axis=1).tolist() == [3, 3]


def test_rows_are_copies_when_features_and_label_agree() -> None:
    X = np.array([[1.0, 2.0], [1.0, 2.0], [1.0, 2.0], [3.0, 4.0]])

    assert duplicate_groups(X, np.array([0, 0, 1, 1])).tolist() == [0, 0, 1, 2]


@pytest.mark.parametrize("cv", [1, 0, True, 2.5, "5", None])
def test_what_is_no_cross_validation_is_refused(cv: object) -> None:
    with pytest.raises(InvalidInputError, match="The 'cv' parameter of LogisticHead must be an integer of at least 2"):
        check_cross_validation(cv, owner="LogisticHead")


def test_near_copies_of_an_image_are_never_on_both_sides(rng: np.random.Generator) -> None:
    X, y = rng.standard_normal((24, 100)), np.arange(24) % 2
    X[12:] = X[:12] + 0.001 * X[12:]

    folds = deal_folds(3, X, y, rng)

    assert (folds.held_out[:, :12] == folds.held_out[:, 12:]).all()
    assert folds.held_out.any(axis=0).all()


@pytest.mark.parametrize("mixed", [False, True])
def test_a_group_is_never_on_both_sides(mixed: bool, rng: np.random.Generator) -> None:
    groups = np.sort(rng.integers(0, 20, size=200))
    y = rng.integers(0, 3, size=200) if mixed else groups % 3

    folds = deal_folds(5, rng.standard_normal((200, 3)), y, rng, groups=groups)

    assert len(folds) == 5
    assert (folds.held_out.sum(axis=0) == 1).all()
    for group in range(20):
        assert np.ptp(folds.held_out[:, groups == group].astype(int), axis=1).max(initial=0) == 0


def test_groups_of_any_size_leave_folds_and_classes_even(rng: np.random.Generator) -> None:
    groups = np.repeat(np.arange(60), rng.integers(1, 20, size=60))
    y = rng.integers(0, 3, size=len(groups))

    folds = deal_folds(5, rng.standard_normal((len(groups), 3)), y, rng, groups=groups)

    for label in range(3):
        counts = folds.held_out[:, y == label].sum(axis=1)
        assert np.ptp(counts) <= 0.3 * counts.mean()


def test_a_copy_takes_its_group_along(rng: np.random.Generator) -> None:
    X, y = rng.standard_normal((12, 2)), np.zeros(12, dtype=int)
    X[0] = X[11]
    groups = np.arange(12) // 2

    folds = deal_folds(3, X, y, rng, groups=groups)

    assert np.ptp(folds.held_out[:, [0, 1, 10, 11]].astype(int), axis=1).max() == 0


def test_the_only_group_with_a_class_is_never_held_out(rng: np.random.Generator) -> None:
    groups, y = np.repeat([0, 1, 2], 4), np.array([0, 1, 2, 2, 0, 1, 0, 1, 0, 1, 0, 1])

    folds = deal_folds(5, rng.standard_normal((12, 2)), y, rng, groups=groups)

    assert not folds.held_out[:, :4].any()
    assert folds.held_out[:, 4:].any(axis=0).all()


def test_copies_and_groups_are_left_out_together(rng: np.random.Generator) -> None:
    X, y = rng.standard_normal((8, 40)), np.array([0, 0, 0, 0, 1, 1, 1, 2])
    X[1] = X[0]

    alone = leave_out_units(X, y)
    grouped = leave_out_units(X, y, groups=np.array([0, 1, 1, 2, 3, 3, 4, 5]))

    assert (len(alone), alone.largest) == (6, 2)
    assert alone.units[0] == alone.units[1]
    assert (alone.units == -1).tolist() == [False] * 7 + [True]
    assert (len(grouped), grouped.largest) == (4, 3)
    assert len(set(grouped.units[:3])) == len(set(grouped.units[4:6])) == 1
    assert (grouped.units == -1).tolist() == [False] * 7 + [True]


def test_what_holds_all_rows_of_a_class_is_not_left_out(rng: np.random.Generator) -> None:
    X, y = rng.standard_normal((6, 40)), np.array([0, 0, 1, 1, 0, 1])

    left_out = leave_out_units(X, y, groups=np.array([0, 1, 2, 2, 0, 2]))

    assert (left_out.units >= 0).tolist() == [True, True, False, False, True, False]
    assert len(leave_out_units(X, y, groups=np.zeros(6, dtype=int))) == 0


def test_rows_are_left_out_where_that_is_possible_only() -> None:
    check_cross_validation("loo", owner="LogisticHead", leaves_out=True)

    with pytest.raises(InvalidInputError, match=r"must be an integer of at least 2, a splitter .* Got 'loo'"):
        check_cross_validation("loo", owner="SVMHead")


def test_a_splitter_is_given_the_groups() -> None:
    y, groups = np.arange(12) % 2, np.repeat(np.arange(4), 3)

    folds = follow_splits(GroupKFold(4), y, groups=groups)

    assert sorted(tuple(groups[fold]) for fold in folds.held_out) == [(g, g, g) for g in range(4)]


def test_a_splitter_that_lacks_its_groups_is_refused() -> None:
    with pytest.raises(InvalidInputError, match=r"The splits of 'cv' cannot be followed\. .*groups"):
        follow_splits(GroupKFold(4), np.arange(12) % 2)
