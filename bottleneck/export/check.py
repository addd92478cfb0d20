"""Whether an exported file says what ``predict_proba`` says."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bottleneck.errors import InvalidInputError
from bottleneck.estimators import TransferClassifier
from bottleneck.estimators.layers import join_layers
from bottleneck.extraction import ExtractionSettings, Extractor
from bottleneck.features import feature_chunks
from bottleneck.images import as_image_source

TOLERANCE = 1e-4
"""Largest difference of a probability. Rounding alone was 4e-6 at most in five networks from squeezenet to ViT."""

SIDES = ((1.0, 1.0), (1.5, 2.2), (2.2, 1.5), (0.6, 0.7))
"""Heights and widths of the pictures that are compared, in crops."""
PER_SIZE = 2

Predict = Callable[[NDArray[np.uint8]], NDArray[Any]]
"""uint8 (n, height, width, 3) to probabilities (n, n_classes)"""


def largest_difference(classifier: TransferClassifier, predict: Predict) -> float:
    """Return by how much a probability differs at most, on pictures of several sizes.

    Raises
    ------
    InvalidInputError
        By more than ``TOLERANCE``.
    """
    differences = [
        float(np.abs(predict(pictures) - expected_proba(classifier, pictures)).max())
        for pictures in example_pictures(classifier.backbone_.preprocess.crop)
    ]
    if not max(differences) <= TOLERANCE:  # NaN is no agreement either
        raise InvalidInputError(
            f"The exported classifier differs from predict_proba by {max(differences):.1e} (allowed: {TOLERANCE:.0e}), "
            "so nothing was written. Does the network do something that an exporter cannot follow, such as "
            "Python code that depends on values?"
        )
    return max(differences)


def expected_proba(classifier: TransferClassifier, pictures: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return what ``predict_proba`` gives in float32 arithmetic, without a cache."""
    extractor = Extractor(classifier.backbone_, ExtractionSettings(device="cpu", precision="float32"))
    layers = classifier.layers_
    chunks = feature_chunks(as_image_source(pictures), extractor, None, precision="float32", layers=layers)
    proba = [classifier.head_.predict_proba(join_layers(chunk.layers, layers)) for chunk in chunks]
    return np.concatenate(proba)


def example_pictures(crop: tuple[int, int]) -> list[NDArray[np.uint8]]:
    """Return pictures of coloured noise, coarse and fine, in batches of one size, always the same."""
    random = np.random.RandomState(0)
    batches = []
    for high, wide in SIDES:
        height, width = (max(2, round(side * length)) for side, length in zip((high, wide), crop, strict=True))
        coarse = random.randint(0, 200, size=(PER_SIZE, -(-height // 8), -(-width // 8), 3))
        grown = coarse.repeat(8, axis=1).repeat(8, axis=2)[:, :height, :width]
        batches.append((grown + random.randint(0, 56, size=grown.shape)).astype(np.uint8))
    return batches
