"""Timed steps are steps of fine-tuning: images of the right size, within a limit, with an update that moves nothing."""

import copy
import time

import numpy as np
import pytest
import torch
from torch import nn

from bottleneck import FineTuneSettings, Preprocess, TransferClassifier, load_backbone
from bottleneck.errors import BudgetError
from bottleneck.extraction import using_threads
from bottleneck.finetune import step_cost
from bottleneck.finetune.step_cost import (
    COPIES,
    MOST_IMAGES,
    NoRoomError,
    TimedStep,
    fastest_threads,
    measure_step,
    network_bytes,
    saved_bytes,
    shared_out,
)
from bottleneck.timing import Timed
from tests.conftest import coloured_images
from tests.finetune.tasks import three_stage_backbone

CPU = torch.device("cpu")
AMPLE = {"room": None, "image_bytes": 1_000}
SQUARE = Preprocess(resize=16, crop=(16, 16), mean=(0.5,) * 3, std=(0.5,) * 3)
TALL = Preprocess(resize=32, crop=(32, 16), mean=(0.5,) * 3, std=(0.5,) * 3)


class OfOneSize(nn.Module):
    """A network that takes images of one size alone, and notes how many it learns from."""

    def __init__(self, size: tuple[int, int]) -> None:
        super().__init__()
        self.size, self.seen = size, list[int]()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.whole = nn.Parameter(torch.ones(8, dtype=torch.int64), requires_grad=False)

    def forward(self, images):
        assert images.shape[2:] == self.size, f"wrong image size {tuple(images.shape)}"
        if torch.is_grad_enabled():
            self.seen.append(len(images))
        return self.body(images) * self.whole


class Frozen(OfOneSize):
    """A network through which no gradients go."""

    def forward(self, images):
        with torch.no_grad():
            return super().forward(images)


def pixels_of(n: int, size: tuple[int, int]):
    return np.random.default_rng(0).integers(0, 255, (n, 3, *size), dtype=np.uint8)


def step_of(network: nn.Module, preprocess: Preprocess) -> TimedStep:
    return TimedStep(load_backbone(network, preprocess=preprocess), CPU, judged=pixels_of(2, preprocess.crop))


@pytest.mark.parametrize("preprocess", [SQUARE, TALL])
def test_images_have_the_size_that_the_backbone_sees(preprocess):
    step_of(OfOneSize(preprocess.crop), preprocess)(pixels_of(4, preprocess.crop))


def test_layer_groups_that_are_frozen_get_no_gradients_and_no_update():
    backbone = three_stage_backbone()
    pixels, n_groups = pixels_of(4, backbone.preprocess.crop), len(backbone.layer_groups)
    learning = []
    for frozen in range(n_groups + 1):
        step = TimedStep(backbone, CPU, judged=pixels, freeze_groups=frozen)
        step(pixels)
        step.update()
        assert all(parameter.grad is not None for parameter in step.parameters)
        learning.append(sum(parameter.numel() for parameter in step.parameters))

    sizes = [
        sum(backbone.network.get_parameter(name).numel() for name in group.parameters)
        for group in backbone.layer_groups
    ]
    assert learning == [sum(sizes[frozen:]) for frozen in range(n_groups + 1)]
    assert learning[-1] == 0  # the head alone learns, of which nothing is timed


def test_a_step_in_which_the_head_alone_learns_has_a_price_within_a_limit():
    backbone = three_stage_backbone()

    cost = measure_step(
        backbone,
        CPU,
        pixels_of(1, backbone.preprocess.crop),
        room=10**9,
        image_bytes=1_000,
        freeze_groups=len(backbone.layer_groups),
    )

    assert cost.seconds_per_image > 0


def test_what_is_frozen_saves_no_activations():
    backbone = three_stage_backbone()
    pixels = pixels_of(4, backbone.preprocess.crop)

    all_learn, last_learns = (
        measure_step(backbone, CPU, pixels, **AMPLE, freeze_groups=frozen).bytes_per_image
        for frozen in (0, len(backbone.layer_groups) - 1)
    )

    assert last_learns < all_learn


def test_an_update_does_the_work_of_one_and_moves_nothing():
    step = step_of(OfOneSize((16, 16)), SQUARE)
    before = [parameter.clone() for parameter in step.parameters]
    step(pixels_of(4, (16, 16)))
    for parameter in step.parameters:
        parameter.grad.mul_(1e6)

    step.update()

    assert torch.cat([parameter.grad.flatten() for parameter in step.parameters]).norm() == pytest.approx(1, rel=1e-3)
    assert all(moment.abs().sum() > 0 for moment in step.moments)
    assert step.average.n_updates == 1
    assert all(torch.equal(parameter, old) for parameter, old in zip(step.parameters, before, strict=True))
    assert len(step.parameters) == 2  # the whole numbers do not learn


