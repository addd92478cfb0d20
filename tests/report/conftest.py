"""Classifiers fitted for real on generated images, once for all tests of reports."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from tests.conftest import coloured_images, make_tiny_backbone

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bottleneck import TransferClassifier
    from bottleneck.images import ImageSource
    from bottleneck.report.evaluate import Evaluation

NAMES = np.array(['reddish & <b>"bold"</b>', "bluish 'quoted'"])


@pytest.fixture(scope="session")
def cache_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return one cache for all reports."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def classifier(cache_dir: Path) -> "TransferClassifier":
    """Return a probe that tells two classes apart, whose names must be escaped."""
    from bottleneck import TransferClassifier

    images, labels = coloured_images(40)
    probe = TransferClassifier(make_tiny_backbone(), strategy="probe", cache_dir=cache_dir, on_error="skip", cv=3)
    return probe.set_params(random_state=0).fit(images, NAMES[labels])


@pytest.fixture(scope="session")
def test_set() -> "tuple[NDArray[np.uint8], NDArray[np.str_]]":
    """Return 30 images that no classifier was fitted on, a fifth of them with the wrong label."""
    images, labels = coloured_images(30, seed=1)
    labels[::5] = 1 - labels[::5]
    return images, NAMES[labels]


def many_coloured(n_classes: int, *, a_class: int, seed: int) -> "tuple[NDArray[np.uint8], NDArray[np.str_]]":
    """Return images of as many shades of grey as there are classes, and the names of the classes."""
    labels = np.repeat(np.arange(n_classes), a_class)
    noise = np.random.RandomState(seed).randint(-12, 13, size=(len(labels), 16, 16, 3))
    shades = np.linspace(20, 235, n_classes)[labels][:, None, None, None]
    return np.clip(shades + noise, 0, 255).astype(np.uint8), np.array([f"shade {label:03d}" for label in labels])


def evaluation_of(
    true: "list[int]",
    scores: "NDArray[np.float64]",
    *,
    source: "ImageSource | None" = None,
    labels: "tuple[str, ...] | None" = None,
    has_proba: bool = True,
) -> "Evaluation":
    """Return scores (n, n_classes) as if a classifier had given them, by default for black images."""
    from bottleneck.images import as_image_source
    from bottleneck.report.evaluate import Evaluation

    return Evaluation(
        source=as_image_source(np.zeros((len(true), 8, 8, 3), np.uint8)) if source is None else source,
        rows=np.arange(len(true)),
        labels=tuple(f"class {code}" for code in range(scores.shape[1])) if labels is None else labels,
        n_classes=scores.shape[1],
        true=np.array(true),
        scores=np.asarray(scores, dtype=np.float64),
        has_proba=has_proba,
        unreadable=(),
    )


def sure_of(predicted: "list[int]", certainty: "float | list[float]" = 0.8, *, n_classes: int) -> "NDArray[np.float64]":
    """Return probabilities (n, n_classes) of which that class has the given one, and the others the rest."""
    certainty = np.broadcast_to(certainty, len(predicted))
    proba = np.repeat((1 - certainty)[:, None] / max(1, n_classes - 1), n_classes, axis=1)
    proba[np.arange(len(predicted)), predicted] = certainty
    return proba
