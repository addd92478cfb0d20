"""What a worker of a parallel job does: take the job's order once, then fill the cache part by part.

Nothing that is large comes with a part or goes back with its report. What stays between parts, in the process: the
backbone on its device, and what the worker knows of the rows that are cached.
"""

import dataclasses
import logging
import os
import pickle
import re
import socket
import threading
import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from multiprocessing import current_process
from pathlib import Path

import cloudpickle  # type: ignore[import-not-found,import-untyped,unused-ignore]  # ships no types
import numpy as np
import torch
from numpy.typing import NDArray

from bottleneck.backbones import Backbone
from bottleneck.cache import FeatureCache, SpaceStore
from bottleneck.errors import CacheError, ImageFailure
from bottleneck.extraction import ExtractionSettings, Extractor, Precision, using_threads
from bottleneck.extraction.devices import usable_cores
from bottleneck.features.chunks import feature_chunks
from bottleneck.features.cluster import this_worker
from bottleneck.features.space import feature_space, settle_precision
from bottleneck.images import ImageSource
from bottleneck.torchvision_door import torchvision

PackedOrder = NDArray[np.uint8]
"""A pickled order: an array, because joblib shares arrays among processes and Dask keeps one copy a worker."""
TROUBLE = (OSError, RuntimeError, MemoryError, ImportError)
"""What may be wrong with a worker rather than with the job: its disk, its memory, its device, what it has installed."""
FOLDER_SECONDS = (0.0, 1.0, 5.0)
"""Pauses before a worker concludes that it does not see the cache folder: network file systems show files late."""

JOBLIBS_PROCESS = "LokyProcess-"
"""How joblib's own processes are called; they share one machine."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkOrder:
    """A caching job, as every worker gets it once.

    Attributes
    ----------
    token : str
        Names the job.
    backbone : Backbone
    settings : ExtractionSettings
    precision : {"float32", "bfloat16"}
    cache_dir : path
    sign : path
        A file in the cache folder: a worker that does not see it has another folder of that name.
    n_workers : int
    rows_a_worker : int
        How many rows each worker is likely to get.
    shard_seconds : float
        How often a shard is written while a part is extracted.
    """

    token: str
    backbone: Backbone
    settings: ExtractionSettings
    precision: Precision
    cache_dir: Path
    sign: Path
    n_workers: int
    rows_a_worker: int
    shard_seconds: float


@dataclass(frozen=True, kw_only=True, slots=True)
class PartReport:
    """What became of one part: a few hundred bytes, unless images were unreadable.

    ``trouble`` says why the worker could not do it, and is empty where it could; rows of failures are those of the
    part.
    """

    rows: range
    worker: str
    rows_extracted: int = 0
    rows_readable: int = 0
    failures: tuple[ImageFailure, ...] = ()
    seconds: float = 0.0
    trouble: str = ""


@dataclass(kw_only=True, slots=True)
class _Taken:
    """An order as this process has taken it."""

    order: WorkOrder
    extractor: Extractor
    cache: FeatureCache
    store: SpaceStore
    trouble: str = ""


_taken: dict[str, _Taken] = {}
_one_at_a_time = threading.Lock()
"""A worker with several threads computes one part with all of them."""


def pack(order: WorkOrder) -> PackedOrder:
    """Return an order as it travels; classes and functions of ``__main__`` travel with it."""
    return np.frombuffer(cloudpickle.dumps(order), np.uint8)


def cache_part(packed: PackedOrder, token: str, source: ImageSource, rows: range) -> PartReport:
    """Fill the cache with one part: ``source`` holds the rows ``rows`` of the job's source, and nothing else.

    A worker in trouble says so instead of raising, and does nothing more for this ``token``.
    """
    began = time.monotonic()
    worker, n_threads = this_worker() or (f"{socket.gethostname()}-{os.getpid()}", None)
    with _one_at_a_time:
        known = _taken.get(token)
        if known is not None and known.trouble:
            return PartReport(rows=rows, worker=worker, trouble=known.trouble)
        try:
            with _threads(n_threads):
                taken = known or _take(packed, token, n_threads)
                report = _fill(taken, source, rows)
        except TROUBLE as exc:
            logger.warning("rows %d to %d: %s", rows.start, rows.stop - 1, exc)
            trouble = f"{type(exc).__name__}: {exc}"
            if token in _taken:
                _taken[token].trouble = trouble
            return PartReport(rows=rows, worker=worker, trouble=trouble)
    return dataclasses.replace(report, worker=worker, seconds=time.monotonic() - began)


def settle_on_worker(packed: PackedOrder, first_images: ImageSource) -> Precision:
    """Return the arithmetic for a job whose order leaves it to "auto", by the hardware of this worker."""
    order = _unpack(packed)
    return settle_precision(Extractor(order.backbone, order.settings), None, first_images)


def pinned_device(asked: str, n_devices: int, process_name: str) -> str:
    """Return the device of a process: with several and "auto", processes called ...-1, ...-2, ... take turns.

    joblib's processes are called so. Workers that dask-cuda starts see one device each, and nothing is left to choose.
    """
    number = re.search(r"-(\d+)$", process_name)
    if asked != "auto" or n_devices < 2 or number is None:
        return asked
    return f"cuda:{int(number[1]) % n_devices}"


def _take(packed: PackedOrder, token: str, n_threads: int | None) -> _Taken:
    """Load the backbone onto this worker's device; what an earlier job left is given up."""
    order = _unpack(packed)
    for pause in FOLDER_SECONDS:
        time.sleep(pause)
        if order.sign.exists():
            break
    else:
        raise CacheError(f"The cache folder {order.cache_dir} is not the one that the job was started with.")
    cache = FeatureCache(order.cache_dir)
    taken = _Taken(
        order=order,
        extractor=Extractor(order.backbone, _settings_here(order, n_threads)),
        cache=cache,
        store=cache.space(feature_space(order.backbone, order.precision)),
    )
    _taken.clear()
    _taken[token] = taken
    return taken


