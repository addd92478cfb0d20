"""Signals against their naive versions, and when they are measured at all."""

import numpy as np
import pytest
import torch
from torch import nn

from bottleneck import TransferClassifier, load_backbone
from bottleneck.backbones import Preprocess
from bottleneck.estimators import signals
from bottleneck.estimators.signals import batch_norm_shift, neighbours_accuracy
from bottleneck.finetune.pixels import DecodedPixels
from bottleneck.planner import n_shift_images
from tests.conftest import coloured_images


def neighbours_one_by_one(features, labels, n_neighbours: int = 5) -> float:
    n_right = 0
    for row, own in enumerate(features):
        cosines = {
            other: float(own @ features[other] / np.linalg.norm(own) / np.linalg.norm(features[other]))
            for other in range(len(features))
            if other != row
        }
        votes: dict[object, float] = {}
        for other in sorted(cosines, key=cosines.__getitem__)[-n_neighbours:]:
            votes[labels[other]] = votes.get(labels[other], 0) + cosines[other]
        n_right += max(sorted(votes), key=lambda label: votes[label]) == labels[row]
    return n_right / len(features)


@pytest.mark.parametrize("block_rows", [7, 1024])
def test_neighbours_vote_as_they_do_one_by_one_in_blocks_of_any_size(monkeypatch, block_rows):
    monkeypatch.setattr(signals, "BLOCK_ROWS", block_rows)
    rng = np.random.default_rng(0)
    labels = np.array(["a", "b", "c"])[rng.integers(0, 3, 60)]
    features = rng.normal(size=(60, 6)).astype(np.float32)
    features[labels == "a", 0] += 1

    assert neighbours_accuracy(features, labels) == pytest.approx(neighbours_one_by_one(features, labels))


def test_three_images_have_two_neighbours():
    assert neighbours_accuracy(np.eye(3, dtype=np.float32) + 1, np.array([0, 0, 1])) == pytest.approx(2 / 3)


def with_batch_norm(mean: float, variance: float):
    """Return a backbone whose BatchNorm sees the normalised pixels and expects this of them."""
    network = nn.Sequential(nn.BatchNorm2d(3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    network[0].running_mean.fill_(mean)
    network[0].running_var.fill_(variance)
    return load_backbone(network, preprocess=Preprocess(resize=None, crop=(8, 8), mean=(0.0,) * 3, std=(1.0,) * 3))


def test_shift_is_in_standard_deviations_of_what_batch_norm_expects():
    pixels = DecodedPixels(images=np.full((10, 8, 8, 3), 255, dtype=np.uint8))  # 1 once normalised

    shifts = [batch_norm_shift(with_batch_norm(*expected), pixels, np.arange(10)) for expected in ((1, 1), (-2, 4))]

    assert shifts == pytest.approx([0, 3 / 2], abs=1e-4)


def test_shift_does_not_depend_on_the_batches(tiny_backbone):
    pixels = DecodedPixels(images=np.random.default_rng(0).integers(0, 255, (12, 16, 16, 3)).astype(np.uint8))

    shifts = [batch_norm_shift(tiny_backbone, pixels, np.arange(12), batch_size=size) for size in (5, 12)]

    assert shifts[0] == pytest.approx(shifts[1], rel=1e-4)


def test_a_network_without_batch_norm_has_no_shift():
    backbone = load_backbone(
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
        preprocess=Preprocess(resize=None, crop=(8, 8), mean=(0.0,) * 3, std=(1.0,) * 3),
    )

    assert batch_norm_shift(backbone, DecodedPixels(images=np.zeros((4, 8, 8, 3), np.uint8)), np.arange(4)) is None


def test_measuring_leaves_the_network_as_it_was(tiny_backbone):
    before = {name: tensor.clone() for name, tensor in tiny_backbone.network.state_dict().items()}
    images = np.random.default_rng(0).integers(0, 255, (12, 16, 16, 3)).astype(np.uint8)

    shift = batch_norm_shift(tiny_backbone, DecodedPixels(images=images), np.arange(12))

    assert shift > 0
    after = tiny_backbone.network.state_dict()
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())


@pytest.mark.parametrize(
    ("n", "side", "measured"), [(5, 224, 5), (50, 224, 8), (200, 224, 10), (5_000, 224, 16), (6_000, 32, 256)]
)
def test_the_shift_is_measured_on_a_small_share_of_the_images(n, side, measured):
    assert n_shift_images(n, side=side) == measured


def evidence_of(classifier):
    return classifier.plan_.request.evidence


def test_a_fit_measures_all_signals_and_a_warm_one_of_the_same_images_has_the_same(
    tiny_backbone, tmp_path, monkeypatch
):
    images, labels = coloured_images(60)
    classifier = TransferClassifier(tiny_backbone, strategy="probe", cache_dir=tmp_path, device="cpu", random_state=0)

    cold = evidence_of(classifier.fit(images, labels))
    monkeypatch.setattr(signals, "batch_norm_shift", None)  # would fail if it were called
    warm = evidence_of(classifier.fit(images[::-1], labels[::-1]))
    subset = evidence_of(classifier.fit(images[:40], labels[:40]))

    assert 0 <= cold.early_stages_accuracy <= 1
    assert 0.5 < cold.neighbours_accuracy <= 1
    assert cold.batch_norm_shift == warm.batch_norm_shift > 0
    assert subset.batch_norm_shift is None
    assert subset.neighbours_accuracy is not None


def test_no_image_is_vouched_for_by_others_of_its_group(tiny_backbone, tmp_path):
    rng = np.random.default_rng(0)
    films = rng.integers(0, 255, (120, 16, 16, 3)).astype(np.uint8)
    images, groups = np.repeat(films, 2, axis=0), np.repeat(np.arange(120), 2)
    labels = np.repeat(rng.integers(0, 2, 120), 2)  # noise: only an image of the same film tells
    classifier = TransferClassifier(tiny_backbone, strategy="probe", cache_dir=tmp_path, device="cpu", random_state=0)

    grouped = evidence_of(classifier.fit(images, labels, groups=groups))
    loose = evidence_of(classifier.fit(images, labels))

    assert grouped.neighbours_accuracy < 0.62 < 0.7 < loose.neighbours_accuracy
