"""A cache folder: one store a feature space, and the keys of files seen before."""

import re
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from itertools import islice
from pathlib import Path

import numpy as np
from joblib import delayed
from numpy.typing import NDArray

from bottleneck.cache.compact import CompactReport
from bottleneck.cache.files import cache_errors
from bottleneck.cache.keys import DIGEST_CHARACTERS, FeatureSpace
from bottleneck.cache.layout import read_space
from bottleneck.cache.locks import write_lock
from bottleneck.cache.stat_index import FileStat, StatIndex
from bottleneck.cache.store import SpaceStore
from bottleneck.cache.verify import (
    ShardCheck,
    VerifyReport,
    check_shard,
    drop_shard,
    judge,
    list_shards,
    mend_manifest,
)
from bottleneck.cache.virtual import VirtualFile, write_virtual_file
from bottleneck.progress import Progress, ProgressCallback, silent
from bottleneck.workers import parse_n_jobs, results_in_order

STAT_INDEX = "files-v1.sqlite3"

_SPACE_FOLDER = re.compile(rf"[0-9a-f]{{{DIGEST_CHARACTERS}}}")


class FeatureCache:
    """Features of images on disk, shared by any number of processes.

    Nothing is written before features are appended or files remembered. Objects can be pickled; copies reopen the
    files.

    Parameters
    ----------
    cache_dir
        The folder, made when it is first needed.

    Examples
    --------
    >>> cache = FeatureCache("~/.cache/features")          # doctest: +SKIP
    >>> store = cache.space(space)                         # doctest: +SKIP
    >>> store.append(rows)                                 # doctest: +SKIP
    >>> store.read(store.find(rows.keys), "penultimate")   # doctest: +SKIP
    """

    def __init__(self, cache_dir: str | Path) -> None:
        self.cache_dir = Path(cache_dir).expanduser().absolute()
        self._made_ns = time.time_ns()

    def space(self, space: FeatureSpace) -> SpaceStore:
        """Return the store of one feature space; it reads its folder when first used."""
        return SpaceStore(self.cache_dir, space)

    def spaces(self) -> tuple[FeatureSpace, ...]:
        """Return the feature spaces in this cache.

        Raises
        ------
        CacheError
            The folder cannot be read, or a description in it is damaged or from a newer version of the library.
        """
        if not self.cache_dir.exists():
            return ()
        with cache_errors(self.cache_dir):
            folders = [path for path in sorted(self.cache_dir.iterdir()) if _SPACE_FOLDER.fullmatch(path.name)]
            return tuple(space for folder in folders if (space := read_space(folder)) is not None)

    def recall(self, stats: Sequence[FileStat]) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """Return the content keys of files that were seen before and have not changed.

        Parameters
        ----------
        stats
            ``(path, size, mtime_ns)`` of each file.

        Returns
        -------
        keys
            uint8, shape (n, 16); zeros where unknown.
        known
            bool, shape (n,).
        """
        return self._stat_index.recall(stats)

    def remember(self, stats: Sequence[FileStat], keys: NDArray[np.uint8], *, read_after_ns: int | None = None) -> None:
        """Remember the content keys of files for ``recall``.

        Files that changed less than two seconds before ``read_after_ns`` are left out: they could change again
        without their modification time telling.

        Parameters
        ----------
        stats
            ``(path, size, mtime_ns)`` of each file, taken before its content was read.
        keys
            uint8, shape (n, 16).
        read_after_ns
            A time (``time.time_ns``) before the first of these files was read; by default that at which this
            object was made.

        Raises
        ------
        CacheError
            The folder cannot be made.
        """
        with cache_errors(self.cache_dir):
            self.cache_dir.mkdir(parents=True, exist_ok=True)
        read_after_ns = self._made_ns if read_after_ns is None else read_after_ns
        self._stat_index.remember(stats, keys, read_after_ns=read_after_ns)

    def verify(self, *, n_jobs: int | None = None, progress: ProgressCallback = silent) -> VerifyReport:
        """Read every shard of every space and compare checksums, format and manifest.

        Parameters
        ----------
        n_jobs
            Worker processes that check one shard each. None is one, or what ``joblib.parallel_config`` says.
        progress
            Called with ``bottleneck.progress.Progress`` records.

        Raises
        ------
        CacheError
            A folder cannot be read, or is from a newer version of the library.
        """
        parse_n_jobs(n_jobs, owner="verify")
        spaces = self.spaces()
        with cache_errors(self.cache_dir):
            listings = [list_shards(self.cache_dir / space.digest, space) for space in spaces]
            tasks = (delayed(check_shard)(path, each.space) for each in listings for path in each.paths)
            results = results_in_order(tasks, n_jobs=n_jobs)
            with closing(_counted(results, sum(len(each.paths) for each in listings), progress)) as checks:
                reports = [judge(each, list(islice(checks, len(each.paths)))) for each in listings]
        return VerifyReport(
            n_good=sum(report.n_good for report in reports),
            bad=tuple(shard for report in reports for shard in report.bad),
            newer=tuple(path for report in reports for path in report.newer),
        )

    def repair(self, *, n_jobs: int | None = None, progress: ProgressCallback = silent) -> VerifyReport:
        """Drop all damaged and missing shards for good, mend the lists, and return what ``verify`` found before.

        Rows of dropped shards are misses afterwards and are computed again when they are next needed. ``n_jobs`` and
        ``progress`` are those of ``verify``.

        Raises
        ------
        CacheError
            As for ``verify``, or a folder cannot be written.
        """
        report = self.verify(n_jobs=n_jobs, progress=progress)
        faults = [bad for bad in report.bad if bad.is_list]
        with cache_errors(self.cache_dir):
            for shard in report.bad:
                if not shard.is_list:
                    with write_lock(shard.folder):
                        drop_shard(shard)
            for folder in {fault.folder for fault in faults}:
                with write_lock(folder):
                    mend_manifest(folder, {fault.contradicted for fault in faults if fault.folder == folder})
        for space in self.spaces() if faults else ():
            self.space(space).refresh()
        return report

    def compact(self, *, n_jobs: int | None = None, progress: ProgressCallback = silent) -> CompactReport:
        """Write the small shards of every space as few large ones; see ``SpaceStore.compact``.

        Small shards are also merged as they pile up, so this is for caches that are done, or were filled by older
        versions: contiguous shards of up to 64 MiB are the fastest to read and to copy elsewhere.

        Parameters
        ----------
        n_jobs
            Worker processes, each of which writes one new shard after the other; the result is the same to the last
            bit. None is one, or what ``joblib.parallel_config`` says.
        progress
            Called with ``bottleneck.progress.Progress`` records.

        Raises
        ------
        CacheError
            A folder cannot be read or written, or is from a newer version of the library.
        WorkerError
            A worker process died.
        """
        reports = [self.space(space).compact(n_jobs=n_jobs, progress=progress) for space in self.spaces()]
        return CompactReport(
            shards_before=sum(report.shards_before for report in reports),
            shards_after=sum(report.shards_after for report in reports),
            n_bytes=sum(report.n_bytes for report in reports),
        )

    def write_virtual(self) -> tuple[VirtualFile, ...]:
        """Write ``features.h5`` into the folder of each space with rows, for h5py, MATLAB, HDFView and the like.

        It shows all shards as one float32 dataset a layer, and the keys of their images. It is an index for other
        tools, as of now: write it again after more rows came or shards were merged.

        Raises
        ------
        CacheError
            A folder cannot be read or written, is from a newer version of the library, or changes meanwhile.
        """
        stores = [(space, self.space(space)) for space in self.spaces()]
        with cache_errors(self.cache_dir):
            return tuple(write_virtual_file(store.folder, space) for space, store in stores if store.n_rows)

    @property
    def _stat_index(self) -> StatIndex:
        return StatIndex(self.cache_dir / STAT_INDEX)


def _counted(checks: Iterator[ShardCheck], total: int, progress: ProgressCallback) -> Generator[ShardCheck]:
    for done, check in enumerate(checks, 1):
        yield check
        progress(Progress(stage="verify", done=done, total=total, unit="shards"))