def _settings_here(order: WorkOrder, n_threads: int | None) -> ExtractionSettings:
    """Return the settings with this process's device, and its share of the cores where nobody has said how many."""
    process = current_process().name
    workers = order.settings.workers
    if workers == "auto" and n_threads is not None:
        workers = n_threads
    elif workers == "auto" and process.startswith(JOBLIBS_PROCESS):
        workers = max(1, usable_cores() // order.n_workers)
    device = pinned_device(order.settings.device, torch.cuda.device_count(), process)
    return dataclasses.replace(order.settings, device=device, workers=workers)


def _unpack(packed: PackedOrder) -> WorkOrder:
    torchvision()  # a backbone may be made of its classes, which it would import by the wrong door
    # Written by the process that started this job, and come over the engine's own channel.
    order: WorkOrder = pickle.loads(packed.data)
    return order


def _fill(taken: _Taken, source: ImageSource, rows: range) -> PartReport:
    extractor, order = taken.extractor, taken.order
    extracted, readable = 0, 0
    failures: list[ImageFailure] = []
    for chunk in feature_chunks(
        source,
        extractor,
        taken.cache,
        precision=order.precision,
        layers=(),
        rows_after=max(0, order.rows_a_worker - extractor.rows_done - len(rows)),
        store=taken.store,
        chunk_rows=len(rows),
        shard_seconds=order.shard_seconds,
    ):
        extracted += chunk.rows_extracted
        readable += len(chunk.rows)
        failures += chunk.failures
    return PartReport(rows=rows, worker="", rows_extracted=extracted, rows_readable=readable, failures=tuple(failures))


def _threads(n_threads: int | None) -> AbstractContextManager[None]:
    return nullcontext() if n_threads is None else using_threads(n_threads)
