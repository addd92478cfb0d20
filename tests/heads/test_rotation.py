"""Rotations lose nothing and say what they keep."""

import numpy as np
import pytest

from bottleneck.heads.rotation import rotate
from tests.heads.conftest import Draw


@pytest.mark.parametrize("shape", [(30, 8), (8, 30), (10, 10)])
def test_scores_and_basis_make_up_the_features(shape: tuple[int, int], draw: Draw) -> None:
    X, _ = draw(*shape)

    rotation = rotate(X.copy())

    np.testing.assert_allclose(rotation.scores @ rotation.basis.T, X, atol=1e-8)
    np.testing.assert_allclose(rotation.basis.T @ rotation.basis, np.eye(len(rotation.spectrum)), atol=1e-6)
    np.testing.assert_allclose(rotation.spectrum, np.square(rotation.scores).sum(axis=0), atol=1e-8)


def test_axes_are_as_many_as_the_rows_span(draw: Draw) -> None:
    X, _ = draw(6, 20)
    X -= X.mean(axis=0)

    rotation = rotate(X)

    assert len(rotation.spectrum) == 5


def test_many_rows_are_rotated_block_by_block(draw: Draw) -> None:
    X, _ = draw(5000, 3)

    rotation = rotate(X.copy())

    np.testing.assert_allclose(rotation.scores @ rotation.basis.T, X, atol=1e-10)


def test_features_without_variance_have_no_axis() -> None:
    assert rotate(np.zeros((3, 5))).scores.shape == (3, 0)


def test_precision_is_that_of_the_features(draw: Draw) -> None:
    X, _ = draw(6, 20)

    rotation = rotate(X.astype(np.float32))

    assert rotation.scores.dtype == np.float32
    np.testing.assert_allclose(rotation.scores @ rotation.basis.T, X, atol=1e-3)
