"""Features of a whole source, in memory."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bottleneck.cache import FeatureCache
from bottleneck.extraction import Extractor, Precision
from bottleneck.features.chunks import feature_chunks
from bottleneck.features.job import CacheReport, raise_or_warn, summarise
from bottleneck.images import ImageSource
from bottleneck.progress import ProgressCallback, silent


@dataclass(frozen=True, kw_only=True, slots=True)
class Features:
    """Features of every readable row of a source; ``kept[i]`` is the source row of row i of each layer."""

    kept: NDArray[np.int64]
    layers: dict[str, NDArray[np.float32]]
    report: CacheReport


def compute_features(
    source: ImageSource,
    extractor: Extractor,
    cache: FeatureCache | None,
    *,
    precision: Precision,
    layers: Sequence[str] = ("penultimate",),
    on_error: str = "raise",
    progress: ProgressCallback = silent,
    chunk_rows: int | None = None,
) -> Features:
    """Return the features of every readable image of a source; ``chunk_rows`` are those of ``feature_chunks``.

    Raises
    ------
    UnreadableImagesError
        Some images cannot be read and ``on_error`` is "raise"; the features of the others are in the cache.
    """
    began = time.monotonic()
    chunks = list(
        feature_chunks(
            source,
            extractor,
            cache,
            precision=precision,
            layers=layers,
            progress=progress,
            chunk_rows=chunk_rows,
        )
    )
    report = summarise(chunks, extractor.backbone, precision, began=began)
    raise_or_warn(report.failures, on_error)
    widths = extractor.backbone.layer_widths
    return Features(
        kept=np.concatenate([np.empty(0, np.int64), *(chunk.rows for chunk in chunks)]),
        layers={
            layer: np.concatenate(
                [np.empty((0, widths[layer]), np.float32), *(chunk.layers[layer] for chunk in chunks)]
            )
            for layer in layers
        },
        report=report,
    )
