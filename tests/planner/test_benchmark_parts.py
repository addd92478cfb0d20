"""What the table of cells runs is what ``TransferClassifier`` does."""

import base64
import json
from dataclasses import replace

import numpy as np
import pytest

from bottleneck import FineTuneSettings, Plan, TransferClassifier
from tests.benchmarks.planner_cells import STRATEGIES, Cell, Stopwatch, run_cell, run_probe, unpacked
from tests.benchmarks.planner_parts import TrainingSet, finetune_in_parts
from tests.benchmarks.planner_replay import planner, play
from tests.benchmarks.planner_tasks import TaskImages
from tests.conftest import coloured_images

SETTINGS = FineTuneSettings(steps=6, lr=0.05, lr_decay=1.3, folds=3, acceptance_z=0.0)


@pytest.fixture(scope="module")
def images() -> TaskImages:
    pool, labels = coloured_images(60, seed=1)
    labels = labels ^ (np.random.default_rng(0).random(60) < 0.2)
    test, test_labels = coloured_images(40, seed=2)
    return TaskImages(pool=pool, labels=labels, test=test, test_labels=test_labels)


@pytest.fixture
def probed(images, tiny_backbone, tmp_path):
    cell = Cell(task="coloured", backbone="tiny", n=60, seed=3)
    return run_probe(cell, images, np.arange(60), tiny_backbone, cache_dir=str(tmp_path))


def test_fine_tuning_in_parts_delivers_what_the_classifier_does(images, probed, tiny_backbone, tmp_path):
    given = TrainingSet(
        run=probed.run, head=probed.probe.head, features=probed.features.layers["penultimate"], test=probed.test
    )
    classifier = TransferClassifier(
        tiny_backbone, strategy="finetune", finetune=SETTINGS, cache_dir=tmp_path / "own", random_state=3
    ).fit(images.pool, images.labels)

    tuned = finetune_in_parts(given, SETTINGS, Stopwatch())

    assert (tuned.codes is not None) == (classifier.strategy_ == "finetune")
    codes = tuned.codes if tuned.codes is not None else probed.probe.head.predict(probed.test_features["penultimate"])
    np.testing.assert_array_equal(codes, classifier.predict(images.test))
    assert classifier.accuracy_cv_ == pytest.approx(
        tuned.comparison.tuned_accuracy if tuned.codes is not None else probed.probe.head.accuracy_cv_
    )


def test_refused_fine_tuning_still_has_its_network(probed):
    given = TrainingSet(
        run=probed.run, head=probed.probe.head, features=probed.features.layers["penultimate"], test=probed.test
    )

    tuned = finetune_in_parts(given, replace(SETTINGS, acceptance_z=1e9), Stopwatch())

    assert tuned.codes is None
    assert tuned.path_codes is not None
    assert tuned.comparison is not None
    assert tuned.steps == 6


def test_records_of_a_cell_are_the_classifiers_and_can_be_replayed(images, tiny_backbone, tmp_path):
    cell = Cell(task="coloured", backbone="tiny", n=60, seed=3)

    lines = [
        json.dumps(record)
        for record in run_cell(cell, images, np.arange(60), tiny_backbone, strategies=STRATEGIES, settings=SETTINGS)
    ]

    records = [json.loads(line) for line in lines]
    assert [record["strategy"] for record in records] == list(STRATEGIES)
    for record in records[:2]:
        classifier = TransferClassifier(
            tiny_backbone, strategy=record["strategy"], cache_dir=tmp_path, random_state=3
        ).fit(images.pool, images.labels)
        np.testing.assert_array_equal(unpacked(record["predictions"]), classifier.predict(images.test))
        assert record["accuracy"] == classifier.score(images.test, images.test_labels)
    [played] = play(records)
    assert played.deliveries["finetune_far"].accuracy == records[3]["accuracy"]
    assert played.deliveries["raw_far"].accuracy == records[3]["raw_accuracy"]
    margins = np.frombuffer(base64.b64decode(records[3]["held_out"]["margin"]), dtype=np.float16).reshape(60, -1)
    accuracies = [point["accuracy"] for point in records[3]["comparison"]["path"]]
    np.testing.assert_allclose((margins > 0).mean(axis=0), accuracies, rtol=1e-6)
    assert records[3]["path_accuracy"][-1] == records[3]["raw_accuracy"]
    assert planner(played.evidence, played.profile) in played.deliveries
    assert Plan.from_json(json.dumps(records[0]["plan"])).request.evidence == played.evidence
