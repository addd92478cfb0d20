"""What the parts of a run are measured to take."""

import time

from bottleneck import FineTuneSettings, TransferClassifier
from tests.conftest import coloured_images


def test_after_a_fit_the_plan_says_what_each_part_took(tiny_backbone, tmp_path):
    images, labels = coloured_images(60)
    settings = FineTuneSettings(steps=4, batch_size=8, folds=2, augment="crop", flip=False)
    classifier = TransferClassifier(
        tiny_backbone, strategy="finetune", finetune=settings, cache_dir=tmp_path / "cache", device="cpu"
    )

    began = time.monotonic()
    classifier.fit(images, labels)
    whole = time.monotonic() - began

    costs = {cost.part: cost for cost in classifier.plan_.costs}
    took = {part: cost.actual for part, cost in costs.items() if cost.unit == "seconds" and cost.actual is not None}
    assert {"preparation", "features", "heads", "folds", "total"} <= took.keys()
    assert all(seconds > 0 for seconds in took.values())
    assert 0.8 * took["total"] < sum(took.values()) - took["total"] <= took["total"] <= whole
    shards = (tmp_path / "cache").rglob("*.h5")
    assert costs["disk"].actual == sum(path.stat().st_size for path in shards)
    assert costs["disk"].actual <= costs["disk"].predicted.high
    assert costs["total"].updated is not None


def test_a_fit_from_the_cache_adds_nothing_to_it(tiny_backbone, tmp_path):
    images, labels = coloured_images(24)
    given = {"strategy": "probe", "cache_dir": tmp_path / "cache", "device": "cpu"}
    TransferClassifier(tiny_backbone, **given).fit(images, labels)

    again = TransferClassifier(tiny_backbone, **given).fit(images, labels)

    disk = next(cost for cost in again.plan_.costs if cost.part == "disk")
    assert (disk.predicted.high, disk.actual) == (0, 0)
