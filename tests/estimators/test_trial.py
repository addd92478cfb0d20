"""A trial of fine-tuning: a few steps on one fold, as fine-tuning itself would take them, and whatever may end it."""

import time
from dataclasses import replace

import numpy as np
import pytest
import torch

from bottleneck import FineTuneSettings, TransferClassifier, load_backbone
from bottleneck.errors import FallbackWarning
from bottleneck.estimators import trial as trial_module
from bottleneck.estimators.opening import open_run
from bottleneck.estimators.run import extract_run, fit_probe, plan_run
from bottleneck.estimators.trial import run_trial, try_first
from bottleneck.features import Features
from bottleneck.finetune.compare import HeldOut, compare
from bottleneck.finetune.crossfit import fit_fold
from bottleneck.finetune.groups import recipe_for
from bottleneck.finetune.handoff import image_weights
from bottleneck.finetune.job import open_job
from bottleneck.finetune.probe import Probe as FoldProbe
from bottleneck.finetune.probe import codes_of
from bottleneck.planner import LinearProbe
from bottleneck.progress import silent
from tests.finetune.tasks import PREPROCESS, ColourBlind, coloured_noise

STEPS = FineTuneSettings(steps=36, batch_size=20, flip=False, precision="float32", check_rates=False)


@pytest.fixture(scope="module")
def blind():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return load_backbone(ColourBlind(), preprocess=PREPROCESS)


@pytest.fixture
def make(blind, tmp_path):
    """Return a factory of classifiers that decide for themselves whether to fine-tune."""

    def build(**params) -> TransferClassifier:
        given = {"cache_dir": tmp_path, "device": "cpu", "random_state": 0, "finetune": STEPS}
        return TransferClassifier(blind, **{**given, **params})

    return build


@pytest.fixture(scope="module")
def data():
    return coloured_noise(60, seed=0)


def waiting(classifier, X, y, **given):
    """Return a run whose plan waits for a trial, the probe, the plan and the features."""
    run = open_run(classifier, X, y, progress=given.pop("progress", silent), **given)
    features = extract_run(run, "raise")
    probe = fit_probe(run, features)
    plan = plan_run(run, probe.evidence)
    assert plan.needs_trial  # two classes: unlike anything that the gain was learned from
    return run, probe, plan, features


def tried(classifier, X, y, **given):
    run, probe, plan, features = waiting(classifier, X, y, **given)
    return run_trial(run, plan.trial, probe, features, limit=plan.training_limit, began=time.monotonic())


def test_a_run_of_a_trial_is_the_last_fold_of_a_fine_tuning_of_so_many_steps(make, blind, data):
    run, probe, plan, features = waiting(make(), *data)
    assert isinstance(features, Features)
    recipe = plan.trial.recipes[0]
    lr = recipe.lr * STEPS.batch_size / recipe.batch_size
    settings = replace(STEPS, lr=lr, lr_decay=recipe.lr_decay, folds=3)

    found = run_trial(run, plan.trial, probe, features, limit=None, began=time.monotonic())

    penultimate = features.layers["penultimate"]
    whole = FoldProbe(head=probe.head, features=penultimate, labels=run.labels, sample_weight=np.ones(60))
    given = {"device": torch.device("cpu"), "seed": 0, "workers": 0, "memory_limit": None, "deadline": None}
    job = open_job(
        run.source,
        backbone=blind,
        recipe=recipe_for(blind, settings, n_images=60),
        weights=image_weights(whole),
        clock=time.monotonic,
        progress=silent,
        history=[],
        **given,
    )
    folds = whole.deal_folds(3, np.random.default_rng(0))
    train, held = np.flatnonzero(folds.train[-1]), np.flatnonzero(folds.held_out[-1])
    head = whole.refitted_on(train, seed=0)
    _, kept = fit_fold(job, whole, head, train, held, stage="by hand", steps=12, n_folds_left=1)
    scores = {name: tensor.numpy() for name, tensor in kept.tensors.items()}
    by_hand = compare(HeldOut(**scores, weights=job.weights[held], groups=held), z=0.5)
    assert (found.n_images, found.steps) == (len(held), 12)
    first = found.runs[0]
    # Linear algebra may round otherwise where an array lies elsewhere in memory, and training amplifies it.
    expected = (by_hand.measured, by_hand.standard_error, by_hand.alpha)
    assert (first.gain, first.standard_error, first.alpha) == pytest.approx(expected, abs=1e-6)
    assert len(codes_of(run.labels, probe.head)) == 60


