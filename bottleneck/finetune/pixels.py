"""Decoded images for many epochs: once into memory when they fit, again for each epoch when they do not."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bottleneck.backbones import Backbone, Preprocess
from bottleneck.errors import UnreadableImagesError
from bottleneck.extraction.extract import decode_min_side
from bottleneck.finetune.ranks import processes_here
from bottleneck.images import ImageSource, load_batches
from bottleneck.memory import available_memory
from bottleneck.progress import Progress, ProgressCallback, silent

MEMORY_SHARE = 0.25
"""Share of the memory available now that decoded images may take."""

DECODE_BATCH = 64


class Pixels(Protocol):
    """Preprocessed images of a source, by row."""

    def batches(self, rows: NDArray[np.int64], *, batch_size: int) -> Iterator[Tensor]:
        """Yield uint8 (n, 3, h, w) in the order of ``rows``, ``batch_size`` at a time."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class DecodedPixels:
    """Images in memory: uint8 (n, h, w, 3), one a row of the source."""

    images: NDArray[np.uint8]

    def batches(self, rows: NDArray[np.int64], *, batch_size: int) -> Iterator[Tensor]:
        """Yield slices, in the memory order channels_last."""
        for start in range(0, len(rows), batch_size):
            yield torch.from_numpy(self.images[rows[start : start + batch_size]]).permute(0, 3, 1, 2)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class StreamedPixels:
    """Images that are read and decoded each time they are asked for."""

    source: ImageSource
    preprocess: Preprocess
    decode_min_side: int | None
    workers: int

    def batches(self, rows: NDArray[np.int64], *, batch_size: int) -> Iterator[Tensor]:
        """Yield freshly decoded images.

        Raises
        ------
        UnreadableImagesError
            An image cannot be read: no other one must stand in its place.
        """
        for batch in load_batches(
            self.source,
            rows,
            preprocess=self.preprocess,
            batch_size=batch_size,
            workers=self.workers,
            decode_min_side=self.decode_min_side,
        ):
            if batch.failures:
                raise UnreadableImagesError(batch.failures)
            yield torch.from_numpy(batch.pixels)


def open_both(
    source: ImageSource,
    backbone: Backbone,
    *,
    workers: int,
    memory_limit: int | None = None,
    progress: ProgressCallback = silent,
) -> tuple[Pixels, Pixels]:
    """Return the images with room for random crops, and exactly as features are extracted from them.

    They are held in memory if ``memory_limit`` bytes suffice; None is a share of what is available now.
    """
    streamed = StreamedPixels(
        source=source, preprocess=backbone.preprocess, decode_min_side=decode_min_side(backbone), workers=workers
    )
    roomy = replace(streamed, preprocess=with_room_to_crop(backbone.preprocess))
    limit = int(MEMORY_SHARE * available_memory() / processes_here()) if memory_limit is None else memory_limit
    if roomy.preprocess == streamed.preprocess:
        pixels = in_memory(streamed, limit, stage="decoding images", progress=progress)
        return pixels, pixels
    # The exact ones are looked at a few times, the roomy ones once an epoch: these come first.
    left = limit - n_bytes(roomy)
    return (
        in_memory(roomy, limit, stage="decoding images for training", progress=progress),
        in_memory(streamed, left, stage="decoding images for comparison", progress=progress),
    )


def in_memory(streamed: StreamedPixels, limit: int, *, stage: str, progress: ProgressCallback) -> Pixels:
    """Return the images decoded once if ``limit`` bytes hold them, else as they were."""
    if n_bytes(streamed) > limit:
        return streamed
    n_images = len(streamed.source)
    images = np.empty((n_images, *streamed.preprocess.crop, 3), dtype=np.uint8)
    done = 0
    for batch in streamed.batches(np.arange(n_images), batch_size=DECODE_BATCH):
        images[done : done + len(batch)] = batch.permute(0, 2, 3, 1)
        done += len(batch)
        progress(Progress(stage=stage, done=done, total=n_images))
    return DecodedPixels(images=images)


def n_bytes(streamed: StreamedPixels) -> int:
    """Return the memory that the images take when decoded."""
    height, width = streamed.preprocess.crop
    return len(streamed.source) * 3 * height * width


def with_room_to_crop(preprocess: Preprocess) -> Preprocess:
    """Return the preprocess that keeps everything up to the resized side, for random crops to choose from."""
    height, width = preprocess.crop
    match preprocess.resize:
        case None:
            return preprocess
        case (resized_height, resized_width):
            room = (max(height, resized_height), max(width, resized_width))
        case side:
            room = (max(height, side), max(width, side))
    return replace(preprocess, crop=room)
