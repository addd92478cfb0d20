"""SVMHead minimises the squared hinge loss and has calibrated probabilities."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import log_loss
from sklearn.svm import LinearSVC
from sklearn.utils.estimator_checks import parametrize_with_checks

from bottleneck.errors import InvalidInputError
from bottleneck.heads import SVMHead
from bottleneck.heads.calibration import log_probabilities
from bottleneck.heads.normalize import fit_normalizer
from tests.heads.conftest import Draw


@parametrize_with_checks([SVMHead(), SVMHead(multi_class="crammer_singer"), SVMHead(kernel="rbf")])
def test_scikit_learn_accepts_it(estimator: SVMHead, check: Callable[[Any], None]) -> None:
    check(estimator)


@pytest.mark.parametrize("n_classes", [2, 3])
def test_it_is_a_linear_svc_whose_intercept_is_free(n_classes: int, draw: Draw) -> None:
    X, y = draw(90, 8, n_classes=n_classes)

    head = SVMHead(normalize="center", random_state=0).fit(X, y)

    normalized = fit_normalizer(X, np.ones(90), "center")(X)
    naive = LinearSVC(C=head.C_, tol=1e-8, intercept_scaling=1e3, dual=False, max_iter=10_000).fit(normalized, y)
    np.testing.assert_allclose(head.decision_function(X), naive.decision_function(normalized), atol=1e-3)


@pytest.mark.parametrize("kernel", ["linear", "rbf"])
def test_probabilities_are_better_than_a_softmax_of_margins(kernel: Any, draw: Draw) -> None:
    X, y = draw(300, 10, spread=2.5)
    test_X, test_y = draw(300, 10, spread=2.5, part=1)

    head = SVMHead(kernel=kernel, random_state=0).fit(X, y)

    margins = np.exp(log_probabilities(head.decision_function(test_X)))
    calibrated = log_loss(test_y, head.predict_proba(test_X))
    assert calibrated < log_loss(test_y, margins) - 0.02
    assert calibrated == pytest.approx(head.log_loss_cv_, abs=0.1)


@pytest.mark.parametrize("multi_class", ["ovr", "crammer_singer"])
def test_one_image_of_each_class_has_decisions_but_no_probabilities(multi_class: Any, draw: Draw) -> None:
    X, y = draw(4, 30, n_classes=4)

    head = SVMHead(multi_class=multi_class).fit(X, y)

    assert (head.predict(X) == y).all()
    with pytest.raises(InvalidInputError, match=r"no row could be held out .* Use predict or decision_function"):
        head.predict_proba(X)


def test_an_unknown_kernel_is_refused(draw: Draw) -> None:
    X, y = draw(12, 3)

    with pytest.raises(InvalidInputError, match="The 'kernel' parameter of SVMHead must be one of 'linear', 'rbf'"):
        SVMHead(kernel="poly").fit(X, y)


def test_an_unknown_way_to_tell_classes_apart_is_refused(draw: Draw) -> None:
    X, y = draw(12, 3)

    with pytest.raises(InvalidInputError, match="'multi_class' parameter of SVMHead must be one of 'ovr', 'crammer_s"):
        SVMHead(multi_class="ovo").fit(X, y)
    with pytest.raises(InvalidInputError, match=r"must be 'ovr' for the RBF kernel\. Got 'crammer_singer' instead"):
        SVMHead(kernel="rbf", multi_class="crammer_singer").fit(X, y)
