"""What a fit starts fine-tuning from, and when there is time for another head."""

import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from bottleneck import FineTuneSettings, TransferClassifier, load, load_backbone, save
from bottleneck.backbones import Preprocess
from bottleneck.estimators.opening import open_run
from bottleneck.estimators.run import carry_out, extract_run, fit_probe, plan_run
from bottleneck.progress import silent
from tests.conftest import coloured_images

PIXELS = Preprocess(resize=16, crop=(16, 16), mean=(0.5,) * 3, std=(0.5,) * 3)


class Forgetful(nn.Sequential):
    """Two stages of convolutions, of which the second sees the green of the pictures only."""

    def __init__(self) -> None:
        first = nn.Sequential(nn.Conv2d(3, 3, 3, stride=2, padding=1, groups=3), nn.ReLU())
        green = nn.Conv2d(3, 6, 1)
        last = nn.Sequential(green, nn.Conv2d(6, 8, 3, stride=2, padding=1), nn.ReLU())
        super().__init__(first, last, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        nn.init.uniform_(first[0].weight, 0, 1)
        nn.init.constant_(first[0].bias, 1)
        with torch.no_grad():
            green.weight[:, [0, 2]] = 0


@pytest.fixture
def forgetful():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return load_backbone(Forgetful(), preprocess=PIXELS)


@pytest.fixture
def make(forgetful, tmp_path):
    """Return a factory of quick classifiers that are asked to fine-tune."""

    def build(**params) -> TransferClassifier:
        settings = FineTuneSettings(steps=6, batch_size=8, augment="crop", flip=False, lr=1e-4)
        given = {"strategy": "finetune", "finetune": settings, "cache_dir": tmp_path / "cache", "random_state": 0}
        return TransferClassifier(forgetful, device="cpu", **{**given, **params})

    return build


def test_fine_tuning_starts_from_the_probe_on_all_stages_where_that_is_better(make, forgetful, tmp_path):
    images, labels = coloured_images(48)

    tuned = make(risk="safe").fit(images, labels)

    probe = make(strategy="all_stages_probe").fit(images, labels)
    assert tuned.plan_.request.evidence.delta_multi > 0.2
    assert tuned.layers_ == probe.layers_ == tuple(forgetful.layer_widths)
    assert tuned.accuracy_cv_ >= probe.accuracy_cv_ > 0.9
    save(tuned, tmp_path / "model", include_backbone=False)
    loaded = load(tmp_path / "model", backbone=forgetful)
    assert np.array_equal(loaded.predict_proba(images), tuned.predict_proba(images))


def two_colours(n: int) -> tuple[NDArray[np.uint8], NDArray[np.intp]]:
    """Return images that are strong or weak in red and in blue, and whether they are so in both alike."""
    rng = np.random.RandomState(0)
    alike = np.arange(n) % 2
    images = rng.randint(0, 255, (n, 20, 20, 3)) * [0.3, 1, 0.3] + [80, 0, 80]
    red = rng.choice([-1, 1], n)
    blue = np.where(alike, red, -red)
    images[..., 0] += 40 * red[:, None, None]
    images[..., 2] += 40 * blue[:, None, None] + 15 * (2 * alike - 1)[:, None, None]
    return images.astype(np.uint8), alike


def test_network_that_was_tuned_from_all_stages_predicts_evaluates_and_is_saved(make, forgetful, tmp_path):
    images, labels = two_colours(80)
    settings = FineTuneSettings(
        steps=60, batch_size=16, augment="crop", min_crop_scale=1.0, flip=False, lr=0.1, lr_decay=1.0
    )

    tuned = make(finetune=settings).fit(images, labels)

    probe = make(strategy="all_stages_probe").fit(images, labels)
    assert tuned.strategy_ == "finetune"
    assert tuned.layers_ == tuple(forgetful.layer_widths)
    assert tuned.accuracy_cv_ > probe.accuracy_cv_ + 0.05
    assert tuned.score(images, labels) > probe.score(images, labels)
    save(tuned, tmp_path / "model", include_backbone=True)
    loaded = load(tmp_path / "model", backbone=forgetful)
    assert np.array_equal(loaded.predict_proba(images), tuned.predict_proba(images))


@pytest.mark.parametrize(
    ("strategy", "left", "delivered"),
    [
        ("auto", 10.0, "probe"),  # the other head may take 12 s
        ("auto", 13.0, "all_stages_probe"),
        ("all_stages_probe", 10.0, "all_stages_probe"),  # asked for, and expected to take 8 s
        ("all_stages_probe", 7.0, "probe"),
    ],
)
def test_a_head_on_all_stages_is_fitted_where_plan_and_run_agree_that_it_fits(make, strategy, left, delivered):
    images, labels = coloured_images(48)
    run = open_run(make(strategy=strategy, time_budget=1_000), images, labels, progress=silent)
    features = extract_run(run, "raise")
    probe = fit_probe(run, features)
    spent = time.monotonic() - run.began
    evidence = replace(probe.evidence, head_seconds=8.0, spent_seconds=spent, accuracy=0.6, all_stages_accuracy=0.9)
    probe = replace(probe, evidence=evidence)
    run = replace(run, budget=replace(run.budget, seconds=spent + left))

    plan = plan_run(run, evidence)
    outcome = carry_out(run, plan, probe, features)

    assert (plan.strategy_name, outcome.strategy) == (delivered, delivered)
