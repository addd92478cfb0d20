"""The batch job on a Dask cluster of real processes: the same rows, bit for bit, whatever happens to workers."""

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from bottleneck import FeatureCache, cache_features
from bottleneck.errors import SkippedImagesWarning, WorkerError
from bottleneck.extraction import ExtractionSettings
from bottleneck.features import cluster as cluster_module
from tests.conftest import make_tiny_backbone, write_image_folder
from tests.features.dask_cluster import ROOT, DaskCluster
from tests.features.hosts import Hosts, NotPermittedError
from tests.features.test_job import all_features

distributed = pytest.importorskip("distributed")

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")

CPU = ExtractionSettings(device="cpu", precision="float32", workers=0, batch_size=4)
N_IMAGES = 96


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("shared")


@pytest.fixture(scope="module")
def images(folder: Path) -> Path:
    return write_image_folder(folder / "images", n=N_IMAGES)


@pytest.fixture(scope="module")
def expected(folder: Path, images: Path) -> np.ndarray:
    """Return what one process makes of the images."""
    cache_features(images, make_tiny_backbone(), folder / "one", settings=CPU)
    return all_features(make_tiny_backbone(), images, FeatureCache(folder / "one"))


@pytest.fixture(scope="module")
def three_workers(folder: Path) -> Iterator[DaskCluster]:
    cluster = DaskCluster(folder)
    for _ in range(3):
        cluster.add_worker()
    yield cluster
    cluster.close()


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[DaskCluster]:
    cluster = DaskCluster(tmp_path)
    yield cluster
    cluster.close()


def assert_same_rows(cache_dir: Path, images: Path, expected: np.ndarray) -> None:
    cache = FeatureCache(cache_dir)
    assert np.array_equal(all_features(make_tiny_backbone(), images, cache), expected)
    assert [cache.space(space).n_rows for space in cache.spaces()] == [len(expected)]
    assert cache.verify().bad == ()
    assert not list(cache_dir.rglob("job-*.json"))


def while_running(done: threading.Event, trouble: Callable[[], None]) -> threading.Thread:
    """Cause trouble in another thread once the job has begun."""
    thread = threading.Thread(target=lambda: done.wait(120) and trouble())
    thread.start()
    return thread


def test_three_workers_over_tcp_write_what_one_process_writes(three_workers, images, expected, tmp_path):
    seen = []

    report = cache_features(
        images,
        make_tiny_backbone(),
        tmp_path / "cache",
        settings=CPU,
        engine="dask",
        scheduler=three_workers.address,
        n_jobs=3,
        progress=seen.append,
    )

    assert (report.rows_extracted, report.rows_cached, report.rows_skipped) == (N_IMAGES, 0, 0)
    assert (seen[-1].done, seen[-1].total, seen[-1].note) == (N_IMAGES, N_IMAGES, "3 workers")
    assert_same_rows(tmp_path / "cache", images, expected)


def test_unreadable_images_are_named_by_their_row_of_the_whole_job(three_workers, images, tmp_path):
    paths = [str(path) for path in sorted(images.rglob("*.png"))]
    paths[50] = str(tmp_path / "none.png")

    with pytest.warns(SkippedImagesWarning, match=r"none\.png"):
        report = cache_features(
            paths,
            make_tiny_backbone(),
            tmp_path / "cache",
            settings=CPU,
            engine="dask",
            scheduler=three_workers.address,
            on_error="skip",
        )

    assert [(failure.row, failure.id) for failure in report.failures] == [(50, paths[50])]
    assert report.rows_extracted == N_IMAGES - 1


def test_joblib_with_its_dask_backend_writes_the_same(three_workers, images, expected, tmp_path):
    import joblib

    with (
        distributed.Client(three_workers.address, set_as_default=False) as client,
        joblib.parallel_config(backend="dask", client=client),
    ):
        report = cache_features(images, make_tiny_backbone(), tmp_path / "cache", settings=CPU)

    assert report.rows_extracted == N_IMAGES
    assert_same_rows(tmp_path / "cache", images, expected)


def test_no_scheduler_is_one_error_that_says_how_to_start_one(images, tmp_path, monkeypatch):
    monkeypatch.setattr(cluster_module, "CONNECT_SECONDS", 0.2)

    with pytest.raises(WorkerError, match=r"tcp://127\.0\.0\.1:1: .*dask scheduler"):
        cache_features(images, make_tiny_backbone(), tmp_path / "cache", engine="dask", scheduler="tcp://127.0.0.1:1")


def test_current_client_is_used_or_asked_for(images, tmp_path):
    with pytest.raises(WorkerError, match=r"Client first"):
        cache_features(images, make_tiny_backbone(), tmp_path / "cache", engine="dask")


