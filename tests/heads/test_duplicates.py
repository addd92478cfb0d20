"""Copies of a picture are found whether they are exact or saved again, and different pictures are not."""

import numpy as np
import pytest

from bottleneck.heads.duplicates import MANY_ROWS, connected, cut, group_copies, mark_rows
from tests.heads.conftest import Draw


def groups_of(X: np.ndarray, y: np.ndarray) -> list[int]:
    marks = mark_rows(cut(X, 7), n_samples=len(X), n_features=X.shape[1])
    return group_copies(marks, y).tolist()


@pytest.mark.parametrize("n_features", [2, 200])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_rows_are_copies_when_features_and_label_agree(n_features: int, dtype: type, draw: Draw) -> None:
    X, _ = draw(10, n_features)
    X = X.astype(dtype)[[0, 1, 1, 1, 2, 3, 0, 4, 5, 6, 7, 8, 9]]

    assert groups_of(X, np.array([0, 1, 1, 0, 1, 0, 0, 1, 1, 1, 1, 1, 1])) == [0, 1, 1, 2, 3, 4, 0, 5, 6, 7, 8, 9, 10]


@pytest.mark.parametrize("offset", [0.0, 100.0])
def test_pictures_saved_again_are_found_and_different_ones_are_not(offset: float, draw: Draw) -> None:
    X, y = draw(300, 200)
    noise = np.random.default_rng(1).standard_normal(X.shape)
    typical = np.sqrt(2 * X.var(axis=0).sum())
    again = X + 0.04 * typical * noise / np.linalg.norm(noise, axis=1, keepdims=True)
    other = X + 0.4 * typical * noise / np.linalg.norm(noise, axis=1, keepdims=True)

    found = groups_of((np.concatenate([X, again]) + offset).astype(np.float32), np.tile(y, 2))
    kept_apart = groups_of((np.concatenate([X, other]) + offset).astype(np.float32), np.tile(y, 2))

    assert found == [*range(300), *range(300)]
    assert kept_apart == list(range(600))


def test_many_exact_copies_hide_no_near_one(draw: Draw) -> None:
    X, _ = draw(5, 200)
    rows = np.concatenate([X, np.repeat(X[:1], 50, axis=0), X[:1] * 1.001])

    assert groups_of(rows, np.zeros(56, dtype=int)) == [0, 1, 2, 3, 4, *[0] * 51]


def test_rows_of_narrow_classes_far_apart_are_different_pictures(draw: Draw) -> None:
    X, _ = draw(60, 200)
    y = np.arange(60) % 2
    narrow = np.where(y[:, None] == 0, 0.01 * X, 5 + 0.02 * X)
    wide_and_narrow = np.where(y[:, None] == 0, X, 5 + 0.01 * X)

    assert groups_of(narrow.astype(np.float32), y) == list(range(60))
    assert groups_of(wide_and_narrow.astype(np.float32), y) == list(range(60))


def test_of_very_many_rows_only_exact_copies_count() -> None:
    X = np.random.default_rng(0).standard_normal((MANY_ROWS, 40)).astype(np.float32)
    X = np.concatenate([X, X[:1], X[1:2] * 1.001])

    groups = group_copies(mark_rows(cut(X), n_samples=len(X), n_features=40), np.zeros(len(X), dtype=int))

    assert groups[MANY_ROWS:].tolist() == [0, MANY_ROWS]


def test_chains_are_followed() -> None:
    assert connected(np.array([0, 3]), np.array([2, 2]), 5).tolist() == [0, 1, 0, 0, 2]


def test_rows_that_are_all_the_same_are_one_picture_for_each_label() -> None:
    assert groups_of(np.ones((6, 50), dtype=np.float32), np.arange(6) % 2) == [0, 1, 0, 1, 0, 1]
