"""The pass itself: batches of pixels through a prepared network."""

import threading
import time
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from bottleneck.backbones import Backbone
from bottleneck.errors import ImageFailure
from bottleneck.extraction.agreement import lowest_cosine
from bottleneck.extraction.arrangement import Arrangement, ArrangementChoice, arrangements, split_rows
from bottleneck.extraction.compiled import BatchKind, CompileFacts, compiling_pays, supposed_facts
from bottleneck.extraction.devices import (
    Precision,
    device_memory,
    fastest_precision,
    has_matrix_units,
    in_precision,
    is_out_of_memory,
    parse_precision,
    resolve_device,
    usable_cores,
)
from bottleneck.extraction.lanes import map_in_lanes
from bottleneck.extraction.prepared import PreparedNetwork, prepared_network
from bottleneck.extraction.settings import (
    ExtractionSettings,
    most_images,
    most_lanes,
    parse_batch_size,
    parse_compile,
    parse_workers,
)
from bottleneck.extraction.threads import using_threads
from bottleneck.images import ImageBatch, ImageSource, load_batch, load_batches

CHECKED_ROWS = 8
"""Images of the first batch on which a faster arithmetic is compared with float32."""
WINDOW_BATCHES = 4
"""Batches a lane in the windows whose rates are compared."""

