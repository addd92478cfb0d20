"""The batch job that fills a cache, in one process, in many, or on a cluster."""

import dataclasses
import time
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from warnings import warn

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
from bottleneck.features.chunks import FeatureChunk, feature_chunks
from bottleneck.features.cluster import connected
from bottleneck.features.engines import (
    ParallelJob,
    batch_rows,
    parse_engine,
    reports_from_dask,
    reports_from_joblib,
    settle_on_cluster,
)
from bottleneck.features.parts import rows_of_shard
from bottleneck.features.space import feature_space, settle_precision
from bottleneck.features.worker import PartReport
from bottleneck.images import as_image_source, subset
from bottleneck.progress import Progress, ProgressCallback, silent
from bottleneck.workers import parse_n_jobs, runs_here

ON_ERROR = ("raise", "skip")


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
    n_jobs: int | None = None,
    engine: str = "joblib",
    scheduler: str | None = None,
    shard: tuple[int, int] | None = None,
    progress: ProgressCallback = silent,
) -> CacheReport:
    """Fill a cache with the features of every image: the batch job.

    Memory is bounded by the batch and the shard, whatever the number of images. Stopped at any moment, a second
    call goes on after the last finished shard.

    Parameters
    ----------
    X : images in any form that ``TransferClassifier.predict`` takes
        For jobs of many millions a Parquet or CSV table with a column of paths: each worker reads its own rows of it.
    backbone : Backbone
        From ``load_backbone``.
    cache : FeatureCache or path
        With workers on other machines, a folder that all of them see under this path.
    settings : ExtractionSettings, optional
        Device, precision, batch size and decoding threads.
    on_error : {"raise", "skip"}
        What happens, once every readable image is cached, if some were not readable.
    n_jobs : int, optional
        Worker processes, each of which writes its own shards. With joblib None is one, or what
        ``joblib.parallel_config`` says; with Dask, how many workers to wait for.
    engine : {"joblib", "dask"}
        Who runs the workers: joblib's processes on this machine (or the backend that ``joblib.parallel_config``
        names), or a Dask cluster.
    scheduler : str, optional
        Address of Dask's scheduler (``tcp://HOST:8786``); by default the current ``dask.distributed.Client``.
    shard : (i, n), optional
        Only the i-th of n equal shares of the images, i from 1: for job arrays without a scheduler.
    progress : callable
        Called with ``bottleneck.progress.Progress`` records.

    Returns
    -------
    CacheReport

    Raises
    ------
    UnreadableImagesError
        Some images cannot be read and ``on_error`` is "raise"; all others are cached.
    WorkerError
        No worker, or no process, gets any further; what was extracted is cached.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from tempfile import TemporaryDirectory
    >>> from bottleneck import cache_features, load_backbone
    >>> images = (load_digits().images[:20] / 16).astype("float32")
    >>> with TemporaryDirectory() as folder:
    ...     first = cache_features(images[:15], load_backbone("embedded"), folder)
    ...     second = cache_features(images, load_backbone("embedded"), folder)
    >>> first.rows_extracted, second.rows_extracted, second.rows_cached
    (15, 5, 15)
    """
    parse_on_error(on_error, "cache_features")
    parse_engine(engine, scheduler)
    parse_n_jobs(n_jobs, owner="cache_features")
    began = time.monotonic()
    source = as_image_source(X)
    settings = settings or ExtractionSettings()
    opened = cache if isinstance(cache, FeatureCache) else FeatureCache(cache)
    rows = range(len(source)) if shard is None else rows_of_shard(len(source), shard, batch_rows(settings))
    job = ParallelJob(source=source, rows=rows, backbone=backbone, settings=settings, cache=opened)
    if engine == "dask":
        report = _through_dask(job, scheduler, n_jobs, progress, began)
    elif runs_here(n_jobs):
        report = _in_this_process(job, progress, began)
    else:
        report = _through_joblib(job, n_jobs, progress, began)
    raise_or_warn(report.failures, on_error)
    return report


