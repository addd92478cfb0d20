"""Measure what the planner needs: the data counted, decode, forward and training step timed for a moment."""

import copy
import dataclasses
import logging
import time
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bottleneck.backbones import Backbone, has_layer_norm
from bottleneck.cache import FeatureCache
from bottleneck.errors import ImageFailure, UnreadableImagesError
from bottleneck.extraction import (
    Arrangement,
    Extractor,
    Precision,
    ThreadChoice,
    decode_min_side,
    device_memory,
    image_bytes,
    in_precision,
    map_in_lanes,
    using_threads,
)
from bottleneck.features import count_cached, feature_space
from bottleneck.finetune import choose_precision, fold_frozen, scaled_side
from bottleneck.images import ImageBatch, ImageSource, load_batches
from bottleneck.planner import SMALLER_SCALE, Profile

logger = logging.getLogger(__name__)

SAMPLED_IMAGES = 32
"""Images that are decoded and, a batch at a time, sent through the network."""
TIMED_SECONDS, MOST_SECONDS = 0.2, 1.0
"""Each rate is measured on as many of them as take about this long, and on one if that takes longer than the second."""
BATCH_GROWTH = 4
SHARES_A_LANE = 4
"""Parts of the sample that each lane decodes: some images are larger than others."""
TRAIN_BATCH = 32
"""Most images of the timed training step: as many as one step of the recipe has."""
STEP_COPIES = 4
"""The network as it was loaded, prepared for the pass, and trained, and the gradients of the last."""
RATES_NOTE = "rates"
MOSTLY_CACHED = 0.9
"""Share of rows in the cache from which rates of an earlier run will do; the rest may be images that cannot be read."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Rates:
    """Measured seconds and bytes an image, on one device."""

    device: str
    decode_seconds_per_image: float
    forward_seconds_per_image: float
    train_seconds_per_image: float
    train_bytes_per_image: int
    train_threads: int


def profile_run(
    source: ImageSource,
    labels: NDArray[Any],
    extractor: Extractor,
    cache: FeatureCache,
    *,
    precision: Precision,
    memory_limit: int | None = None,
) -> tuple[Profile, Rates]:
    """Return the facts of one run for the planner, and the rates behind them.

    Where nearly every row is cached, the rates of an earlier run are reused, so that such a run makes no forward pass.
    Measuring takes no more than ``memory_limit`` bytes, if any.
    """
    backbone = extractor.backbone
    _, counts = np.unique(labels, return_counts=True)
    rows_cached = count_cached(source, extractor, cache, precision=precision)
    rates = _known_rates(extractor, cache, precision) if rows_cached >= MOSTLY_CACHED * len(source) else None
    if rates is None:
        rates = measure_rates(source, extractor, precision=precision, memory_limit=memory_limit)
        cache.space(feature_space(backbone, precision)).write_note(RATES_NOTE, dataclasses.asdict(rates))
    widths = backbone.layer_widths
    n_parameters = sum(parameter.numel() for parameter in backbone.network.parameters())
    profile = Profile(
        n_samples=len(source),
        n_classes=len(counts),
        smallest_class=int(counts.min()),
        largest_class=int(counts.max()),
        n_features=backbone.n_features,
        n_features_all_stages=sum(widths.values()),
        n_parameters=n_parameters,
        image_side=max(backbone.preprocess.crop),
        pretrained=backbone.pretrained,
        device=rates.device,
        decode_seconds_per_image=rates.decode_seconds_per_image,
        forward_seconds_per_image=rates.forward_seconds_per_image,
        train_seconds_per_image=rates.train_seconds_per_image,
        memory_available_bytes=device_memory(extractor.device),
        train_bytes_per_image=rates.train_bytes_per_image,
        feature_bytes_per_image=2 * sum(widths.values()),
        rows_cached=rows_cached,
        takes_smaller_images=backbone.takes_side(scaled_side(max(backbone.preprocess.crop), SMALLER_SCALE)),
        has_layer_norm=has_layer_norm(backbone.network),
        forward_bytes_per_image=image_bytes(backbone.preprocess.crop),
    )
    return profile, rates


def measure_rates(
    source: ImageSource, extractor: Extractor, *, precision: Precision, memory_limit: int | None = None
) -> Rates:
    """Time decoding, the forward pass and a training step on a few images of the source.

    Decoding and forward are those of a pass over many images: in as many lanes at once as extraction would use, so
    that their sum times the number of images is what the pass takes.

    Raises
    ------
    UnreadableImagesError
        No image at all can be read, so that there is nothing to plan for.
    """
    step = max(1, len(source) // SAMPLED_IMAGES)
    rows = np.arange(0, len(source), step)[:SAMPLED_IMAGES]
    arrangement = extractor.arrangement(precision)
    began = time.perf_counter()
    batches = list(_load(source, rows, extractor, arrangement, precision))
    decode = (time.perf_counter() - began) / len(rows)
    readable = [batch.pixels for batch in batches if len(batch.rows)]
    pixels = np.concatenate(readable or [_any_readable(source, extractor, workers=arrangement.workers)])
    forward = _forward_seconds(extractor, pixels, arrangement, precision=precision)
    try:
        train = _train_cost(extractor, pixels, memory_limit)
    except RuntimeError as exc:  # no gradients through this network, or no memory for one step: a guess, then
        logger.info("a training step cannot be timed: %s", exc)
        train = _TrainCost(seconds_per_image=3 * forward, bytes_per_image=0, threads=torch.get_num_threads())
    return Rates(
        device=_device_name(extractor.device),
        decode_seconds_per_image=decode,
        forward_seconds_per_image=forward,
        train_seconds_per_image=train.seconds_per_image,
        train_bytes_per_image=train.bytes_per_image,
        train_threads=train.threads,
    )


def _known_rates(extractor: Extractor, cache: FeatureCache, precision: Precision) -> Rates | None:
    note = cache.space(feature_space(extractor.backbone, precision)).read_note(RATES_NOTE)
    if note is None or note.get("device") != _device_name(extractor.device):
        return None
    try:
        return Rates(**note)  # type: ignore[arg-type]  # a note of another version is refused below
    except TypeError as exc:
        logger.info("rates are measured again: %s", exc)
        return None


def _load(
    source: ImageSource, rows: NDArray[np.int64], extractor: Extractor, arrangement: Arrangement, precision: Precision
) -> Generator[ImageBatch]:
    """Load images as extraction would in this arrangement."""
    if arrangement.lanes > 1:
        shares = [share for share in np.array_split(rows, arrangement.lanes * SHARES_A_LANE) if len(share)]
        yield from map_in_lanes(
            shares,
            lambda share: extractor.load(source, share),
            lambda batch: batch,
            lanes=arrangement.lanes,
            threads=arrangement.threads,
        )
        return
    yield from load_batches(
        source,
        rows,
        preprocess=extractor.backbone.preprocess,
        batch_size=extractor.batch_size_in(arrangement, precision),
        workers=arrangement.workers,
        decode_min_side=decode_min_side(extractor.backbone),
    )


def _forward_seconds(
    extractor: Extractor, pixels: NDArray[np.uint8], arrangement: Arrangement, *, precision: Precision
) -> float:
    """Return the seconds an image of a forward pass, of one in every lane at once."""
    if arrangement.lanes == 1:
        return _seconds_per_image(lambda part: extractor.forward(part, precision=precision), pixels)

    def in_every_lane(part: NDArray[np.uint8]) -> None:
        for _ in map_in_lanes(
            [part] * arrangement.lanes,
            lambda given: given,
            lambda given: extractor.forward_in_lane(given, precision=precision),
            lanes=arrangement.lanes,
            threads=arrangement.threads,
        ):
            pass

    return (
        _seconds_per_image(in_every_lane, pixels[: extractor.batch_size_in(arrangement, precision)]) / arrangement.lanes
    )


def _seconds_per_image(work: Callable[[NDArray[np.uint8]], object], pixels: NDArray[np.uint8]) -> float:
    """Return the seconds an image of the largest batch for which there is time, the shorter of two runs.

    Of one image alone only where that takes long: what it costs to start is no part of the rate, and other programs
    on the same cores make it many times longer.
    """
    work(pixels[:1])  # the first call also sets up the device
    n, seconds = 1, _seconds(work, pixels[:1])
    if seconds > MOST_SECONDS:
        return seconds
    while (n < len(pixels) and seconds < TIMED_SECONDS) or n == 1 < len(pixels):
        n = min(BATCH_GROWTH * n, len(pixels))
        seconds = _seconds(work, pixels[:n])
    return min(seconds, _seconds(work, pixels[:n])) / n


def _seconds(work: Callable[[NDArray[np.uint8]], object], pixels: NDArray[np.uint8]) -> float:
    began = time.perf_counter()
    work(pixels)
    return time.perf_counter() - began


@dataclass(frozen=True, kw_only=True, slots=True)
class _TrainCost:
    seconds_per_image: float
    bytes_per_image: int
    threads: int


def _train_cost(extractor: Extractor, pixels: NDArray[np.uint8], memory_limit: int | None) -> _TrainCost:
    """Return what a forward and backward pass takes an image, and with how many threads it is fastest.

    In the arithmetic that suits the features; a training judges by the logits that it begins with.
    """
    backbone = extractor.backbone
    left = None if memory_limit is None else memory_limit - STEP_COPIES * network_bytes(backbone)
    at_once = _images_within(left, image_bytes(backbone.preprocess.crop))
    if not at_once:
        raise RuntimeError("there is no memory for a step within the limit")
    as_input = backbone.preprocess.normalise
    network = copy.deepcopy(backbone.network).to(extractor.device).eval().requires_grad_(True)
    # Before folding: a folded network's features differ more, and logits, by which training judges, do not.
    precision = choose_precision(network, as_input(torch.from_numpy(pixels[:at_once]).to(extractor.device)))
    fold_frozen(network)  # as fine-tuning does
    network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # as fine-tuning does
    saved_bytes = 0

    def note_saved(tensor: torch.Tensor) -> torch.Tensor:
        nonlocal saved_bytes
        saved_bytes += tensor.numel() * tensor.element_size()
        return tensor

    def step(part: NDArray[np.uint8]) -> None:
        images = as_input(torch.from_numpy(part).to(extractor.device)).contiguous(memory_format=torch.channels_last)
        with in_precision(precision, extractor.device):
            loss = network(images).float().square().mean()
        loss.backward()
        network.zero_grad()
        if extractor.device.type == "cuda":
            torch.cuda.synchronize(extractor.device)

    with torch.autograd.graph.saved_tensors_hooks(note_saved, lambda tensor: tensor):
        step(pixels[:1])
    most = max(1, _images_within(left, max(saved_bytes, 1)))
    seconds = {}
    for threads in ThreadChoice().candidates:
        with using_threads(threads):
            seconds[threads] = _seconds_per_image(step, pixels[:most])
    best = min(seconds, key=lambda threads: seconds[threads])
    return _TrainCost(seconds_per_image=seconds[best], bytes_per_image=saved_bytes, threads=best)


def _images_within(room: int | None, bytes_per_image: int) -> int:
    """Return how many images of a batch there is room for; None is room for all."""
    return TRAIN_BATCH if room is None else min(TRAIN_BATCH, max(0, room // bytes_per_image))


def network_bytes(backbone: Backbone) -> int:
    """Return the memory of one copy of the network."""
    return sum(tensor.nbytes for tensor in backbone.network.state_dict().values())


def _any_readable(source: ImageSource, extractor: Extractor, *, workers: int) -> NDArray[np.uint8]:
    """Return the first pixels that there are, of a source whose sampled images cannot be read."""
    failures: list[ImageFailure] = []
    batches = load_batches(
        source,
        np.arange(len(source)),
        preprocess=extractor.backbone.preprocess,
        batch_size=SAMPLED_IMAGES,
        workers=workers,
        decode_min_side=decode_min_side(extractor.backbone),
    )
    with closing(batches):
        for batch in batches:
            if len(batch.rows):
                return batch.pixels
            failures += batch.failures
    raise UnreadableImagesError(failures, any_left=False)


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type}, {torch.get_num_threads()} threads"
