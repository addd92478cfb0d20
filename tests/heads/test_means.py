"""One image of each class: the class whose direction a row points to."""

import numpy as np
import pytest
from scipy.special import softmax

from bottleneck.heads import LogisticHead
from bottleneck.heads.means import SLOPE, fit_means
from bottleneck.heads.training import parse_training_set
from tests.heads.conftest import Draw


@pytest.mark.parametrize("n_classes", [3, 5])
def test_a_row_goes_to_the_mean_with_the_largest_cosine_from_the_centre(n_classes: int, draw: Draw) -> None:
    X, y = draw(n_classes, 40, n_classes=n_classes)
    new, _ = draw(50, 40, n_classes=n_classes, part=1)

    head = LogisticHead().fit(X, y)

    unit, new_unit = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (X, new))
    center = unit.mean(axis=0)
    toward = unit - center
    cosines = (new_unit - center) @ (toward / np.linalg.norm(toward, axis=1, keepdims=True)).T
    np.testing.assert_array_equal(head.predict(new), cosines.argmax(axis=1))
    np.testing.assert_allclose(head.predict_proba(new), softmax(SLOPE * cosines, axis=1), atol=1e-12)


def test_weighted_rows_make_weighted_means(draw: Draw) -> None:
    X, y = draw(9, 40)
    weight = np.arange(9) % 4 + 1
    unit = X / np.linalg.norm(X, axis=1, keepdims=True)

    weighted, repeated = (
        fit_means(parse_training_set(LogisticHead(), *rows, sample_weight=given, class_weight=None))
        for rows, given in (((unit, y), weight), ((np.repeat(unit, weight, axis=0), np.repeat(y, weight)), None))
    )

    np.testing.assert_allclose(weighted.coef, repeated.coef, atol=1e-12)
    np.testing.assert_allclose(weighted.intercept, repeated.intercept, atol=1e-12)