def test_the_same_seed_gives_the_same_trial(make, data):
    first, second = (tried(make(), *data) for _ in range(2))

    assert (first.n_images, first.steps, first.starts_from) == (second.n_images, second.steps, second.starts_from)
    assert [run.regime for run in first.runs] == [run.regime for run in second.runs]
    measured, again = ([(run.gain, run.standard_error, run.alpha) for run in trial.runs] for trial in (first, second))
    assert np.asarray(measured) == pytest.approx(np.asarray(again), abs=1e-6)
    assert {found.regime for found in first.runs} == {"near", "far"}
    assert first.stopped == ""


def test_a_fit_plans_again_with_what_the_trial_showed(make, data):
    settings = replace(STEPS, steps=40)

    classifier = make(finetune=settings).fit(*data)

    evidence = classifier.plan_.request.evidence
    assert evidence.trial is not None
    assert evidence.spent_seconds > evidence.trial.seconds > 0
    assert not classifier.plan_.needs_trial
    assert "trial" in [reason.rule for reason in classifier.plan_.reasons]
    assert classifier.accuracy_cv_ >= evidence.accuracy


def test_settings_that_make_the_recipes_alike_are_tried_once(make, data):
    found = tried(make(finetune=replace(STEPS, lr=0.02, lr_decay=1.5)), *data)

    assert len(found.runs) == 1


def test_recipes_whose_rates_a_network_does_not_bear_are_lowered_to_one(make, data, monkeypatch):
    trained = []
    fit_path = trial_module.fit_path
    monkeypatch.setattr(
        trial_module,
        "fit_path",
        lambda job, *args, **given: trained.append(job.recipe) or fit_path(job, *args, **given),
    )

    found = tried(make(finetune=replace(STEPS, check_rates=True)), *data)

    assert [each.regime for each in found.runs] == ["far"]
    assert [recipe.learning_rates[-1] < 0.1 for recipe in trained] == [True]


def test_rows_without_weight_are_no_rows_of_a_trial(make, data):
    X, y = data
    weight = np.r_[np.ones(48), np.zeros(12)]

    weighted, without = tried(make(), X, y, sample_weight=weight), tried(make(), X[:48], y[:48])

    assert (weighted.n_images, weighted.runs) == (without.n_images, without.runs)


def test_no_more_images_are_opened_than_the_runs_look_at(make, data, monkeypatch):
    monkeypatch.setattr(trial_module, "TRIAL_HELD_OUT", 8)
    opened: list[int] = []
    open_all = trial_module.open_job
    monkeypatch.setattr(
        trial_module, "open_job", lambda source, **given: opened.append(len(source)) or open_all(source, **given)
    )

    found = tried(make(finetune=replace(STEPS, steps=1)), *data)

    assert opened == [20 + 8]
    assert found.n_images == 8


def test_ctrl_c_in_a_trial_delivers_the_probe(make, data, monkeypatch):
    def interrupt(*args, **given):
        raise KeyboardInterrupt

    monkeypatch.setattr(trial_module, "fit_path", interrupt)
    with pytest.warns(FallbackWarning, match=r"trial of fine-tuning stopped: it was interrupted\. The linear probe"):
        classifier = make().fit(*data)

    assert isinstance(classifier.plan_.strategy, LinearProbe)
    assert classifier.strategy_ == "probe"
    assert classifier.predict(data[0]).shape == (60,)


def test_a_recipe_that_diverges_is_noted_and_the_other_one_is_tried(make, data, monkeypatch):
    fit_path = trial_module.fit_path

    def diverging(job, *args, stage, **given):
        if "far" in stage:
            raise FloatingPointError("the loss is nan")
        return fit_path(job, *args, stage=stage, **given)

    monkeypatch.setattr(trial_module, "fit_path", diverging)

    found = tried(make(), *data)

    assert found.diverged == ("far",)
    assert [each.regime for each in found.runs] == ["near"]
    assert found.stopped == ""


def test_a_trial_that_takes_far_longer_than_expected_is_given_up(make, data, monkeypatch):
    monkeypatch.setattr(trial_module, "OVERRUN", 0.0)
    monkeypatch.setattr(trial_module, "PATIENCE", 0.0)

    with pytest.warns(FallbackWarning, match="no time was left"):
        found = tried(make(), *data)

    assert found.runs == ()
    assert "no time was left" in found.stopped


def test_without_a_trial_in_the_plan_nothing_is_tried(make, data):
    run, probe, plan, features = waiting(make(), *data)
    decided = replace(plan, trial=None)

    assert try_first(run, decided, probe, features) == (probe, decided)
