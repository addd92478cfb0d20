"""The batch job: resumable, parallel, and honest about what it could not read."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from bottleneck import FeatureCache, cache_features
from bottleneck.errors import InvalidInputError, SkippedImagesWarning, UnreadableImagesError
from bottleneck.extraction import ExtractionSettings
from bottleneck.features import compute_features
from bottleneck.images import as_image_source
from tests.conftest import coloured_images, make_tiny_backbone

CPU = ExtractionSettings(device="cpu", precision="float32", workers=0, batch_size=4)


def all_features(backbone, images, cache) -> np.ndarray:
    from bottleneck.extraction import Extractor

    found = compute_features(as_image_source(images), Extractor(backbone, CPU), cache, precision="float32")
    assert found.report.rows_extracted == 0
    return found.layers["penultimate"]


def test_report_counts_what_was_extracted_found_and_skipped(tiny_backbone, image_folder, tmp_path):
    bad = image_folder / "bluish" / "000.png"
    bad.write_bytes(b"")

    with pytest.warns(SkippedImagesWarning, match=r"000\.png"):
        first = cache_features(image_folder, tiny_backbone, tmp_path / "cache", settings=CPU, on_error="skip")
    with pytest.warns(SkippedImagesWarning):
        second = cache_features(image_folder, tiny_backbone, tmp_path / "cache", settings=CPU, on_error="skip")

    assert (first.rows_extracted, first.rows_cached, first.rows_skipped) == (23, 0, 1)
    assert (second.rows_extracted, second.rows_cached, second.rows_skipped) == (0, 23, 1)
    assert first.space == second.space
    assert first.images_per_second > 0


def test_unreadable_images_are_raised_together_after_the_good_ones_are_cached(tiny_backbone, image_folder, tmp_path):
    bad = [image_folder / "bluish" / "000.png", image_folder / "reddish" / "003.png"]
    for path in bad:
        path.write_bytes(b"<html></html>")

    with pytest.raises(UnreadableImagesError) as caught:
        cache_features(image_folder, tiny_backbone, tmp_path / "cache", settings=CPU)

    assert {failure.id for failure in caught.value.failures} == {str(path) for path in bad}
    (space,) = FeatureCache(tmp_path / "cache").spaces()
    assert FeatureCache(tmp_path / "cache").space(space).n_rows == 22


def test_mistyped_on_error_is_named_before_any_work(tiny_backbone, tmp_path):
    with pytest.raises(InvalidInputError, match="'on_error' parameter"):
        cache_features([], tiny_backbone, tmp_path / "cache", on_error="ignore")


def test_two_processes_write_what_one_writes_bit_for_bit(tiny_backbone, tmp_path):
    images, _ = coloured_images(40)
    one = cache_features(images, tiny_backbone, tmp_path / "one", settings=CPU)
    two = cache_features(images, tiny_backbone, tmp_path / "two", settings=CPU, n_jobs=2)

    expected = all_features(tiny_backbone, images, FeatureCache(tmp_path / "one"))
    found = all_features(tiny_backbone, images, FeatureCache(tmp_path / "two"))

    assert (one.rows_extracted, two.rows_extracted) == (40, 40)
    assert np.array_equal(found, expected)


class KillsOneProcess:
    """A map-style data set: the process that reads row 17 first is killed, in the middle of its part."""

    def __init__(self, images: np.ndarray, flag: Path) -> None:
        self.images, self.flag = images, flag

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, row: int) -> np.ndarray:
        if row == 17 and self.flag.exists():
            self.flag.unlink()
            os.kill(os.getpid(), signal.SIGKILL)
        return self.images[row]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:A worker stopped while some jobs were given:UserWarning")
def test_four_processes_of_which_one_is_killed_write_what_one_writes(tiny_backbone, tmp_path):
    images, _ = coloured_images(96)
    cache_features(images, tiny_backbone, tmp_path / "one", settings=CPU)
    (tmp_path / "flag").touch()

    report = cache_features(
        KillsOneProcess(images, tmp_path / "flag"), tiny_backbone, tmp_path / "four", settings=CPU, n_jobs=4
    )

    cache = FeatureCache(tmp_path / "four")
    expected = all_features(tiny_backbone, images, FeatureCache(tmp_path / "one"))
    assert not (tmp_path / "flag").exists()
    assert report.rows_extracted + report.rows_cached == 96
    assert [cache.space(space).n_rows for space in cache.spaces()] == [96]
    assert np.array_equal(all_features(tiny_backbone, images, cache), expected)


def test_shards_by_themselves_fill_the_cache_like_one_job(tiny_backbone, tmp_path):
    images, _ = coloured_images(50)
    cache_features(images, tiny_backbone, tmp_path / "one", settings=CPU)

    reports = [
        cache_features(images, tiny_backbone, tmp_path / "shards", settings=CPU, shard=(i, 3)) for i in (2, 1, 3)
    ]

    assert [report.rows_extracted for report in reports] == [16, 16, 18]
    expected = all_features(tiny_backbone, images, FeatureCache(tmp_path / "one"))
    assert np.array_equal(all_features(tiny_backbone, images, FeatureCache(tmp_path / "shards")), expected)


def test_share_names_an_unreadable_image_by_its_row_of_the_whole(tiny_backbone, image_folder, tmp_path):
    paths = sorted(image_folder.rglob("*.png"))
    paths[20].write_bytes(b"")

    with pytest.warns(SkippedImagesWarning):
        report = cache_features(paths, tiny_backbone, tmp_path / "cache", settings=CPU, on_error="skip", shard=(2, 2))

    assert [(failure.row, failure.id) for failure in report.failures] == [(20, str(paths[20]))]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"engine": "dsk"}, r"'engine' parameter.*Did you mean 'dask'"),
        ({"scheduler": "tcp://here:1"}, r"'scheduler' parameter.*engine='dask'"),
        ({"n_jobs": 0}, "'n_jobs' parameter"),
        ({"shard": (3, 2)}, "'shard' parameter"),
    ],
)
def test_mistyped_parameter_is_named_before_any_work(tiny_backbone, tmp_path, wrong, said):
    images, _ = coloured_images(4)

    with pytest.raises(InvalidInputError, match=said):
        cache_features(images, tiny_backbone, tmp_path / "cache", settings=CPU, **wrong)

    assert not (tmp_path / "cache").exists()


KILLED_JOB = """
import sys, time
sys.path.insert(0, sys.argv[2])
from tests.conftest import coloured_images, make_tiny_backbone
from bottleneck import cache_features
from bottleneck.extraction import ExtractionSettings, Extractor
from bottleneck.features import chunks
chunks.SHARD_SECONDS = 0.0

