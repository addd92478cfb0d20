"""Image source x backbone x device to batches of features. Knows no cache."""

from bottleneck.extraction.agreement import MIN_COSINE
from bottleneck.extraction.arrangement import Arrangement
from bottleneck.extraction.compiled import CompileFacts
from bottleneck.extraction.devices import (
    Precision,
    device_memory,
    fastest_precision,
    in_precision,
    is_out_of_memory,
    resolve_device,
)
from bottleneck.extraction.extract import CHECKED_ROWS, Extractor, FeatureBatch, decode_min_side
from bottleneck.extraction.lanes import map_in_lanes
from bottleneck.extraction.network import fold_batch_norm, foldable_pairs
from bottleneck.extraction.settings import ExtractionSettings, image_bytes
from bottleneck.extraction.threads import ThreadChoice, using_threads

__all__ = [
    "CHECKED_ROWS",
    "MIN_COSINE",
    "Arrangement",
    "CompileFacts",
    "ExtractionSettings",
    "Extractor",
    "FeatureBatch",
    "Precision",
    "ThreadChoice",
    "decode_min_side",
    "device_memory",
    "fastest_precision",
    "fold_batch_norm",
    "foldable_pairs",
    "image_bytes",
    "in_precision",
    "is_out_of_memory",
    "map_in_lanes",
    "resolve_device",
    "using_threads",
]
