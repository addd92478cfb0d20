"""Features that wait to be written as one shard, or to be given as one chunk."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from bottleneck.cache import FeatureRows
from bottleneck.extraction import FeatureBatch


class PendingRows:
    """Room for the features of ``n_rows`` images, filled batch by batch.

    Each batch is copied into one large array a layer. Kept as they come, thousands of small arrays would lie between
    the large ones that the network frees after every pass, and memory would grow with their number.
    """

    def __init__(self, widths: Mapping[str, int], n_rows: int) -> None:
        self._keys = np.empty((n_rows, 16), np.uint8)
        self._layers = {layer: np.empty((n_rows, width), np.float32) for layer, width in widths.items()}
        self._n_rows = 0

    def __len__(self) -> int:
        return self._n_rows

    def add(self, batch: FeatureBatch) -> None:
        """Copy the features of a batch."""
        filled = slice(self._n_rows, self._n_rows + len(batch.rows))
        self._keys[filled] = batch.keys
        for layer, features in self._layers.items():
            features[filled] = batch.layers[layer]
        self._n_rows = filled.stop

    def take(self) -> FeatureRows:
        """Return all rows that wait, as views to be used before the next batch is added; none wait then."""
        n_rows, self._n_rows = self._n_rows, 0
        keys: NDArray[np.uint8] = self._keys[:n_rows]
        return FeatureRows(keys=keys, layers={layer: features[:n_rows] for layer, features in self._layers.items()})
