"""The RBF machine is scikit-learn's on normalised features."""

import numpy as np
import pytest
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from bottleneck.errors import InvalidInputError
from bottleneck.heads import SVMHead
from bottleneck.heads.rbf import RBF_CS, RbfMachine
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


@pytest.mark.parametrize("n_classes", [2, 3, 5])
def test_its_arrays_decide_as_scikit_learn_does(n_classes: int, draw: Draw) -> None:
    X, y = draw(80, 6, n_classes=n_classes)
    new, _ = draw(200, 6, n_classes=n_classes, spread=2, part=1)

    head = SVMHead(kernel="rbf", normalize="l2", random_state=0).fit(X, y)

    normalizer, gamma = head.machine_.normalizer, head.machine_.gamma
    naive = SVC(C=head.C_, gamma=gamma, break_ties=True).fit(normalizer(X), y)
    np.testing.assert_allclose(head.decision_function(new), naive.decision_function(normalizer(new)), atol=1e-10)
    np.testing.assert_array_equal(head.predict(new), naive.predict(normalizer(new)))


@pytest.mark.parametrize("n_classes", [2, 4])
def test_a_machine_is_rebuilt_from_its_arrays(n_classes: int, draw: Draw) -> None:
    X, y = draw(60, 5, n_classes=n_classes)
    machine = SVMHead(kernel="rbf", random_state=0).fit(X, y).machine_

    rebuilt = RbfMachine.from_arrays(machine.as_arrays(), kind=machine.normalizer.kind)

    np.testing.assert_array_equal(rebuilt.decide(X), machine.decide(X))


def test_arrays_that_are_no_machine_are_refused(draw: Draw) -> None:
    X, y = draw(40, 5)
    arrays = SVMHead(kernel="rbf", random_state=0).fit(X, y).machine_.as_arrays()

    with pytest.raises(InvalidInputError, match=r"do not fit together: .'dual_coef'"):
        RbfMachine.from_arrays(arrays | {"dual_coef": arrays["dual_coef"][:, 1:]}, kind="l2")
    with pytest.raises(InvalidInputError, match=r"needs the arrays .'gamma'"):
        RbfMachine.from_arrays({name: array for name, array in arrays.items() if name != "gamma"}, kind="l2")
