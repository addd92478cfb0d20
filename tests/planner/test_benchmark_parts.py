"""What the table of cells runs is what ``TransferClassifier`` does."""

import base64
import json
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from bottleneck import Backbone, FineTuneSettings, TransferClassifier
from bottleneck.estimators.planned import expect
from bottleneck.estimators.run import plan_run
from bottleneck.finetune import Expected
from bottleneck.planner import ProbeEvidence
from bottleneck.planner.alternatives import RECIPES
from bottleneck.planner.shapes import recipe_steps
from tests.benchmarks.planner_cells import (
    STRATEGIES,
    Cell,
    Probed,
    Stopwatch,
    run_cell,
    run_probe,
    run_strategy,
    unpacked,
)
from tests.benchmarks.planner_parts import TrainingSet, finetune_in_parts, finetune_plainly
from tests.benchmarks.planner_policies import planner
from tests.benchmarks.planner_replay import known_fields, play
from tests.benchmarks.planner_tasks import TaskImages
from tests.finetune.tasks import colour_blind_backbone, coloured_noise

CELL = Cell(task="tinted", backbone="colour blind", n=60, seed=3)
SETTINGS = FineTuneSettings(steps=6, lr=0.1, lr_decay=1.0, folds=3, acceptance_z=0.0)


def tinted_noise(n_images: int, *, seed: int) -> tuple[NDArray[np.uint8], NDArray[np.str_]]:
    """Return noise of three colours that a colour cast hides in part, and their names: few networks agree on all."""
    pixels, names = coloured_noise(n_images, seed=seed, n_classes=3)
    cast = np.random.default_rng(seed).normal(scale=30, size=(n_images, 1, 1, 3))
    return np.clip(pixels + cast, 0, 255).astype(np.uint8), names


@pytest.fixture(scope="module")
def images() -> TaskImages:
    pool, labels = tinted_noise(CELL.n, seed=0)
    test, test_labels = tinted_noise(100, seed=9)
    return TaskImages(pool=pool, labels=labels, test=test, test_labels=test_labels)


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    """Return a network whose features do not tell the classes apart: fine-tuning has everything to gain."""
    return colour_blind_backbone()


@pytest.fixture(scope="module")
def probed(images, backbone, tmp_path_factory) -> Probed:
    return run_probe(CELL, images, np.arange(CELL.n), backbone, cache_dir=str(tmp_path_factory.mktemp("probed")))


@pytest.fixture(scope="module")
def given(probed) -> TrainingSet:
    return TrainingSet(
        run=probed.run, head=probed.probe.head, features=probed.features.layers["penultimate"], test=probed.test
    )


@pytest.fixture(scope="module")
def expected(probed) -> Expected | None:
    return expect(plan_run(probed.run, probed.probe.evidence), probed.probe.layers)


@pytest.fixture
def classify(images, backbone, tmp_path) -> Callable[[str, FineTuneSettings], TransferClassifier]:
    """Return a function that makes the library's own classifier of the cell's images."""

    def fit(strategy: str, settings: FineTuneSettings) -> TransferClassifier:
        classifier = TransferClassifier(
            backbone, strategy=strategy, finetune=settings, cache_dir=tmp_path, random_state=CELL.seed
        )
        return classifier.fit(images.pool, images.labels)

    return fit


def assert_delivered(classifier: TransferClassifier, codes: NDArray[np.generic], images: TaskImages) -> None:
    """Compare with what the classifier predicts for the test images that it is not of two minds about.

    It predicts from features, which may be bfloat16: these changed probabilities by 0.005.
    """
    proba = classifier.predict_proba(images.test)
    second, first = np.sort(proba, axis=1)[:, -2:].T
    decided = first - second > 0.02
    assert decided.mean() >= 0.8
    np.testing.assert_array_equal(codes[decided], proba.argmax(axis=1)[decided])


def probe_codes(probed: Probed) -> NDArray[np.uint8]:
    """Return the classes that the probe predicts for the test images."""
    return probed.codes_of(probed.probe.head.predict(probed.test_features["penultimate"]))


@pytest.mark.parametrize("settings", [SETTINGS, replace(SETTINGS, folds=1), replace(SETTINGS, refit="anew")])
def test_fine_tuning_in_parts_delivers_what_the_classifier_does(images, probed, given, expected, classify, settings):
    classifier = classify("finetune", settings)

    tuned = finetune_in_parts(given, settings, Stopwatch(), expected)

    assert tuned.accepted
    assert classifier.strategy_ == "finetune"
    assert_delivered(classifier, tuned.path_codes[tuned.place], images)
    assert classifier.accuracy_cv_ == pytest.approx(tuned.comparison.tuned_accuracy)
    # Another network would be noticed: the probe, and those elsewhere on the path, predict other classes.
    others = [*tuned.path_codes, probe_codes(probed)]
    del others[tuned.place]
    for other in others:
        with pytest.raises(AssertionError):
            assert_delivered(classifier, other, images)


