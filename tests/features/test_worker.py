"""A worker by itself: it takes an order once, and reports trouble instead of raising."""

import dataclasses
import pickle
from pathlib import Path

import pytest

from bottleneck import FeatureCache
from bottleneck.extraction import ExtractionSettings
from bottleneck.features import worker as worker_module
from bottleneck.features.engines import ParallelJob, _order, _ordered
from bottleneck.features.worker import cache_part, pack, pinned_device
from bottleneck.images import as_image_source, part_of
from tests.conftest import coloured_images, make_tiny_backbone

CPU = ExtractionSettings(device="cpu", precision="float32", workers=0, batch_size=4)


@pytest.fixture
def job(tmp_path: Path) -> ParallelJob:
    images, _ = coloured_images(12)
    cache = FeatureCache(tmp_path / "cache")
    return ParallelJob(
        source=as_image_source(images), rows=range(12), backbone=make_tiny_backbone(), settings=CPU, cache=cache
    )


def part(job: ParallelJob, rows: range) -> tuple[object, range]:
    return part_of(job.source, rows), rows


def test_backbone_is_loaded_once_for_all_parts_of_a_job(job, monkeypatch):
    loaded = []
    unpack = worker_module._unpack
    monkeypatch.setattr(worker_module, "_unpack", lambda packed: loaded.append(1) or unpack(packed))

    with _ordered(job, "float32", n_workers=1, shard_seconds=15.0) as order:
        reports = [cache_part(pack(order), order.token, *part(job, range(i, i + 4))) for i in (0, 4, 8)]

    assert len(loaded) == 1
    assert [(report.rows_extracted, report.rows_readable, report.trouble) for report in reports] == [(4, 4, "")] * 3


def test_report_is_small_and_holds_no_features(job):
    with _ordered(job, "float32", n_workers=1, shard_seconds=15.0) as order:
        report = cache_part(pack(order), order.token, *part(job, range(12)))

    assert len(pickle.dumps(report)) < 600


def test_worker_that_sees_another_folder_reports_trouble(job, monkeypatch):
    monkeypatch.setattr(worker_module, "FOLDER_SECONDS", (0.0,))
    order = _order(job, "float32", n_workers=1, shard_seconds=15.0)

    report = cache_part(pack(order), order.token, *part(job, range(4)))

    assert "not the one that the job was started with" in report.trouble
    assert report.rows_extracted == 0


def test_worker_in_trouble_computes_nothing_more_for_the_same_job(job):
    with _ordered(job, "float32", n_workers=1, shard_seconds=15.0) as order:
        packed = pack(order)
        assert not cache_part(packed, order.token, *part(job, range(4))).trouble
        taken = worker_module._taken[order.token]
        taken.trouble = "the disk is full"

        report = cache_part(packed, order.token, *part(job, range(4, 8)))
        again = cache_part(packed, f"{order.token}-again", *part(job, range(4, 8)))

    assert (report.trouble, report.rows_extracted) == ("the disk is full", 0)
    assert (again.trouble, again.rows_extracted) == ("", 4)


@pytest.mark.parametrize(
    ("asked", "n_devices", "name", "device"),
    [
        ("auto", 8, "LokyProcess-3", "cuda:3"),
        ("auto", 8, "LokyProcess-11", "cuda:3"),
        ("auto", 1, "LokyProcess-3", "auto"),
        ("auto", 0, "LokyProcess-3", "auto"),
        ("cuda:1", 8, "LokyProcess-3", "cuda:1"),
        ("auto", 8, "MainProcess", "auto"),
    ],
)
def test_processes_of_one_machine_take_turns_at_its_devices(asked, n_devices, name, device):
    assert pinned_device(asked, n_devices, name) == device


def test_part_of_array_or_list_travels_without_the_other_rows(job):
    images, _ = coloured_images(2000)
    whole = as_image_source(images)

    few = part_of(whole, range(10, 14))

    assert len(pickle.dumps(few)) < 4 * images[0].nbytes + 2000
    assert [few.read(i).tolist() for i in range(4)] == [whole.read(10 + i).tolist() for i in range(4)]
    assert dataclasses.is_dataclass(few)
