"""A caching job among workers: joblib is the interface, Dask the engine for clusters. Nothing here schedules."""

import logging
import secrets
from collections.abc import Generator, Iterator
from concurrent.futures import BrokenExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from typing import Any

from joblib import delayed, effective_n_jobs

from bottleneck.backbones import Backbone
from bottleneck.cache import FeatureCache
from bottleneck.errors import WorkerError, did_you_mean, listed, wrong_parameter
from bottleneck.extraction import ExtractionSettings, Precision
from bottleneck.features import cluster
from bottleneck.features.chunks import SHARD_SECONDS
from bottleneck.features.parts import JobSize, Pace, cut, rows_of_part
from bottleneck.features.space import STORED_BYTES, feature_space
from bottleneck.features.worker import PartReport, WorkOrder, cache_part, pack, settle_on_worker
from bottleneck.images import ImageSource, part_of
from bottleneck.workers import results_of

ENGINES = ("joblib", "dask")
LOOKED_AT = 512
"""Images that a worker gets to settle the arithmetic on."""
UNKNOWN_BATCH = 256
"""Taken for the size of a batch where only the workers know it: a multiple of most."""
MOST_RESTARTS = 3
"""How often a job goes on after joblib's processes have died without a part being done in between."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class ParallelJob:
    """What is to be done, whoever does it: ``rows`` of a source."""

    source: ImageSource
    rows: range
    backbone: Backbone
    settings: ExtractionSettings
    cache: FeatureCache


def parse_engine(engine: str, scheduler: str | None) -> None:
    """Refuse an engine that there is not, and a scheduler for one that takes none."""
    if engine not in ENGINES:
        raise wrong_parameter("cache_features", "engine", "'joblib' or 'dask'", engine, did_you_mean(engine, ENGINES))
    if engine != "dask" and scheduler is not None:
        raise wrong_parameter("cache_features", "scheduler", "None unless engine='dask'", scheduler)


def batch_rows(settings: ExtractionSettings) -> int:
    """Return the rows of a batch, or what is taken for them where each worker decides for itself."""
    return settings.batch_size if isinstance(settings.batch_size, int) else UNKNOWN_BATCH


def reports_from_joblib(
    job: ParallelJob, precision: Precision, *, n_jobs: int | None, batch_size: int
) -> Generator[PartReport]:
    """Yield the report of every part as it is done, by the backend that joblib is configured with.

    Parts that processes died over, or had trouble with, are tried once more after the others: what they stored is
    found in the cache.

    Raises
    ------
    WorkerError
        No process gets any further.
    """
    n_workers: int = effective_n_jobs(n_jobs)
    size, pace = _size(job, n_workers, batch_size), Pace()
    parts = cut(job.rows, lambda: rows_of_part(size, pace.rate))
    restarts = 0
    with _ordered(job, precision, n_workers=n_workers, shard_seconds=SHARD_SECONDS) as order:
        packed = pack(order)
        while restarts < MOST_RESTARTS:
            unfinished: dict[range, str] = {}
            n_done = 0
            # Another token at every try, or a process that has been in trouble would do nothing more.
            token = secrets.token_hex(8)
            handed_out = _noting(parts, unfinished)
            tasks = (delayed(cache_part)(packed, token, part_of(job.source, rows), rows) for rows in handed_out)
            try:
                for report in results_of(tasks, n_jobs=n_jobs, in_order=False):
                    if report.trouble:
                        unfinished[report.rows] = f"{report.worker}: {report.trouble}"
                    else:
                        n_done += 1
                        del unfinished[report.rows]
                        pace.note(report.rows_extracted, report.seconds)
                        yield report
            except BrokenExecutor as exc:
                logger.warning("a process died, and its part is tried again: %s", exc)
            if not unfinished:
                return
            if not n_done and all(unfinished.values()):
                break
            restarts = 0 if n_done else restarts + 1
            parts = chain(list(unfinished), parts)
    reasons = [f"rows {rows.start} to {rows.stop - 1}: {why or 'the process died'}" for rows, why in unfinished.items()]
    raise WorkerError(f"No process gets any further; what was extracted is cached:\n{listed(reasons)}")


def settle_on_cluster(client: Any, job: ParallelJob) -> Precision:
    """Return the arithmetic asked for, else the one that suits the hardware of a worker."""
    match job.settings.precision:
        case "float32" | "bfloat16" as asked:
            return asked
    packed = pack(_order(job, "float32", n_workers=1, shard_seconds=SHARD_SECONDS))
    first_images = part_of(job.source, range(min(LOOKED_AT, len(job.source))))
    settled: Precision = cluster.run_once(client, settle_on_worker, packed, first_images)
    return settled


def reports_from_dask(client: Any, job: ParallelJob, precision: Precision) -> Generator[PartReport | None]:
    """Yield the report of every part as it is done, and None now and then meanwhile; each part is one shard.

    Raises
    ------
    WorkerError
        No worker gets any further.
    """
    n_workers = max(1, cluster.count_workers(client))
    size, pace = _size(job, n_workers, batch_rows(job.settings)), Pace()
    parts = cut(job.rows, lambda: rows_of_part(size, pace.rate))
    with _ordered(job, precision, n_workers=n_workers, shard_seconds=float("inf")) as order:

        def arguments(rows: range) -> tuple[object, ...]:
            return order.token, part_of(job.source, rows), rows

        for report in cluster.run_parts(client, cache_part, pack(order), parts, arguments):
            if report is not None:
                pace.note(report.rows_extracted, report.seconds)
            yield report


def _noting(parts: Iterator[range], unfinished: dict[range, str]) -> Iterator[range]:
    for rows in parts:
        unfinished[rows] = ""
        yield rows


def _size(job: ParallelJob, n_workers: int, batch_size: int) -> JobSize:
    row_bytes = STORED_BYTES * sum(job.backbone.layer_widths.values())
    return JobSize(n_rows=len(job.rows), n_workers=n_workers, batch_size=batch_size, row_bytes=row_bytes)


@contextmanager
def _ordered(job: ParallelJob, precision: Precision, *, n_workers: int, shard_seconds: float) -> Iterator[WorkOrder]:
    """Yield a job's order, while a sign of it is in the cache folder for the workers to see."""
    order = _order(job, precision, n_workers=n_workers, shard_seconds=shard_seconds)
    store = job.cache.space(feature_space(job.backbone, precision))
    store.write_note(order.sign.stem, {"backbone": job.backbone.name, "rows": len(job.rows), "workers": n_workers})
    try:
        yield order
    finally:
        order.sign.unlink(missing_ok=True)


def _order(job: ParallelJob, precision: Precision, *, n_workers: int, shard_seconds: float) -> WorkOrder:
    token = secrets.token_hex(8)
    return WorkOrder(
        token=token,
        backbone=job.backbone,
        settings=job.settings,
        precision=precision,
        cache_dir=job.cache.cache_dir,
        sign=job.cache.space(feature_space(job.backbone, precision)).folder / f"job-{token}.json",
        n_workers=n_workers,
        rows_a_worker=-(-len(job.rows) // n_workers),
        shard_seconds=shard_seconds,
    )
