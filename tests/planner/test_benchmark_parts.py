"""What the table of cells runs is what ``TransferClassifier`` does."""

import base64
import json
from dataclasses import replace

import numpy as np
import pytest

from bottleneck import FineTuneSettings, Plan, TransferClassifier
from bottleneck.estimators.run import expect, plan_run
from bottleneck.finetune import Expected
from bottleneck.finetune.compare import ALPHAS
from bottleneck.planner.alternatives import RECIPES
from tests.benchmarks.planner_cells import STRATEGIES, Cell, Stopwatch, run_cell, run_probe, unpacked
from tests.benchmarks.planner_parts import TrainingSet, finetune_in_parts, finetune_plainly
from tests.benchmarks.planner_replay import planner, play
from tests.benchmarks.planner_tasks import TaskImages
from tests.conftest import coloured_images

SETTINGS = FineTuneSettings(steps=6, lr=0.05, lr_decay=1.3, folds=3, acceptance_z=0.0)
CELL = Cell(task="coloured", backbone="tiny", n=60, seed=3)


@pytest.fixture(scope="module")
def images() -> TaskImages:
    pool, labels = coloured_images(60, seed=1)
    labels = labels ^ (np.random.default_rng(0).random(60) < 0.2)
    test, test_labels = coloured_images(40, seed=2)
    return TaskImages(pool=pool, labels=labels, test=test, test_labels=test_labels)


@pytest.fixture
def probed(images, tiny_backbone, tmp_path):
    return run_probe(CELL, images, np.arange(60), tiny_backbone, cache_dir=str(tmp_path))


@pytest.fixture
def training_set(probed):
    return TrainingSet(
        run=probed.run, head=probed.probe.head, features=probed.features.layers["penultimate"], test=probed.test
    )


@pytest.fixture
def expected(probed) -> Expected | None:
    plan = plan_run(replace(probed.run, strategy="finetune"), probed.probe.evidence)
    return expect(plan, probed.probe)


@pytest.fixture
def classify(images, tiny_backbone, tmp_path):
    """Return a function that fits the library's own classifier to the images of the cell."""

    def fit(strategy: str, settings: FineTuneSettings = SETTINGS) -> TransferClassifier:
        classifier = TransferClassifier(
            tiny_backbone, strategy=strategy, finetune=settings, cache_dir=tmp_path / "own", random_state=CELL.seed
        )
        return classifier.fit(images.pool, images.labels)

    return fit
