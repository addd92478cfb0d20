"""The pass itself: batches of pixels through a prepared network."""

import dataclasses
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from bottleneck.backbones import Backbone
from bottleneck.errors import ImageFailure, wrong_parameter
from bottleneck.extraction.devices import (
    Precision,
    fastest_precision,
    parse_precision,
    resolve_device,
)
from bottleneck.extraction.network import prepare_for_inference
from bottleneck.extraction.threads import ThreadChoice
from bottleneck.images import ImageSource, load_batches

CPU_BATCH_SIZE = 32
CUDA_BATCH_SIZE = 256
MAX_WORKERS = 8
CHECKED_ROWS = 8
"""Images of the first batch on which a faster arithmetic is compared with float32."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ExtractionSettings:
    """How to compute, none of which changes a feature beyond rounding, except ``precision``.

    Attributes
    ----------
    device : str
        "auto", "cpu", "cuda", "cuda:1", ...
    precision : str
        "auto" (bfloat16 where the hardware has it and features keep a cosine of 0.9999), "float32" or "bfloat16".
    batch_size : int or "auto"
        Images a forward pass.
    workers : int or "auto"
        Decoding threads; 0 decodes in the calling thread.
    """

    device: str = "auto"
    precision: str = "auto"
    batch_size: int | str = "auto"
    workers: int | str = "auto"


@dataclass(frozen=True, kw_only=True, slots=True)
class FeatureBatch:
    """Features of some rows of a source.

    Attributes
    ----------
    rows : int64 array (n,)
        Rows of the source.
    keys : uint8 array (n, 16)
        Content keys of the very bytes that were decoded.
    layers : dict of str to float32 array (n, n_features of the layer)
    failures : tuple of ImageFailure
        Images of this batch that could not be read.
    """

    rows: NDArray[np.int64]
    keys: NDArray[np.uint8]
    layers: dict[str, NDArray[np.float32]]
    failures: tuple[ImageFailure, ...]


class Extractor:
    """A backbone on a device, ready to turn images into features.

    The network is copied and prepared at the first forward pass, so that building one costs nothing.
    """

    def __init__(self, backbone: Backbone, settings: ExtractionSettings) -> None:
        self.backbone = backbone
        self.settings = settings
        self.device = resolve_device(settings.device)
        self.asked_precision = parse_precision(settings.precision)
        self.batch_size = _parse_batch_size(settings.batch_size, self.device)
        self.workers = _parse_workers(settings.workers)
        self.threads = ThreadChoice()
        self.forward_passes = 0
        self._prepared: Backbone | None = None

    @property
    def candidate_precision(self) -> Precision:
        """The arithmetic to use if it proves faithful: the one asked for, else the fastest."""
        return self.asked_precision or fastest_precision(self.device)

    def extract(
        self, source: ImageSource, rows: Sequence[int] | NDArray[np.int64], *, precision: Precision
    ) -> Iterator[FeatureBatch]:
        """Yield the features of ``rows``, in order, batch by batch."""
        batches = load_batches(
            source,
            rows,
            preprocess=self.backbone.preprocess,
            batch_size=self.batch_size,
            workers=self.workers,
            decode_min_side=decode_min_side(self.backbone),
        )
        for batch in batches:
            layers = self.forward(batch.pixels, precision=precision) if len(batch.rows) else {}
            yield FeatureBatch(rows=batch.rows, keys=batch.keys, layers=layers, failures=batch.failures)

    def forward(self, pixels: NDArray[np.uint8], *, precision: Precision) -> dict[str, NDArray[np.float32]]:
        """Return every layer's pooled features of ``pixels`` (n, 3, h, w); halves the batch when memory is short."""
        try:
            return self._forward_once(pixels, precision)
        except torch.OutOfMemoryError:
            if len(pixels) == 1:
                raise
        torch.cuda.empty_cache()
        self.batch_size = half = (len(pixels) + 1) // 2
        halves = [self.forward(part, precision=precision) for part in (pixels[:half], pixels[half:])]
        return {layer: np.concatenate([part[layer] for part in halves]) for layer in halves[0]}

    def lowest_cosine(self, pixels: NDArray[np.uint8], precision: Precision) -> float:
        """Return the lowest cosine, in any layer, of a row's features in ``precision`` with those in float32."""
        checked = pixels[:CHECKED_ROWS]
        fast = self.forward(checked, precision=precision)
        exact = self.forward(checked, precision="float32")
        return min(_lowest_cosine(fast[layer], exact[layer]) for layer in exact)

    def _forward_once(self, pixels: NDArray[np.uint8], precision: Precision) -> dict[str, NDArray[np.float32]]:
        self.forward_passes += 1
        tensor = torch.from_numpy(pixels).to(self.device, non_blocking=True)
        prepared = self._prepared_backbone()
        bfloat16 = torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=precision == "bfloat16")
        with self.threads.timed(len(pixels)), bfloat16:
            layers = prepared.forward_layers(tensor)
            return {layer: features.float().cpu().numpy() for layer, features in layers.items()}

    def _prepared_backbone(self) -> Backbone:
        if self._prepared is None:
            network = prepare_for_inference(self.backbone.network, self.device)
            self._prepared = dataclasses.replace(self.backbone, network=network)
        return self._prepared


def _lowest_cosine(fast: NDArray[np.float32], exact: NDArray[np.float32]) -> float:
    """Return the lowest cosine of two arrays' rows: 1 for two rows of zeros, 0 where only one is, or is not finite."""
    left, right = fast.astype(np.float64), exact.astype(np.float64)
    norms = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
    both_zero = ~left.any(axis=1) & ~right.any(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        cosines = np.nan_to_num((left * right).sum(axis=1) / norms, nan=0.0, posinf=0.0, neginf=0.0)
    return float(np.where(both_zero, 1.0, cosines).min())


def decode_min_side(backbone: Backbone) -> int | None:
    """Return the smallest side at which an image may be decoded without the preprocessing noticing."""
    match backbone.preprocess.resize:
        case None:
            return None
        case int(side):
            return side
        case (height, width):
            return max(height, width)


def _parse_batch_size(batch_size: int | str, device: torch.device) -> int:
    if batch_size == "auto":
        return CUDA_BATCH_SIZE if device.type == "cuda" else CPU_BATCH_SIZE
    if isinstance(batch_size, bool) or not isinstance(batch_size, int | np.integer) or batch_size < 1:
        raise wrong_parameter("feature extraction", "batch_size", "'auto' or a positive integer", batch_size)
    return int(batch_size)


def _parse_workers(workers: int | str) -> int:
    if workers == "auto":
        return min(
            MAX_WORKERS, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        )
    if isinstance(workers, bool) or not isinstance(workers, int | np.integer) or workers < 0:
        raise wrong_parameter("feature extraction", "workers", "'auto' or an integer of at least 0", workers)
    return int(workers)
