"""Test images that the classifier was fitted on: they say nothing about new ones."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bottleneck.cache import FeatureCache
from bottleneck.features.keyed import KeyedRows
from bottleneck.images import ImageSource
from bottleneck.report.evaluate import Evaluation
from bottleneck.report.metrics import Share

READERS = 4
"""Threads that read files whose content no cache knows yet."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Overlap:
    """Which images of an evaluation are among the training images.

    Attributes
    ----------
    n_training : int
        Training images that they were compared with.
    seen : bool array (n,)
        Those of the same content, byte by byte for files and pixel by pixel for arrays. A picture that was saved again,
        cut or scaled has another content, and is not found.
    """

    n_training: int
    seen: NDArray[np.bool_]

    @property
    def n_seen(self) -> int:
        """How many images were trained on."""
        return int(self.seen.sum())


def find_overlap(evaluation: Evaluation, training: ImageSource, cache: FeatureCache) -> Overlap:
    """Compare the content of the test images with that of the training images; those that cannot be read are left out.

    No image is decoded, and no file read whose content the cache knows.
    """
    trained, tested = _keys(training, cache), _keys(evaluation.source, cache)
    known = set(trained.values())
    seen = np.array([tested.get(row) in known for row in evaluation.rows.tolist()], dtype=np.bool_)
    return Overlap(n_training=len(trained), seen=seen)


def accuracy_without(evaluation: Evaluation, overlap: Overlap) -> Share | None:
    """Return the accuracy on the images that were not trained on, None where there are none."""
    new = evaluation.correct[~overlap.seen]
    return Share(n_right=int(new.sum()), n=len(new)) if len(new) else None


def _keys(source: ImageSource, cache: FeatureCache) -> dict[int, bytes]:
    """Return the content key of each row that can be read."""
    keyed = KeyedRows(source=source, rows=np.arange(len(source)), cache=cache, workers=READERS)
    keyed.resolve()
    return {row: keyed.keys[row].tobytes() for row in keyed.readable().tolist()}
