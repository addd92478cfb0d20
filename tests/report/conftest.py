"""Classifiers fitted for real on generated images, once for all tests of reports."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from tests.conftest import coloured_images, make_tiny_backbone

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bottleneck import TransferClassifier

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
