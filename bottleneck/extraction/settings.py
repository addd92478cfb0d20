"""How to compute: what a caller may ask for, and what "auto" stands for."""

from dataclasses import dataclass

import numpy as np
import torch

from bottleneck.errors import wrong_parameter
from bottleneck.extraction.compiled import CompileSetting

CUDA_BATCH_SIZE = 256
LANE_PIXELS = 8 * 224**2
"""Pixels of the images that a thread computes at once in bfloat16: 8 of ImageNet's size. In float32, half as many.

Then the widest maps of most networks stay below 32 MiB. Larger pieces of memory the C library always returns to the
system when a layer is done, and asks for again (``M_MMAP_THRESHOLD`` in mallopt(3)): on mobilenet_v2 the time spent in
the system grew with the batch from there on. Fewer images than these leave the matrix products narrow.
"""
MAX_LANE_BATCH = 64
"""Images of few pixels: enough that Python's share of a pass is small."""
BYTES_PER_PIXEL = 1024
"""Allowance: what a pass holds at once for each pixel of input (VGG, the widest of the old networks: 512 float32)."""
MEMORY_SHARE = 0.5
"""Share of the available memory that lanes may take."""


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
        Threads beside the calling one; "auto" is one a core. On the processor each takes whole batches from the
        file to the features, or they load batches for one wide network, whichever is faster; for other devices
        they load. 0 does everything in the calling thread.
    compile : bool or "auto"
        Whether the network is compiled (``torch.compile`` with freezing), on the processor only: "auto" does so once
        the images that are still to come pay for it; True does so at once. Where it fails, is not faster or changes
        features by more than a cosine of 0.9999, the network is used as it is.
    memory_limit : int, optional
        Bytes that images on their way through the network may take, as ``image_bytes`` counts them: batches, and the
        number of lanes, are made as small as that asks for. At least one image goes through at a time.
    """

    device: str = "auto"
    precision: str = "auto"
    batch_size: int | str = "auto"
    workers: int | str = "auto"
    compile: bool | str = "auto"
    memory_limit: int | None = None


def parse_batch_size(batch_size: int | str, device: torch.device, crop: tuple[int, int]) -> int:
    """Return how many images go through the network at once; in a lane, on the processor."""
    if batch_size == "auto":
        if device.type == "cuda":
            return CUDA_BATCH_SIZE
        return min(max(1, LANE_PIXELS // (crop[0] * crop[1])), MAX_LANE_BATCH)
    if isinstance(batch_size, bool) or not isinstance(batch_size, int | np.integer) or batch_size < 1:
        raise wrong_parameter("feature extraction", "batch_size", "'auto' or a positive integer", batch_size)
    return int(batch_size)


def parse_workers(workers: int | str) -> int | None:
    """Return the number of threads asked for, or None for "auto"."""
    if workers == "auto":
        return None
    if isinstance(workers, bool) or not isinstance(workers, int | np.integer) or workers < 0:
        raise wrong_parameter("feature extraction", "workers", "'auto' or an integer of at least 0", workers)
    return int(workers)


def parse_compile(setting: bool | str) -> CompileSetting:
    """Return whether to compile."""
    if isinstance(setting, bool):
        return setting
    if setting == "auto":
        return "auto"
    raise wrong_parameter("feature extraction", "compile", "'auto', True or False", setting)


def image_bytes(crop: tuple[int, int]) -> int:
    """Return what one image of this size takes at most on its way through a network."""
    return crop[0] * crop[1] * BYTES_PER_PIXEL


def most_images(memory_limit: int | None, crop: tuple[int, int]) -> int | None:
    """Return how many images may be in the network at once, in all lanes together; None: any number."""
    return None if memory_limit is None else max(1, memory_limit // image_bytes(crop))


def most_lanes(batch_size: int, crop: tuple[int, int], available_bytes: int) -> int:
    """Return how many lanes can have a batch each in memory."""
    return max(1, int(MEMORY_SHARE * available_bytes / (batch_size * image_bytes(crop))))
