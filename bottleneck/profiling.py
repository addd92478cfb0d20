"""Measure what the planner needs: the data counted, decode, forward and training step timed for a moment."""

import dataclasses
import logging
import time
from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bottleneck.backbones import has_layer_norm
from bottleneck.cache import FeatureCache
from bottleneck.errors import ImageFailure, UnreadableImagesError
from bottleneck.extraction import (
    Arrangement,
    Extractor,
    Precision,
    decode_min_side,
    device_memory,
    image_bytes,
    is_out_of_memory,
    map_in_lanes,
)
from bottleneck.features import count_cached, feature_space
from bottleneck.finetune import NoRoomError, StepCost, measure_step, scaled_side
from bottleneck.images import ImageBatch, ImageSource, load_batches
from bottleneck.planner import SMALLER_SCALE, Profile
from bottleneck.timing import seconds_per_image

logger = logging.getLogger(__name__)

SAMPLED_IMAGES = 32
"""Images that are decoded and, a batch at a time, sent through the network."""
SHARES_A_LANE = 4
"""Parts of the sample that each lane decodes: some images are larger than others."""
RATES_NOTE, RATES_VERSION = "rates", 3
"""The version rises when what is timed changes."""
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
    untrainable: str = ""
    guessed: bool = False


def profile_run(
    source: ImageSource,
    labels: NDArray[Any],
    extractor: Extractor,
    cache: FeatureCache,
    *,
    precision: Precision,
    memory_limit: int | None = None,
    freeze_groups: int = 0,
) -> tuple[Profile, Rates]:
    """Return the facts of one run for the planner, and the rates behind them.

    Where nearly every row is cached, the rates of an earlier run are reused, so that such a run makes no forward pass.
    Measuring takes no more than ``memory_limit`` bytes, if any. The first ``freeze_groups`` layer groups are not to be
    trained.
    """
    backbone = extractor.backbone
    _, counts = np.unique(labels, return_counts=True)
    rows_cached = count_cached(source, extractor, cache, precision=precision)
    memory = device_memory(extractor.device)  # before anything is measured: torch keeps what that took of a GPU
    rates = None
    if rows_cached >= MOSTLY_CACHED * len(source):
        rates = _known_rates(extractor, cache, precision, freeze_groups=freeze_groups)
    if rates is None:
        rates = measure_rates(
            source, extractor, precision=precision, memory_limit=memory_limit, freeze_groups=freeze_groups
        )
        if not rates.guessed:
            note = {"version": RATES_VERSION, **dataclasses.asdict(rates)}
            cache.space(feature_space(backbone, precision)).write_note(rates_note(freeze_groups), note)
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
        memory_available_bytes=memory,
        train_bytes_per_image=rates.train_bytes_per_image,
        feature_bytes_per_image=2 * sum(widths.values()),
        rows_cached=rows_cached,
        takes_smaller_images=backbone.takes_side(scaled_side(max(backbone.preprocess.crop), SMALLER_SCALE)),
        has_layer_norm=has_layer_norm(backbone.network),
        forward_bytes_per_image=image_bytes(backbone.preprocess.crop),
        untrainable=rates.untrainable,
    )
    return profile, rates


def measure_rates(
    source: ImageSource,
    extractor: Extractor,
    *,
    precision: Precision,
    memory_limit: int | None = None,
    freeze_groups: int = 0,
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
    train, untrainable = _step_cost(extractor, pixels, memory_limit, freeze_groups)
    guess = StepCost(seconds_per_image=3 * forward, bytes_per_image=0, threads=torch.get_num_threads())
    cost = train or guess
    return Rates(
        device=_device_name(extractor.device),
        decode_seconds_per_image=decode,
        forward_seconds_per_image=forward,
        train_seconds_per_image=cost.seconds_per_image,
        train_bytes_per_image=cost.bytes_per_image,
        train_threads=cost.threads,
        untrainable=untrainable,
        guessed=train is None,
    )


def _step_cost(
    extractor: Extractor, pixels: NDArray[np.uint8], memory_limit: int | None, freeze_groups: int
) -> tuple[StepCost | None, str]:
    """Return what a training step takes, None if none could be timed, and why none can be taken, if so."""
    backbone = extractor.backbone
    try:
        cost = measure_step(
            backbone,
            extractor.device,
            pixels,
            room=memory_limit,
            image_bytes=image_bytes(backbone.preprocess.crop),
            freeze_groups=freeze_groups,
        )
    except RuntimeError as exc:
        logger.info("a training step cannot be timed: %s", exc)
        reason = "" if isinstance(exc, NoRoomError) or is_out_of_memory(exc) else str(exc).partition("\n")[0]
        return None, reason
    return cost, ""


def rates_note(freeze_groups: int) -> str:
    """Return the name under which rates are noted."""
    return f"{RATES_NOTE}-{freeze_groups}-frozen" if freeze_groups else RATES_NOTE


def _known_rates(
    extractor: Extractor, cache: FeatureCache, precision: Precision, *, freeze_groups: int
) -> Rates | None:
    note = cache.space(feature_space(extractor.backbone, precision)).read_note(rates_note(freeze_groups))
    asked = {"version": RATES_VERSION, "device": _device_name(extractor.device)}
    if note is None or any(note.get(name) != value for name, value in asked.items()):
        return None
    del note["version"]
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
        return seconds_per_image(lambda part: extractor.forward(part, precision=precision), pixels)

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
        seconds_per_image(in_every_lane, pixels[: extractor.batch_size_in(arrangement, precision)]) / arrangement.lanes
    )


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
