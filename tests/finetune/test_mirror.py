import numpy as np
import pytest

from bottleneck.finetune.mirror import check_mirroring, judge_mirroring
from tests.finetune.tasks import SIDE, Task, make_job, make_task, probe_of

pytestmark = pytest.mark.usefixtures("one_thread")

ONES = np.ones(100, dtype=np.float32)


def right_on(n_correct: int) -> np.ndarray:
    return np.arange(100) < n_correct


def test_clear_loss_on_mirror_images_forbids_them():
    check = judge_mirroring(right_on(90), right_on(60), ONES)

    assert not check.allowed
    assert (check.accuracy, check.mirrored_accuracy, check.n_images) == (pytest.approx(0.9), pytest.approx(0.6), 100)
    assert check.standard_error == pytest.approx(np.sqrt(0.3 * 0.7 / 100))


@pytest.mark.parametrize("correct, mirrored", [(90, 90), (90, 88), (60, 90)])
def test_loss_within_chance_and_gains_allow_them(correct: int, mirrored: int):
    assert judge_mirroring(right_on(correct), right_on(mirrored), ONES).allowed


def test_loss_on_every_image_is_no_chance():
    assert not judge_mirroring(right_on(100), right_on(0), ONES).allowed


def test_images_count_by_their_weights():
    weights = np.where(np.arange(100) < 60, 1, 0).astype(np.float32)

    check = judge_mirroring(right_on(90), right_on(60), weights)

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
def test_probe_finds_out_whether_left_and_right_tell_classes_apart(seeing_sides, sided):
    task: Task = make_task(*edges(90, sided=sided), seeing_sides)

    check = check_mirroring(make_job(task), probe_of(task))

    assert check.allowed is not sided
    assert check.accuracy > 0.9
    assert (check.mirrored_accuracy < 0.1) is sided


def test_check_is_the_same_with_the_same_seed(seeing_sides):
    task = make_task(*edges(60, sided=True), seeing_sides)

    assert check_mirroring(make_job(task), probe_of(task)) == check_mirroring(make_job(task), probe_of(task))
