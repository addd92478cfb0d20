"""Features as a backbone makes them: non-negative, correlated, of unequal norms, with classes that overlap."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

Labelled = tuple[NDArray[Any], NDArray[Any]]
Draw = Callable[..., Labelled]


@pytest.fixture
def draw() -> Draw:
    """Return a function that draws labelled features; the same classes for the same ``seed``."""

    def draw_features(
        n_samples: int, n_features: int, *, n_classes: int = 3, spread: float = 1.0, seed: int = 0, part: int = 0
    ) -> Labelled:
        classes = np.random.default_rng(seed)
        means = classes.standard_normal((n_classes, n_features))
        mixing = classes.standard_normal((n_features, n_features)) / np.sqrt(n_features)
        rows = np.random.default_rng([seed, part])
        y = np.arange(n_samples) % n_classes
        X = means[y] + spread * rows.standard_normal((n_samples, n_features)) @ mixing
        X = np.maximum(X + 0.5, 0) * np.exp(0.3 * rows.standard_normal((n_samples, 1)))
        return X, y

    return draw_features
