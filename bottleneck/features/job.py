"""The batch job that fills a cache, in one process or many."""

import dataclasses
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from warnings import warn

from joblib import Parallel, delayed, effective_n_jobs

from bottleneck.backbones import Backbone
from bottleneck.cache import FeatureCache
from bottleneck.errors import (
    ImageFailure,
    SkippedImagesWarning,
    UnreadableImagesError,
    listed,
    wrong_parameter,
)
from bottleneck.extraction import ExtractionSettings, Extractor, Precision
from bottleneck.features.chunks import CHUNK_ROWS, FeatureChunk, feature_chunks
from bottleneck.features.space import feature_space, settle_precision
from bottleneck.images import ImageSource, as_image_source, subset
from bottleneck.progress import Progress, ProgressCallback, silent

ON_ERROR = ("raise", "skip")
TASKS_A_PROCESS = 4
"""Enough tasks that a slow one does not leave the other processes idle for long."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CacheReport:
    """What one pass over a source did.

    Attributes
    ----------
    rows_extracted, rows_cached, rows_skipped : int
        Images that went through the network, that were found in the cache (or repeat an image of the same pass),
        and that could not be read.
    seconds : float
        Wall time of the pass.
    space : str
        Digest of the feature space: the name of its folder in the cache.
    precision : str
        Arithmetic of the features.
    failures : tuple of ImageFailure
    """

    rows_extracted: int
    rows_cached: int
    rows_skipped: int
    seconds: float
    space: str
    precision: Precision
    failures: tuple[ImageFailure, ...] = ()

    @property
    def images_per_second(self) -> float:
        """Readable images a second of wall time, whether extracted or found."""
        return (self.rows_extracted + self.rows_cached) / self.seconds if self.seconds > 0 else 0.0


def cache_features(
    X: object,
    backbone: Backbone,
    cache: FeatureCache | str | Path,
    *,
    settings: ExtractionSettings | None = None,
    on_error: str = "raise",
    n_jobs: int = 1,
    progress: ProgressCallback = silent,
) -> CacheReport:
    """Fill a cache with the features of every image: the batch job.

    Memory is bounded by the batch and the shard, whatever the number of images. Stopped at any moment, a second
    call goes on after the last finished shard.

    Parameters
    ----------
    X : images in any form that ``TransferClassifier.predict`` takes
    backbone : Backbone
        From ``load_backbone``.
    cache : FeatureCache or path
    settings : ExtractionSettings, optional
        Device, precision, batch size and decoding threads.
    on_error : {"raise", "skip"}
        What happens, once every readable image is cached, if some were not readable.
    n_jobs : int
        Processes, through joblib (``joblib.parallel_config`` chooses the engine); each writes its own shards.
    progress : callable
        Called with ``bottleneck.progress.Progress`` records.

    Returns
    -------
    CacheReport

    Raises
    ------
    UnreadableImagesError
        Some images cannot be read and ``on_error`` is "raise"; all others are cached.
    """
    parse_on_error(on_error, "cache_features")
    if isinstance(n_jobs, bool) or not isinstance(n_jobs, int) or n_jobs == 0:
        raise wrong_parameter("cache_features", "n_jobs", "a positive number of processes, or -1 for all cores", n_jobs)
    began = time.monotonic()
    source = as_image_source(X)
    opened = cache if isinstance(cache, FeatureCache) else FeatureCache(cache)
    extractor = Extractor(backbone, settings or ExtractionSettings())
    precision = settle_precision(extractor, opened, source)
    chunks: Iterable[FeatureChunk]
    if n_jobs == 1:
        chunks = feature_chunks(source, extractor, opened, precision=precision, layers=(), progress=progress)
    else:
        chunks = _chunks_in_parallel(source, extractor, opened, precision=precision, n_jobs=n_jobs, progress=progress)
    report = summarise(chunks, backbone, precision, began=began)
    raise_or_warn(report.failures, on_error)
    return report


def parse_on_error(on_error: str, owner: str) -> None:
    """Refuse anything but the two ways of meeting an unreadable image."""
    if on_error not in ON_ERROR:
        raise wrong_parameter(owner, "on_error", "'raise' or 'skip'", on_error)


def summarise(chunks: Iterable[FeatureChunk], backbone: Backbone, precision: Precision, *, began: float) -> CacheReport:
    """Add up what the chunks did since ``began`` (``time.monotonic``), holding one chunk at a time."""
    extracted, readable = 0, 0
    failures: list[ImageFailure] = []
    for chunk in chunks:
        extracted += chunk.rows_extracted
        readable += len(chunk.rows)
        failures += chunk.failures
    return CacheReport(
        rows_extracted=extracted,
        rows_cached=max(readable - extracted, 0),  # rows extracted again after damage count as extracted
        rows_skipped=len(failures),
        seconds=time.monotonic() - began,
        space=feature_space(backbone, precision).digest,
        precision=precision,
        failures=tuple(sorted(failures, key=lambda failure: failure.row)),
    )


def raise_or_warn(failures: Sequence[ImageFailure], on_error: str) -> None:
    """Report unreadable images the way the caller asked for."""
    if not failures:
        return
    if on_error == "raise":
        raise UnreadableImagesError(failures)
    names = listed([f"{failure.id}: {failure.reason}" for failure in failures])
    warn(f"{len(failures)} images were skipped:\n{names}", SkippedImagesWarning, stacklevel=3)


def _chunks_in_parallel(
    source: ImageSource,
    extractor: Extractor,
    cache: FeatureCache,
    *,
    precision: Precision,
    n_jobs: int,
    progress: ProgressCallback,
) -> Iterable[FeatureChunk]:
    """Run one task a chunk; no array crosses a process border, since ``layers=()`` reads nothing back."""
    rows_a_task = _rows_a_task(len(source), n_jobs, extractor.batch_size)
    starts = range(0, len(source), rows_a_task)
    ranges = [range(start, min(start + rows_a_task, len(source))) for start in starts]
    rows_a_process = -(-len(source) // effective_n_jobs(n_jobs))
    tasks = (delayed(_cache_range)(source, rows, extractor, cache, precision, rows_a_process) for rows in ranges)
    done = 0
    for chunk in Parallel(n_jobs=n_jobs, return_as="generator_unordered")(tasks):
        done += len(chunk.rows) + len(chunk.failures)
        progress(Progress(stage="features", done=done, total=len(source)))
        yield chunk


def _rows_a_task(n_rows: int, n_jobs: int, batch_size: int) -> int:
    """Give every process about ``TASKS_A_PROCESS`` tasks of whole batches, none larger than a chunk."""
    n_processes: int = effective_n_jobs(n_jobs)
    batches = -(-n_rows // (TASKS_A_PROCESS * n_processes * batch_size))
    return min(CHUNK_ROWS, max(1, batches) * batch_size)


def _cache_range(
    source: ImageSource,
    rows: range,
    extractor: Extractor,
    cache: FeatureCache,
    precision: Precision,
    rows_a_process: int,
) -> FeatureChunk:
    rows_after = max(0, rows_a_process - len(rows))
    (chunk,) = feature_chunks(
        subset(source, rows), extractor, cache, precision=precision, layers=(), rows_after=rows_after
    )
    return dataclasses.replace(
        chunk,
        rows=chunk.rows + rows.start,
        failures=tuple(dataclasses.replace(failure, row=failure.row + rows.start) for failure in chunk.failures),
        layers={},
    )
