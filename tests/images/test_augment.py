import numpy as np
import pytest
import torch

from bottleneck.images import augment
from bottleneck.images.augment import _random_crop

from .samples import picture, smooth

IMAGES = torch.from_numpy(np.stack([picture(seed, 40, 48) for seed in range(6)])).permute(0, 3, 1, 2).contiguous()


def test_shape_and_type_are_those_of_images() -> None:
    out = augment(IMAGES, range(6), size=32, seed=0, epoch=0)

    assert out.shape == (6, 3, 32, 32)
    assert out.dtype == torch.uint8
    assert augment(IMAGES[:0], [], size=32, seed=0, epoch=0).shape == (0, 3, 32, 32)


def test_a_row_gets_the_same_crop_in_whatever_batch() -> None:
    whole = augment(IMAGES, range(6), size=32, seed=3, epoch=5)

    order = [4, 0, 5]
    part = augment(IMAGES[order], np.array(order), size=32, seed=3, epoch=5)

    assert torch.equal(part, whole[order])


@pytest.mark.parametrize("change", [{"seed": 1}, {"epoch": 1}])
def test_seed_and_epoch_change_every_crop(change: dict[str, int]) -> None:
    first = augment(IMAGES, range(6), size=32, **{"seed": 0, "epoch": 0})
    second = augment(IMAGES, range(6), size=32, **{"seed": 0, "epoch": 0} | change)

    assert all(not torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_global_random_state_is_neither_used_nor_changed() -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()

    augment(IMAGES, range(6), size=32, seed=0, epoch=0)

    assert torch.equal(torch.get_rng_state(), before)


def test_half_of_the_images_are_mirrored_unless_that_is_switched_off() -> None:
    gradient = torch.from_numpy(smooth(32, 32)).permute(2, 0, 1)[None].repeat(200, 1, 1, 1)

    def mirrored(flip: bool) -> float:
        out = augment(gradient, range(200), size=16, seed=0, epoch=0, flip=flip)[:, 1].float()  # grows to the right
        return (out[:, :, 0] > out[:, :, -1]).all(dim=1).float().mean().item()

    assert 0.35 < mirrored(flip=True) < 0.65
    assert mirrored(flip=False) == 0


def test_the_whole_area_without_flip_is_a_plain_resize() -> None:
    out = augment(IMAGES[:, :, :40, :40], range(6), size=40, seed=0, epoch=0, min_area=1.0, flip=False)

    assert torch.equal(out, IMAGES[:, :, :40, :40])


@pytest.mark.parametrize("min_area", [0.08, 0.5, 0.9, 1.0])
def test_crops_fit_and_keep_their_area(min_area: float) -> None:
    areas = []
    for seed in range(300):
        top, left, height, width = _random_crop(np.random.default_rng(seed), 200, 300, min_area=min_area)
        assert 0 <= top <= 200 - height
        assert 0 <= left <= 300 - width
        areas.append(height * width / (200 * 300))

    assert min(areas) > min_area - 0.01
    assert np.mean(areas) == pytest.approx((1 + min_area) / 2, abs=0.05)