class Slow(Extractor):
    def _forward_once(self, pixels, precision):
        time.sleep(0.05)
        return super()._forward_once(pixels, precision)

from bottleneck.features import job
job.Extractor = Slow
settings = ExtractionSettings(device="cpu", precision="float32", workers=0, batch_size=4)
print("started", flush=True)
cache_features(coloured_images(120)[0], make_tiny_backbone(), sys.argv[1], settings=settings)
"""


def test_killed_job_goes_on_after_its_last_finished_shard(tmp_path):
    images, _ = coloured_images(120)
    backbone = make_tiny_backbone()
    cache_features(images, backbone, tmp_path / "whole", settings=CPU)
    expected = all_features(backbone, images, FeatureCache(tmp_path / "whole"))
    rng = np.random.RandomState(0)

    for _ in range(4):
        command = [sys.executable, "-c", KILLED_JOB, str(tmp_path / "killed"), str(Path(__file__).parents[2])]
        job = subprocess.Popen(command, stdout=subprocess.PIPE)
        assert job.stdout is not None
        assert job.stdout.readline() == b"started\n"
        n_shards = len(list((tmp_path / "killed").rglob("*.h5")))
        while len(list((tmp_path / "killed").rglob("*.h5"))) <= n_shards and job.poll() is None:
            time.sleep(0.005)
        time.sleep(rng.uniform(0, 0.1))
        os.kill(job.pid, signal.SIGKILL)
        job.wait()
        job.stdout.close()
    on_disk = sum(
        FeatureCache(tmp_path / "killed").space(space).n_rows for space in FeatureCache(tmp_path / "killed").spaces()
    )
    report = cache_features(images, backbone, tmp_path / "killed", settings=CPU)

    assert 0 < on_disk < 120
    assert report.rows_cached == on_disk
    assert report.rows_extracted == 120 - on_disk
    assert np.array_equal(all_features(backbone, images, FeatureCache(tmp_path / "killed")), expected)


SHARED_JOB = """
import sys
sys.path.insert(0, sys.argv[2])
from tests.conftest import coloured_images, make_tiny_backbone
from bottleneck import cache_features
from bottleneck.extraction import ExtractionSettings
from bottleneck.features import chunks
chunks.CHUNK_ROWS = 24
settings = ExtractionSettings(device="cpu", precision="float32", workers=0, batch_size=4)
report = cache_features(coloured_images(240)[0], make_tiny_backbone(), sys.argv[1], settings=settings)
print(report.rows_extracted, report.rows_cached)
"""


def test_processes_with_the_same_images_share_the_work_and_store_every_row_once(tmp_path):
    images, _ = coloured_images(240)
    backbone = make_tiny_backbone()
    cache_features(images, backbone, tmp_path / "alone", settings=CPU)
    command = [sys.executable, "-c", SHARED_JOB, str(tmp_path / "shared"), str(Path(__file__).parents[2])]

    jobs = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    counts = np.array([job.communicate(timeout=300)[0].split() for job in jobs], int)

    assert counts.sum(axis=1).tolist() == [240, 240]
    assert counts[:, 0].sum() == 240
    cache = FeatureCache(tmp_path / "shared")
    assert [cache.space(space).n_rows for space in cache.spaces()] == [240]
    assert list((tmp_path / "shared").rglob("*.keys")) == []
    expected = all_features(backbone, images, FeatureCache(tmp_path / "alone"))
    np.testing.assert_allclose(all_features(backbone, images, cache), expected, rtol=2e-3, atol=1e-4)