@pytest.mark.slow
def test_worker_killed_in_the_middle_of_a_shard_loses_nothing(cluster, images, expected, tmp_path):
    doomed = cluster.add_worker(seconds_a_batch=3.0)
    cluster.add_worker(seconds_a_batch=0.2)
    begun = threading.Event()
    killer = while_running(begun, lambda: (time.sleep(1), doomed.kill()))

    report = cache_features(
        images,
        make_tiny_backbone(),
        tmp_path / "cache",
        settings=CPU,
        engine="dask",
        scheduler=cluster.address,
        n_jobs=2,
        progress=lambda event: begun.set() if event.done else None,
    )
    killer.join()

    assert doomed.wait() == -9
    assert report.rows_extracted + report.rows_cached == N_IMAGES
    assert_same_rows(tmp_path / "cache", images, expected)


@pytest.mark.slow
def test_slow_worker_changes_nothing_but_the_time(cluster, images, expected, tmp_path):
    for seconds in (1.0, 0.0, 0.0):
        cluster.add_worker(seconds_a_batch=seconds)

    report = cache_features(
        images, make_tiny_backbone(), tmp_path / "cache", settings=CPU, engine="dask", scheduler=cluster.address,
        n_jobs=3,
    )  # fmt: skip

    assert report.rows_extracted == N_IMAGES
    assert_same_rows(tmp_path / "cache", images, expected)


@pytest.mark.slow
def test_worker_with_a_full_disk_gets_no_more_parts_and_the_others_do_them(cluster, images, expected, tmp_path):
    cluster.add_worker(file_bytes=2048)
    for _ in range(2):
        cluster.add_worker(seconds_a_batch=0.2)

    report = cache_features(
        images, make_tiny_backbone(), tmp_path / "cache", settings=CPU, engine="dask", scheduler=cluster.address,
        n_jobs=3,
    )  # fmt: skip

    assert report.rows_extracted == N_IMAGES
    assert_same_rows(tmp_path / "cache", images, expected)


@pytest.mark.slow
def test_no_worker_with_room_is_one_error_that_names_each(cluster, images, tmp_path):
    cluster.add_worker(file_bytes=2048)

    with pytest.raises(WorkerError, match=r"No worker could go on(.|\n)*tcp://.*CacheError.*cannot be used"):
        cache_features(
            images, make_tiny_backbone(), tmp_path / "cache", settings=CPU, engine="dask", scheduler=cluster.address
        )


@pytest.mark.slow
def test_job_goes_on_when_the_scheduler_is_started_again(cluster, images, expected, tmp_path):
    for _ in range(2):
        cluster.add_worker(seconds_a_batch=0.5)
    begun = threading.Event()

    def restart() -> None:
        cluster.kill_scheduler()
        time.sleep(2)
        cluster.start_scheduler()
        for _ in range(3):
            cluster.add_worker()

    thread = while_running(begun, restart)
    report = cache_features(
        images,
        make_tiny_backbone(),
        tmp_path / "cache",
        settings=CPU,
        engine="dask",
        scheduler=cluster.address,
        n_jobs=2,
        progress=lambda event: begun.set() if event.done else None,
    )
    thread.join()

    assert report.rows_extracted + report.rows_cached == N_IMAGES
    assert_same_rows(tmp_path / "cache", images, expected)


@pytest.fixture
def hosts() -> Iterator[Hosts]:
    try:
        hosts = Hosts(2)
    except NotPermittedError as exc:
        pytest.skip(str(exc))
    yield hosts
    hosts.close()


@pytest.fixture
def hosted(hosts, tmp_path, monkeypatch) -> Iterator[DaskCluster]:
    """A cluster whose processes find out in seconds that a host is gone; by default that takes half a minute."""
    monkeypatch.setenv("DASK_DISTRIBUTED__COMM__TIMEOUTS__TCP", "12s")
    monkeypatch.setenv("DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL", "20s")
    cluster = DaskCluster(tmp_path, hosts=hosts)
    yield cluster
    cluster.close()


@pytest.mark.slow
@pytest.mark.parametrize("is_unplugged", [False, True], ids=["all-well", "link-down"])
def test_several_hosts_write_what_one_process_writes(hosted, images, expected, tmp_path, is_unplugged):
    far, near = hosted.hosts.others
    hosted.add_worker(seconds_a_batch=2.0 if is_unplugged else 0.0, on=far)
    hosted.add_worker(seconds_a_batch=0.2, on=near)
    command = [sys.executable, "-m", "tests.features.hosted_job", images, tmp_path / "cache", hosted.address]
    inside = hosted.hosts.inside(hosted.host)
    with subprocess.Popen([*inside, *map(str, command)], stdout=subprocess.PIPE, text=True, cwd=ROOT) as job:
        try:
            while (line := job.stdout.readline()).strip() in ("0", ""):
                assert line, "the job ended before it did anything"
            if is_unplugged:
                hosted.hosts.unplug(far)
            report = json.loads(job.communicate(timeout=240)[0].splitlines()[-1])
        finally:
            job.kill()

    assert job.returncode == 0
    assert report["extracted"] + report["cached"] == N_IMAGES
    assert_same_rows(tmp_path / "cache", images, expected)