def _in_this_process(job: ParallelJob, progress: ProgressCallback, began: float) -> CacheReport:
    extractor = Extractor(job.backbone, job.settings)
    # By the first images of all, or the shares of one job could settle on different arithmetics.
    precision = settle_precision(extractor, job.cache, job.source)
    source = job.source if len(job.rows) == len(job.source) else subset(job.source, job.rows)
    chunks = feature_chunks(source, extractor, job.cache, precision=precision, layers=(), progress=progress)
    report = summarise(chunks, job.backbone, precision, began=began)
    failures = tuple(dataclasses.replace(failure, row=job.rows[failure.row]) for failure in report.failures)
    return dataclasses.replace(report, failures=failures)


def _through_joblib(job: ParallelJob, n_jobs: int | None, progress: ProgressCallback, began: float) -> CacheReport:
    extractor = Extractor(job.backbone, job.settings)
    precision = settle_precision(extractor, job.cache, job.source)
    reports = reports_from_joblib(job, precision, n_jobs=n_jobs, batch_size=extractor.batch_size)
    with closing(reports):
        return _add_up(reports, job, progress).as_report(job.backbone, precision, began)


def _through_dask(
    job: ParallelJob, scheduler: str | None, n_jobs: int | None, progress: ProgressCallback, began: float
) -> CacheReport:
    with connected(scheduler, max(1, n_jobs or 1)) as client:
        precision = settle_on_cluster(client, job)
        with closing(reports_from_dask(client, job, precision)) as reports:
            return _add_up(reports, job, progress).as_report(job.backbone, precision, began)


def parse_on_error(on_error: str, owner: str) -> None:
    """Refuse anything but the two ways of meeting an unreadable image."""
    if on_error not in ON_ERROR:
        raise wrong_parameter(owner, "on_error", "'raise' or 'skip'", on_error)


def summarise(chunks: Iterable[FeatureChunk], backbone: Backbone, precision: Precision, *, began: float) -> CacheReport:
    """Add up what the chunks did since ``began`` (``time.monotonic``), holding one chunk at a time."""
    counts = _Counts()
    for chunk in chunks:
        counts.extracted += chunk.rows_extracted
        counts.readable += len(chunk.rows)
        counts.failures += chunk.failures
    return counts.as_report(backbone, precision, began)


@dataclass(kw_only=True, slots=True)
class _Counts:
    """What has been done so far."""

    extracted: int = 0
    readable: int = 0
    failures: list[ImageFailure] = field(default_factory=list)

    def as_report(self, backbone: Backbone, precision: Precision, began: float) -> CacheReport:
        return CacheReport(
            rows_extracted=self.extracted,
            rows_cached=max(self.readable - self.extracted, 0),  # rows extracted again after damage count as extracted
            rows_skipped=len(self.failures),
            seconds=time.monotonic() - began,
            space=feature_space(backbone, precision).digest,
            precision=precision,
            failures=tuple(sorted(self.failures, key=lambda failure: failure.row)),
        )


def raise_or_warn(failures: Sequence[ImageFailure], on_error: str) -> None:
    """Report unreadable images the way the caller asked for."""
    if not failures:
        return
    if on_error == "raise":
        raise UnreadableImagesError(failures)
    names = listed([f"{failure.id}: {failure.reason}" for failure in failures])
    warn(f"{len(failures)} images were skipped:\n{names}", SkippedImagesWarning, stacklevel=3)


def _add_up(reports: Iterable[PartReport | None], job: ParallelJob, progress: ProgressCallback) -> _Counts:
    """Add up what workers report, and say how far they are."""
    counts = _Counts()
    done, workers = 0, set[str]()
    for report in reports:
        if report is not None:
            done += len(report.rows)
            workers.add(report.worker)
            counts.extracted += report.rows_extracted
            counts.readable += report.rows_readable
            for failure in report.failures:
                row = report.rows[failure.row]
                counts.failures.append(dataclasses.replace(failure, row=row, id=job.source.ids[row]))
        notes = [f"{len(workers)} workers"] if workers else ["waiting for the first shards"]
        notes += [f"{len(counts.failures):,} unreadable"] if counts.failures else []
        progress(Progress(stage="features", done=done, total=len(job.rows), note=", ".join(notes)))
    return counts