def test_refused_fine_tuning_delivers_the_probe_and_still_has_its_network(images, probed, given, expected, classify):
    gentle = replace(SETTINGS, lr=0.01)
    never = replace(gentle, acceptance_z=1e9)
    classifier = classify("finetune", never)

    refused = finetune_in_parts(given, never, Stopwatch(), expected)

    assert not refused.accepted
    assert not refused.stopped
    assert classifier.strategy_ == "probe"
    np.testing.assert_array_equal(probe_codes(probed), probed.codes_of(classifier.predict(images.test)))
    accepted = finetune_in_parts(given, gentle, Stopwatch(), expected)
    assert accepted.accepted
    np.testing.assert_array_equal(refused.path_codes, accepted.path_codes)
    assert refused.steps == 6


def test_plain_fine_tuning_is_one_training_from_the_probe_to_the_end_of_its_path(given, expected):
    anew, watch = replace(SETTINGS, refit="anew"), Stopwatch()

    plain = finetune_plainly(given, anew, watch)

    [codes] = plain.path_codes
    np.testing.assert_array_equal(codes, finetune_in_parts(given, anew, Stopwatch(), expected).path_codes[-1])
    assert plain.accepted
    assert plain.comparison is None
    assert list(watch.parts) == ["decode", "mirror", "training 0"]


def test_plain_fine_tuning_that_diverges_begins_again_at_lower_rates_until_none_are_left(given):
    watch = Stopwatch()

    plain = finetune_plainly(given, replace(SETTINGS, lr=1e12), watch)

    assert plain.path_codes is None
    assert not plain.accepted
    assert "the loss became" in plain.stopped
    assert [part for part in watch.parts if "training" in part] == [f"training {times}" for times in (0, 1, 3, 5, 6)]


def test_plain_fine_tuning_takes_as_many_steps_as_a_network_that_is_compared(probed):
    record = run_strategy("raw_far", probed, replace(SETTINGS, steps="auto", batch_size=4))

    assert record["steps"] == 8 * recipe_steps(CELL.n)  # which are of 32 images


def test_records_of_a_cell_are_the_classifiers_and_can_be_replayed(images, probed, backbone, classify):
    lines = [
        json.dumps(record)
        for record in run_cell(CELL, images, np.arange(CELL.n), backbone, strategies=STRATEGIES, settings=SETTINGS)
    ]

    records = {record["strategy"]: record for record in map(json.loads, lines)}
    assert list(records) == list(STRATEGIES)
    for strategy in ("probe", "all_stages_probe"):
        classifier = classify(strategy, SETTINGS)
        codes = probed.codes_of(classifier.predict(images.test))
        np.testing.assert_array_equal(unpacked(records[strategy]["predictions"]), codes)
        assert records[strategy]["accuracy"] == classifier.score(images.test, images.test_labels)
    [played] = play(records.values())
    for regime, (lr, lr_decay) in RECIPES.items():
        tuned, raw = records[f"finetune_{regime}"], records[f"raw_{regime}"]
        classifier = classify("finetune", replace(SETTINGS, lr=lr, lr_decay=lr_decay))
        comparison = tuned["comparison"]
        assert tuned["accepted"]
        assert classifier.strategy_ == "finetune"
        assert classifier.accuracy_cv_ == pytest.approx(comparison["probe_accuracy"] + comparison["gain"])
        assert_delivered(classifier, unpacked(tuned["predictions"]), images)
        assert tuned["start_predictions"] == records["probe"]["predictions"]
        assert raw["path_predictions"] == [raw["predictions"]]
        assert played.deliveries[f"finetune_{regime}"].accuracy == tuned["accuracy"]
        assert played.deliveries[f"raw_{regime}"].accuracy == raw["accuracy"]
        margins = np.frombuffer(base64.b64decode(tuned["held_out"]["margin"]), dtype=np.float16).reshape(CELL.n, -1)
        accuracies = [point["accuracy"] for point in comparison["path"]]
        np.testing.assert_allclose((margins > 0).mean(axis=0), accuracies, rtol=1e-6)
    assert played.deliveries["scratch"].accuracy == records["scratch"]["accuracy"]
    assert planner(played.evidence, played.profile) in played.deliveries
    assert known_fields(ProbeEvidence, json.loads(json.dumps(records["probe"]["evidence"]))) == played.evidence
