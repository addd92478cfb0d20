"""Heads as torch modules give the probabilities of the heads."""

import numpy as np
import pytest
import torch

from bottleneck import LogisticHead, SVMHead
from bottleneck.errors import InvalidInputError
from bottleneck.export.heads import as_module

KINDS = ("center", "l2", "standardize", "none")


def features_of(n_classes: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.RandomState(0)
    labels = np.arange(60) % n_classes
    centres = random.standard_normal((n_classes, 12))
    return (centres[labels] + random.standard_normal((60, 12))).astype(np.float32), labels


@pytest.mark.parametrize(
    "head",
    [
        *(LogisticHead(normalize=kind, Cs=[1.0]) for kind in KINDS),
        SVMHead(Cs=[0.1]),
        *(SVMHead(kernel="rbf", normalize=kind, Cs=[1.0]) for kind in KINDS),
    ],
    ids=str,
)
@pytest.mark.parametrize("n_classes", [2, 4])
def test_probabilities_are_those_of_the_head(head, n_classes):
    features, labels = features_of(n_classes)
    head.fit(features, labels)
    features[0] = 0

    proba = as_module(head)(torch.from_numpy(features))

    assert proba.dtype == torch.float32
    np.testing.assert_allclose(proba.numpy(), head.predict_proba(features), atol=1e-6)


def test_labels_of_rows_with_several_have_a_probability_each():
    features, labels = features_of(4)
    several = np.stack([labels == 0, labels % 2 == 0], axis=1).astype(int)
    head = LogisticHead(Cs=[1.0]).fit(features, several)

    proba = as_module(head)(torch.from_numpy(features))

    np.testing.assert_allclose(proba.numpy(), head.predict_proba(features), atol=1e-6)


def test_head_without_probabilities_says_why():
    features, _ = features_of(2)
    head = SVMHead().fit(features[:2], [0, 1])

    with pytest.raises(InvalidInputError, match="no row could be held out"):
        as_module(head)


class OwnHead(LogisticHead):
    """A head that is none of the library's."""


def test_head_of_ones_own_is_refused():
    with pytest.raises(InvalidInputError, match=r"OwnHead\(\)"):
        as_module(OwnHead())
