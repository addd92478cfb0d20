"""Limits on memory and disk: what is measured stays within them, and the classifier is the same."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from bottleneck import FineTuneSettings, TransferClassifier
from bottleneck.errors import BudgetError, CacheWarning
from bottleneck.finetune import checkpoints
from bottleneck.planner.memory import LOADED_BYTES
from tests.conftest import coloured_images


@pytest.fixture
def make(tiny_backbone, tmp_path):
    """Return a factory of quick classifiers with a cache of their own."""

    def build(**params) -> TransferClassifier:
        defaults = {"strategy": "probe", "cache_dir": tmp_path / "cache", "device": "cpu", "random_state": 0}
        return TransferClassifier(tiny_backbone, **{**defaults, **params})

    return build


def bytes_in(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def smallest(error: BudgetError) -> dict[str, int]:
    """Return the limits that an error says would do."""
    return {name: int(value) for name, value in re.findall(r"(\w+)=(\d+) would do", str(error))}


def test_the_cache_never_grows_beyond_the_disk_limit_and_the_classifier_is_the_same(make, tmp_path):
    images, labels = coloured_images(200)
    new, _ = coloured_images(40, seed=5)
    free = make(cache_dir=tmp_path / "free").fit(images, labels)
    needed = next(cost for cost in free.plan_.costs if cost.part == "disk").predicted.high

    for limit in (5_000, needed - 1, needed):
        folder = tmp_path / f"limited-{limit}"
        classifier = make(cache_dir=folder, disk_limit=limit)
        if limit < needed:
            with pytest.warns(CacheWarning, match=rf"disk_limit={needed:.0f} would keep them"):
                classifier.fit(images, labels)
        else:
            classifier.fit(images, labels)

        assert bytes_in(folder) <= limit
        assert (bytes_in(folder) > 200 * 2 * 52) == (limit >= needed)
        np.testing.assert_array_equal(classifier.predict_proba(images), free.predict_proba(images))
        classifier.predict(new)
        assert bytes_in(folder) <= 3 * limit


def test_a_full_cache_serves_a_run_that_may_not_add_to_it(make, tmp_path):
    images, labels = coloured_images(60)
    make().fit(images, labels)
    before = bytes_in(tmp_path)

    again = make(disk_limit=0).fit(images, labels)

    assert again.cache_report_.rows_extracted == 0
    assert bytes_in(tmp_path) == before


def test_checkpoints_that_do_not_fit_are_left_out(make, tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints, "LEAST_SECONDS", 0.0)
    monkeypatch.setattr(checkpoints, "WRITES_APART", 0)
    written: list[int] = []
    write = checkpoints.write_checkpoint

    def counting(path, *given):
        write(path, *given)
        written.append(bytes_in(tmp_path))

    monkeypatch.setattr(checkpoints, "write_checkpoint", counting)
    images, labels = coloured_images(40)
    settings = FineTuneSettings(steps=2, batch_size=8, folds=1, augment="crop", flip=False)
    run = {"strategy": "finetune", "finetune": settings}

    make(**run, disk_limit=2_000_000, cache_dir=tmp_path / "roomy").fit(images, labels)

    assert written
    assert max(written) <= 2_000_000
    written.clear()
    with pytest.warns(CacheWarning, match="none are written"):
        make(**run, disk_limit=150_000, cache_dir=tmp_path / "tight").fit(images, labels)
    assert not written
    assert bytes_in(tmp_path / "tight") <= 150_000


def test_the_smallest_memory_limit_that_is_named_would_do_and_gives_as_good_a_classifier(make):
    images, labels = coloured_images(300)
    with pytest.raises(BudgetError) as raised:
        make(memory_limit=1).fit(images, labels)

    limited = make(memory_limit=smallest(raised.value)["memory_limit"]).fit(images, labels)

    assert limited.accuracy_cv_ == pytest.approx(make().fit(images, labels).accuracy_cv_, abs=0.02)
    assert limited.predict(images).shape == (300,)


def test_one_error_names_every_limit_that_is_short(make, tmp_path):
    images, labels = coloured_images(30)

    with pytest.raises(BudgetError) as raised:
        make(memory_limit=1_000, disk_limit=0, time_budget=1e-6).fit(images, labels)

    assert set(smallest(raised.value)) == {"memory_limit", "disk_limit", "time_budget"}
    assert bytes_in(tmp_path) == 0


def test_a_batch_of_fine_tuning_goes_through_the_network_in_parts_that_fit(make, monkeypatch):
    largest: list[int] = []
    images, labels = coloured_images(48)
    settings = FineTuneSettings(steps=6, batch_size=32, folds=1, augment="crop", flip=False)
    run = {"strategy": "finetune", "finetune": settings}
    from bottleneck.finetune.probe_network import ProbeNetwork

    forward = ProbeNetwork.forward

    def noting(self, inputs):
        largest.append(len(inputs))
        return forward(self, inputs)

    monkeypatch.setattr(ProbeNetwork, "forward", noting)
    with pytest.raises(BudgetError) as raised:
        make(**run, memory_limit=1).fit(images, labels)

    arrays = smallest(raised.value)["memory_limit"] - LOADED_BYTES
    make(**run, memory_limit=2 * arrays + LOADED_BYTES).fit(images, labels)

    assert 1 <= max(largest) < 32


PEAK = """
import sys, tempfile
import numpy as np
import torch
from torch import nn
from bottleneck import Preprocess, TransferClassifier, load_backbone
from bottleneck.memory import peak_memory, resident_memory

torch.set_num_threads(1)
limit = int(sys.argv[1]) or None
network = nn.Sequential(
    nn.Sequential(nn.Conv2d(3, 96, 3, stride=2), nn.ReLU()),
    nn.Sequential(nn.Conv2d(96, 32, 3, stride=4), nn.ReLU()),
    nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 2),
)
side = 64
backbone = load_backbone(
    network, preprocess=Preprocess(resize=side, crop=(side, side), mean=(0.5,) * 3, std=(0.5,) * 3)
)
n = 1_024
labels = np.arange(n) % 2
images = np.random.default_rng(0).integers(0, 200, (n, 8, 8, 3), dtype=np.uint8)
images[labels == 0, ..., 0] //= 2
def run(rows, **params):
    with tempfile.TemporaryDirectory() as folder:
        given = {"strategy": "probe", "cache_dir": folder, "device": "cpu", "random_state": 0, "batch_size": 512}
        TransferClassifier(backbone, **given, **params).fit(
            images[rows], labels[rows]
        )
run(slice(0, 16), memory_limit=limit)  # what libraries load when they are first used is no array of the run
before = resident_memory()
run(slice(None), memory_limit=limit)
print(peak_memory() - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux says how much memory a process ever had")
def test_resident_memory_grows_by_no_more_than_the_limit():
    def growth(limit: int) -> int:
        done = subprocess.run([sys.executable, "-c", PEAK, str(limit)], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return int(done.stdout)

    limit = 120_000_000

    limited, free = growth(limit), growth(0)

    assert limited <= limit
    assert free > 1.2 * limited
