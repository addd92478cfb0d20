"""The RBF machine is scikit-learn's on normalised features."""

import numpy as np
import pytest
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from bottleneck.errors import InvalidInputError
from bottleneck.heads import SVMHead
from bottleneck.heads.rbf import RBF_CS
from tests.heads.conftest import Draw


@pytest.mark.parametrize("n_classes", [2, 3])
def test_it_decides_as_a_pipeline_with_the_chosen_c(n_classes: int, draw: Draw) -> None:
    X, y = draw(60, 5, n_classes=n_classes)

    head = SVMHead(kernel="rbf", normalize="standardize", random_state=0).fit(X, y)

    naive = make_pipeline(StandardScaler(), SVC(C=head.C_, gamma="scale")).fit(X, y)
    np.testing.assert_allclose(head.decision_function(X), naive.decision_function(X), atol=1e-6)


def test_the_c_with_the_least_held_out_log_loss_is_chosen(draw: Draw) -> None:
    X, y = draw(60, 5)

    head = SVMHead(kernel="rbf", random_state=0).fit(X, y)

    assert head.Cs_.tolist() == list(RBF_CS)
    assert head.Cs_[head.scores_.argmin()] == head.C_


def test_it_bends_around_classes_that_no_plane_separates() -> None:
    rng = np.random.default_rng(0)
    X = rng.standard_normal((300, 2))
    y = (np.square(X).sum(axis=1) > 1.4).astype(int)

    linear, rbf = (SVMHead(kernel=kernel, random_state=0).fit(X, y).accuracy_cv_ for kernel in ("linear", "rbf"))

    assert rbf > linear + 0.2


def test_a_split_that_trains_on_fewer_classes_is_refused(draw: Draw) -> None:
    X, y = draw(12, 3)
    splits = [(np.flatnonzero(y < 2), np.flatnonzero(y == 2))]

    with pytest.raises(InvalidInputError, match="needs every class in the training part of every split"):
        SVMHead(kernel="rbf", cv=splits).fit(X, y)
