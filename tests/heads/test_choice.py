"""The normalisation is chosen by what is not vouched for by the same group."""

import numpy as np
import pytest
from sklearn import config_context
from sklearn.model_selection import GroupKFold, cross_validate

from bottleneck.errors import InvalidInputError
from bottleneck.heads import LogisticHead, SVMHead
from bottleneck.heads.choice import trusted_order


def of_patients(n_groups: int = 24, per_group: int = 8) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return features in which a group is far easier to recognise than a class."""
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(n_groups), per_group)
    y = groups % 2
    X = rng.standard_normal((n_groups, 200))[groups] + rng.standard_normal((len(y), 200))
    X[:, :5] += y[:, None]
    return X, y, groups


@pytest.mark.parametrize("head", [LogisticHead(random_state=0), SVMHead(random_state=0)], ids=["logistic", "svm"])
def test_held_out_accuracy_of_groups_is_that_of_new_groups(head: LogisticHead | SVMHead) -> None:
    X, y, groups = of_patients()

    without = head.fit(X, y).accuracy_cv_
    with_groups = head.fit(X, y, groups=groups).accuracy_cv_

    by_hand = cross_validate(head, X, y, groups=groups, cv=GroupKFold(5))["test_score"].mean()
    assert without > 0.95
    assert with_groups == pytest.approx(by_hand, abs=0.15)


def test_groups_choose_a_stronger_penalty() -> None:
    X, y, groups = of_patients()

    without, with_groups = (LogisticHead(random_state=0).fit(X, y, groups=g) for g in (None, groups))

    assert with_groups.C_ < without.C_


def test_names_of_groups_and_their_order_do_not_matter() -> None:
    X, y, groups = of_patients()

    numbered, named = (
        LogisticHead(random_state=0).fit(X, y, groups=g) for g in (groups, [f"patient {g:03}" for g in groups])
    )

    np.testing.assert_array_equal(numbered.coef_, named.coef_)


def test_one_group_is_no_reason_to_fail() -> None:
    X, y, _ = of_patients()

    head = LogisticHead(random_state=0).fit(X, y, groups=np.zeros(len(y)))

    assert np.isnan(head.accuracy_cv_)
    assert head.score(X, y) > 0.9


def test_groups_of_another_length_are_refused() -> None:
    X, y, groups = of_patients()

    with pytest.raises(InvalidInputError, match="There are 192 rows, but 191 groups"):
        LogisticHead().fit(X, y, groups=groups[1:])


def test_groups_and_weights_are_routed_when_asked_for() -> None:
    X, y, groups = of_patients()

    with config_context(enable_metadata_routing=True):
        head = LogisticHead(random_state=0)
        head.set_fit_request(groups=True, sample_weight=True).set_score_request(sample_weight=False)
        params = {"groups": groups, "sample_weight": np.ones(len(y))}
        found = cross_validate(head, X, y, cv=GroupKFold(3), params=params, return_estimator=True)

    assert all(fitted.accuracy_cv_ < 0.8 for fitted in found["estimator"])


def test_few_features_are_not_put_to_unit_length_first() -> None:
    assert trusted_order(10)[0] == "center"
    assert trusted_order(1280)[0] == "l2"