_counting = threading.Lock()


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

    The network is copied and prepared at the first pass, so that building an extractor costs nothing, and kept for
    every other extractor of the same backbone.

    Attributes
    ----------
    expected_rows : int, optional
        How many images the whole job will send through the network, where that is known; compiling is decided by
        it. Otherwise each call of ``extract`` is taken for a whole job.
    compile_facts : CompileFacts, optional
        What compiling this backbone took and gained here, as an earlier run measured it, or this one.
    compiled_now : bool
        Whether ``compile_facts`` are news that nobody has kept yet.
    """

    def __init__(self, backbone: Backbone, settings: ExtractionSettings) -> None:
        self.backbone = backbone
        self.settings = settings
        self.device = resolve_device(settings.device)
        self.asked_precision = parse_precision(settings.precision)
        self.most_images = most_images(settings.memory_limit, backbone.preprocess.crop)
        asked = parse_batch_size(settings.batch_size, self.device, backbone.preprocess.crop)
        self.batch_size = asked if self.most_images is None else min(asked, self.most_images)
        self.asked_workers = parse_workers(settings.workers)
        self.compile = parse_compile(settings.compile)
        self.expected_rows: int | None = None
        self.compile_facts: CompileFacts | None = None
        self.compiled_now = False
        self.rows_done = 0
        self.forward_passes = 0

    @property
    def candidate_precision(self) -> Precision:
        """The arithmetic to use if it proves faithful: the one asked for, else the fastest."""
        return self.asked_precision or fastest_precision(self.device)

    @property
    def workers(self) -> int:
        """Threads for work beside the network, such as hashing files; 0 is the calling thread."""
        return usable_cores() if self.asked_workers is None else self.asked_workers

    def arrangement(self, precision: Precision) -> Arrangement:
        """Return the arrangement of threads that is the fastest, as far as is known."""
        return self._choice(precision).best

    def extract(
        self, source: ImageSource, rows: Sequence[int] | NDArray[np.int64], *, precision: Precision
    ) -> Generator[FeatureBatch]:
        """Yield the features of ``rows``, in order, batch by batch. Closing the iterator stops all threads."""
        left = np.asarray(rows, dtype=np.int64)
        choice = self._choice(precision)
        while len(left):
            likeliest = choice.candidates[0]
            window_rows = WINDOW_BATCHES * self.batch_size_in(likeliest, precision) * likeliest.lanes
            arrangement, windows = choice.next(len(left) / window_rows)
            self._compile_if_it_pays(source, left, choice, arrangement, precision=precision)
            window, left = np.split(left, [len(left) if windows is None else windows * window_rows])
            yield from self._extract_window(source, window, choice, arrangement, precision=precision)

    def forward(self, pixels: NDArray[np.uint8], *, precision: Precision) -> dict[str, NDArray[np.float32]]:
        """Return every layer's pooled features of ``pixels`` (n, 3, h, w), computed with one thread or with all.

        Halves the batch when memory is short.
        """
        with self._prepared().threads.timed(len(pixels)):
            return self._forward_fitting(pixels, precision)

    def forward_in_lane(self, pixels: NDArray[np.uint8], *, precision: Precision) -> dict[str, NDArray[np.float32]]:
        """Do what ``forward`` does with the threads that the calling thread has, in any number of threads at once."""
        return self._forward_fitting(pixels, precision)

    def lowest_cosine(self, pixels: NDArray[np.uint8], precision: Precision) -> float:
        """Return the lowest cosine, in any layer, of a row's features in ``precision`` with those in float32."""
        checked = pixels[:CHECKED_ROWS]
        fast = self.forward(checked, precision=precision)
        return lowest_cosine(fast, self.forward(checked, precision="float32"))

    def load(self, source: ImageSource, rows: NDArray[np.int64]) -> ImageBatch:
        """Return these images, ready for the network, loaded in the calling thread."""
        preprocess = self.backbone.preprocess
        return load_batch(source, rows, preprocess=preprocess, decode_min_side=decode_min_side(self.backbone))

    def _extract_window(
        self,
        source: ImageSource,
        rows: NDArray[np.int64],
        choice: ArrangementChoice,
        arrangement: Arrangement,
        *,
        precision: Precision,
    ) -> Generator[FeatureBatch]:
        """Extract in one arrangement and note its rate."""
        timed = self._in_lanes if arrangement.lanes > 1 else self._in_caller
        seconds, n_images = 0.0, 0
        with closing(timed(source, rows, arrangement, precision)) as batches:
            for i, (batch, took) in enumerate(batches):
                # The first of each lane also set things up, or waited for the first images.
                if i >= arrangement.lanes:
                    seconds, n_images = seconds + took / arrangement.lanes, n_images + len(batch.rows)
                self.rows_done += len(batch.rows) + len(batch.failures)
                yield batch
        if n_images:
            choice.note(arrangement, seconds / n_images)

    def _in_lanes(
        self, source: ImageSource, rows: NDArray[np.int64], arrangement: Arrangement, precision: Precision
    ) -> Generator[tuple[FeatureBatch, float]]:
        """Yield batches and the seconds that their lanes took."""

        def load(part: NDArray[np.int64]) -> tuple[float, ImageBatch]:
            began = time.perf_counter()
            return began, self.load(source, part)

        def compute(loaded: tuple[float, ImageBatch]) -> tuple[FeatureBatch, float]:
            began, batch = loaded
            layers = self._forward_fitting(batch.pixels, precision) if len(batch.rows) else {}
            return _as_features(batch, layers), time.perf_counter() - began

        sizes = split_rows(len(rows), batch_size=self.batch_size_in(arrangement, precision), lanes=arrangement.lanes)
        parts = np.split(rows, np.cumsum(sizes)[:-1])
        return map_in_lanes(parts, load, compute, lanes=min(arrangement.lanes, len(parts)), threads=arrangement.threads)

    def _in_caller(
        self, source: ImageSource, rows: NDArray[np.int64], arrangement: Arrangement, precision: Precision
    ) -> Generator[tuple[FeatureBatch, float]]:
        """Yield batches and the seconds that the caller waited for their images and computed."""
        batches = load_batches(
            source,
            rows,
            preprocess=self.backbone.preprocess,
            batch_size=self.batch_size_in(arrangement, precision),
            workers=arrangement.workers if len(rows) > 1 else 0,  # there is nothing to load ahead of one image
            decode_min_side=decode_min_side(self.backbone),
        )
        with closing(batches):
            began = time.perf_counter()
            for batch in batches:
                layers = self.forward(batch.pixels, precision=precision) if len(batch.rows) else {}
                yield _as_features(batch, layers), time.perf_counter() - began
                began = time.perf_counter()

    def _forward_fitting(self, pixels: NDArray[np.uint8], precision: Precision) -> dict[str, NDArray[np.float32]]:
        """Compute in parts: no larger than is allowed, and halved until memory suffices."""
        most = self.most_images
        if most is not None and len(pixels) > most:
            parts = [self._forward_fitting(pixels[i : i + most], precision) for i in range(0, len(pixels), most)]
            return {layer: np.concatenate([part[layer] for part in parts]) for layer in parts[0]}
        try:
            return self._forward_once(pixels, precision)
        except RuntimeError as exc:
            if len(pixels) == 1 or not is_out_of_memory(exc):
                raise
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        half = (len(pixels) + 1) // 2
        self.batch_size = min(self.batch_size, half)
        halves = [self._forward_fitting(part, precision) for part in (pixels[:half], pixels[half:])]
        return {layer: np.concatenate([part[layer] for part in halves]) for layer in halves[0]}

    def _forward_once(self, pixels: NDArray[np.uint8], precision: Precision) -> dict[str, NDArray[np.float32]]:
        with _counting:
            self.forward_passes += 1
        prepared = self._prepared()
        tensor = torch.from_numpy(pixels)
        if self.device.type == "cuda":
            tensor = tensor.pin_memory().to(self.device, non_blocking=True)
        kind = BatchKind(shape=pixels.shape, precision=precision, threads=torch.get_num_threads())
        forward = prepared.compiled.ready_for(kind) or prepared.network
        with in_precision(precision, self.device):
            return {layer: features.float().cpu().numpy() for layer, features in forward(tensor).items()}

    def _compile_if_it_pays(
        self,
        source: ImageSource,
        rows_left: NDArray[np.int64],
        choice: ArrangementChoice,
        arrangement: Arrangement,
        *,
        precision: Precision,
    ) -> None:
        """Compile for full batches in this arrangement if that is asked for, or saves more time than it takes."""
        if self.compile is False or self.device.type != "cpu":
            return
        batch_size = self.batch_size_in(arrangement, precision)
        shape = (batch_size, 3, *self.backbone.preprocess.crop)
        kind = BatchKind(shape=shape, precision=precision, threads=arrangement.threads)
        compiled = self._prepared().compiled
        if len(rows_left) < batch_size or compiled.is_settled(kind):
            return
        if self.compile == "auto":
            if arrangement not in choice.seconds:
                return
            n_left = max(len(rows_left), (self.expected_rows or 0) - self.rows_done)
            facts = self.compile_facts or supposed_facts(matrix_units=has_matrix_units(self.device))
            if not compiling_pays(n_left, choice.seconds[arrangement], facts):
                return
        batch = self.load(source, rows_left[:batch_size])
        if len(batch.rows) == batch_size:  # else at the next window
            with using_threads(arrangement.threads):
                facts_now = compiled.settle(kind, torch.from_numpy(batch.pixels))
            if facts_now is not None:
                self.compile_facts, self.compiled_now = facts_now, True

    def batch_size_in(self, arrangement: Arrangement, precision: Precision) -> int:
        """Return the images of one pass; "auto" fits them to the caches of the cores that a lane computes with."""
        batch_size = self.batch_size
        if self.settings.batch_size == "auto" and self.device.type == "cpu":
            fitting = batch_size if precision == "bfloat16" else (batch_size + 1) // 2
            batch_size = fitting * arrangement.threads
        if self.most_images is not None:
            batch_size = min(batch_size, max(1, self.most_images // arrangement.lanes))
        return batch_size

    def _choice(self, precision: Precision) -> ArrangementChoice:
        crop, on_processor = self.backbone.preprocess.crop, self.device.type == "cpu"
        lanes = most_lanes(self.batch_size, crop, device_memory(self.device)) if on_processor else 1
        candidates = arrangements(
            workers=self.asked_workers,
            cores=usable_cores(),
            threads=torch.get_num_threads(),
            most_lanes=lanes if self.most_images is None else min(lanes, self.most_images),
        )
        return self._prepared().choice_among(candidates, (precision, self.batch_size))

    def _prepared(self) -> PreparedNetwork:
        return prepared_network(self.backbone, self.device)


def _as_features(batch: ImageBatch, layers: dict[str, NDArray[np.float32]]) -> FeatureBatch:
    return FeatureBatch(rows=batch.rows, keys=batch.keys, layers=layers, failures=batch.failures)


def decode_min_side(backbone: Backbone) -> int | None:
    """Return the smallest side at which an image may be decoded without the preprocessing noticing."""
    match backbone.preprocess.resize:
        case None:
            return None
        case int(side):
            return side
        case (height, width):
            return max(height, width)
