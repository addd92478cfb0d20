import numpy as np
import pytest
import torch

from bottleneck.finetune.compare import HeldOut
from bottleneck.finetune.crossfit import cross_fit
from bottleneck.finetune.mirror import Mirroring, check_with_probes, judge_mirroring, mirroring_before
from tests.finetune.tasks import SIDE, Task, make_job, make_task, probe_of

pytestmark = pytest.mark.usefixtures("one_thread")

ONES = np.ones(100, dtype=np.float32)


def right_on(n_correct: int) -> np.ndarray:
    return np.arange(100) < n_correct


def test_clear_loss_on_mirror_images_forbids_them():
    check = judge_mirroring(right_on(90), right_on(60), ONES, z=2.0)

    assert not check.allowed
    assert (check.accuracy, check.mirrored_accuracy, check.n_images) == (pytest.approx(0.9), pytest.approx(0.6), 100)
    assert check.standard_error == pytest.approx(np.sqrt(0.3 * 0.7 / 100))


@pytest.mark.parametrize("correct, mirrored", [(90, 90), (90, 88), (60, 90)])
def test_loss_within_chance_and_gains_allow_them(correct: int, mirrored: int):
    assert judge_mirroring(right_on(correct), right_on(mirrored), ONES, z=2.0).allowed


def test_loss_on_every_image_is_no_chance():
    assert not judge_mirroring(right_on(100), right_on(0), ONES, z=2.0).allowed


def test_images_count_by_their_weights():
    weights = np.where(np.arange(100) < 60, 1, 0).astype(np.float32)

    check = judge_mirroring(right_on(90), right_on(60), weights, z=2.0)

    assert check.allowed
    assert check.accuracy == 1


def edges(n_images: int, *, sided: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return ramps of brightness that rise to the left or right (``sided``), or to the top or bottom."""
    rng = np.random.default_rng(0)
    codes = np.arange(n_images) % 2
    ramp = np.linspace(0, 150, SIDE)[:, None].repeat(SIDE, 1)
    ramps = np.stack([ramp[::-1] if code else ramp for code in codes])
    ramps = ramps.transpose(0, 2, 1) if sided else ramps
    noisy = ramps[..., None] + rng.integers(0, 100, (n_images, SIDE, SIDE, 3))
    return noisy.astype(np.uint8), np.array(["one", "other"])[codes]


@pytest.fixture(scope="module")
def seeing_sides():
    """Return a backbone whose features say where something is: the halves of the image."""
    import torch
    from torch import nn

    from bottleneck.backbones import load_backbone
    from tests.finetune.tasks import PREPROCESS

    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten())
    return load_backbone(nn.Sequential(network, nn.Linear(16, 3)), preprocess=PREPROCESS)


@pytest.mark.parametrize("sided", [True, False])
def test_probes_find_out_whether_left_and_right_tell_classes_apart(seeing_sides, sided):
    task: Task = make_task(*edges(90, sided=sided), seeing_sides)

    check = check_with_probes(make_job(task), probe_of(task))

    assert check.allowed is not sided
    assert check.n_images == 90
    assert check.accuracy > 0.9
    assert (check.mirrored_accuracy < 0.1) is sided


def test_check_is_the_same_with_the_same_seed(seeing_sides):
    task = make_task(*edges(60, sided=True), seeing_sides)

    checks = [check_with_probes(make_job(task, seed=3), probe_of(task)) for _ in range(2)]

    assert checks[0] == checks[1]


@pytest.mark.parametrize(
    ("n_images", "flip", "settled"), [(60, "auto", True), (120, "auto", False), (120, False, True)]
)
def test_probes_decide_for_few_images_and_nobody_where_it_was_said(seeing_sides, n_images, flip, settled):
    task = make_task(*edges(n_images, sided=True), seeing_sides)

    before = mirroring_before(make_job(task, flip=flip), probe_of(task))

    assert before.settled is settled
    assert (before.check is None) is (n_images > 100)


def part_of(n_images: int, n_correct: int) -> HeldOut:
    correct = (np.arange(n_images) < n_correct)[:, None].repeat(5, axis=1)
    loss = np.where(correct, 0.1, 2.0)
    return HeldOut(correct=correct, log_loss=loss, margin=-loss, weights=np.ones(n_images, dtype=np.float32))


@pytest.mark.parametrize(
    ("n_images", "n_mirrored_correct", "mirrors"),
    [(60, 50, True), (60, 30, False), (40, 40, False)],  # alike, clearly worse, too few to say
)
def test_folds_learn_from_mirror_images_once_one_without_them_showed_that_they_may(
    colours, n_images, n_mirrored_correct, mirrors
):
    recipe = make_job(colours).recipe
    mirroring = Mirroring()

    first = mirroring.in_next_fold(recipe)
    mirroring.note(part_of(n_images, 50), torch.arange(n_images) < n_mirrored_correct)
    second, adds = mirroring.in_next_fold(recipe), mirroring.adds_to(recipe)
    mirroring.note(part_of(n_images, 50), None)

    assert (first.flip, first.check_flip) == (False, True)
    assert (second.flip, adds) == (mirrors, mirrors)
    assert not mirroring.adds_to(recipe)  # which the second one did if it may
    assert mirroring.check.n_images == n_images


@pytest.mark.parametrize("flip", [True, False])
def test_what_was_said_of_mirror_images_is_done_in_every_fold(colours, flip):
    recipe = make_job(colours, flip=flip).recipe

    done = Mirroring(settled=True).in_next_fold(recipe)

    assert (done.flip, done.check_flip) == (flip, False)


@pytest.mark.parametrize("sided", [True, False])
def test_the_network_of_a_fold_finds_out_too(seeing_sides, sided):
    task: Task = make_task(*edges(150, sided=sided), seeing_sides)

    fitted = cross_fit(make_job(task, steps=60), probe_of(task))

    assert fitted.mirror is not None
    assert fitted.mirror.allowed is not sided
    assert (fitted.mirror.n_images, fitted.mirror.accuracy) == (50, pytest.approx(1, abs=0.1))


@pytest.mark.parametrize(("refused", "sided", "n_parts"), [(True, False, 100), (False, False, 50), (True, True, 50)])
def test_what_is_refused_without_mirror_images_is_tried_with_them_if_it_may(seeing_sides, refused, sided, n_parts):
    task: Task = make_task(*edges(150, sided=sided), seeing_sides)

    fitted = cross_fit(make_job(task, steps=30), probe_of(task), refused=lambda _: refused)

    assert len(fitted.held_out.weights) == n_parts
    assert fitted.mirror.n_images == 50