def test_bytes_of_an_image_are_those_of_one_more():
    step = step_of(OfOneSize((16, 16)), SQUARE)
    two, five = (saved_bytes(step, pixels_of(n, (16, 16))) for n in (2, 5))

    cost = measure_step(load_backbone(OfOneSize((16, 16)), preprocess=SQUARE), CPU, pixels_of(8, (16, 16)), **AMPLE)

    assert cost.bytes_per_image == pytest.approx((five - two) / 3, rel=0.01)


def test_the_timed_batch_fits_into_the_room(monkeypatch):
    backbone, pixels, seen = load_backbone(OfOneSize((16, 16)), preprocess=SQUARE), pixels_of(32, (16, 16)), []
    one, two = (saved_bytes(step_of(OfOneSize((16, 16)), SQUARE), pixels[:n]) for n in (1, 2))

    def copied(network):
        """Copy a network; the copy, which is trained, notes its batches here."""
        trained = copy.deepcopy(network)
        trained.seen = seen
        return trained

    monkeypatch.setattr(step_cost, "copied", copied)
    room = COPIES * network_bytes(backbone) + one + 4 * (two - one)

    measure_step(backbone, CPU, pixels, room=room, image_bytes=1_000)

    assert max(seen) == 5
    with pytest.raises(NoRoomError):
        measure_step(backbone, CPU, pixels, room=COPIES * network_bytes(backbone), image_bytes=1_000)


def test_what_one_image_alone_takes_longer_is_taken_once_a_step():
    an_image, once = 0.01, 0.3

    batch = Timed(n_images=4, seconds=once + 4 * an_image)

    for at_once in (8, 32):
        seconds = shared_out(batch, alone=once + an_image, at_once=at_once)
        assert seconds == pytest.approx(an_image + once / at_once)
    assert shared_out(Timed(n_images=4, seconds=0.1), alone=0.2, at_once=8) == pytest.approx(0.2 / 8)  # a noisy machine


class Wide(OfOneSize):
    """A network whose gradients take long once a batch, as those of large matrices do."""

    def forward(self, images):
        features = super().forward(images)
        if features.requires_grad:
            time.sleep(0.02 * len(images))
            features.register_hook(lambda _: time.sleep(0.3))
        return features


def test_gradients_of_large_matrices_are_not_counted_for_each_image(monkeypatch):
    monkeypatch.setattr(TimedStep, "update", lambda step, _: time.sleep(0.15))  # as long as that of large matrices

    backbone = load_backbone(Wide((16, 16)), preprocess=SQUARE)
    one = measure_step(backbone, CPU, pixels_of(1, (16, 16)), **AMPLE)
    cost = measure_step(backbone, CPU, pixels_of(MOST_IMAGES, (16, 16)), **AMPLE)

    assert one.seconds_per_image > 0.3  # where nothing tells which part of it is taken once
    assert cost.seconds_per_image * MOST_IMAGES == pytest.approx(0.02 * MOST_IMAGES + 0.3 + 0.15, rel=0.5)


@pytest.mark.parametrize("faster", [1, 2])
@pytest.mark.parametrize(("an_image", "told_by"), [(0.3, 1), (0.05, 4), (0.002, 16)])
def test_the_fastest_number_of_threads_is_told_by_no_more_images_than_it_takes(faster, an_image, told_by):
    sizes = []

    def step(part):
        sizes.append(len(part))
        time.sleep(an_image * len(part) * (1 if torch.get_num_threads() == faster else 2))

    with using_threads(2):
        threads, timed = fastest_threads(step, np.zeros((32, 3, 8, 8), np.uint8))

    assert (threads, timed.n_images) == (faster, told_by)
    assert max(sizes) == told_by


@pytest.fixture
def classifier_of(tmp_path):
    def make(network, preprocess, **chosen):
        backbone = load_backbone(network, preprocess=preprocess)
        return TransferClassifier(backbone, cache_dir=tmp_path, device="cpu", random_state=0, **chosen)

    return make


def test_a_network_with_whole_numbers_among_its_parameters_is_fine_tuned(classifier_of):
    settings = FineTuneSettings(steps=6, folds=1, flip=False)
    classifier = classifier_of(OfOneSize((32, 16)), TALL, strategy="finetune", finetune=settings)

    classifier.fit(*coloured_images(40))

    assert {record.stage for record in classifier.history_} >= {"fine-tuning, fold 1 of 1"}


def test_a_network_that_cannot_be_trained_keeps_its_probe_and_says_why(classifier_of):
    images, labels = coloured_images(40)

    classifier = classifier_of(Frozen((16, 16)), SQUARE).fit(images, labels)

    assert classifier.strategy_ in ("probe", "all_stages_probe")
    assert "this network cannot be trained: element 0 of tensors" in classifier.plan_.to_json()
    with pytest.raises(BudgetError, match="this network cannot be trained"):
        classifier_of(Frozen((16, 16)), SQUARE, strategy="finetune").fit(images, labels)
