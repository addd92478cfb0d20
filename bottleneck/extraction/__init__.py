"""Image source x backbone x device to batches of features. Knows no cache."""

from bottleneck.extraction.devices import MIN_COSINE, Precision, fastest_precision, resolve_device
from bottleneck.extraction.extract import (
    CHECKED_ROWS,
    ExtractionSettings,
    Extractor,
    FeatureBatch,
    decode_min_side,
)
from bottleneck.extraction.network import fold_batch_norm
from bottleneck.extraction.threads import ThreadChoice, using_threads

__all__ = [
    "CHECKED_ROWS",
    "MIN_COSINE",
    "ExtractionSettings",
    "Extractor",
    "FeatureBatch",
    "Precision",
    "ThreadChoice",
    "decode_min_side",
    "fastest_precision",
    "fold_batch_norm",
    "resolve_device",
    "using_threads",
]
