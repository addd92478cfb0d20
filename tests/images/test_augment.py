import numpy as np
import pytest
import torch

from bottleneck.images import augment
from bottleneck.images.augment import crop_boxes, random_numbers
from bottleneck.torchvision_door import transforms_functional

from .samples import picture, smooth

IMAGES = torch.from_numpy(np.stack([picture(seed, 40, 48) for seed in range(6)])).permute(0, 3, 1, 2).contiguous()
LARGE = torch.from_numpy(np.stack([picture(seed, 130, 110) for seed in range(6)])).permute(0, 3, 1, 2).contiguous()
BOTH_SIZES = pytest.mark.parametrize("images, size", [(IMAGES, 32), (LARGE, 100)])


def one_by_one(images: torch.Tensor, size: int, *, seed: int, epoch: int, min_area: float) -> torch.Tensor:
    """Return what torchvision makes of the same crops."""
    functional = transforms_functional()
    draws = random_numbers(range(len(images)), seed=seed, epoch=epoch)
    crops = crop_boxes(draws, *images.shape[-2:], min_area=min_area)
    out = []
    for image, (top, left, height, width), draw in zip(images, crops.tolist(), draws, strict=True):
        crop = functional.resized_crop(image, top, left, height, width, [size, size], antialias=True)
        out.append(functional.horizontal_flip(crop) if draw[4] < 0.5 else crop)
    return torch.stack(out)


@BOTH_SIZES
def test_shape_and_type_are_those_of_images(images: torch.Tensor, size: int) -> None:
    out = augment(images, range(6), size=size, seed=0, epoch=0)

    assert out.shape == (6, 3, size, size)
    assert out.dtype == torch.uint8
    assert augment(images[:0], [], size=size, seed=0, epoch=0).shape == (0, 3, size, size)


@BOTH_SIZES
@pytest.mark.parametrize("min_area", [0.1, 0.5, 1.0])
def test_images_are_the_crops_that_torchvision_makes(images: torch.Tensor, size: int, min_area: float) -> None:
    out = augment(images, range(6), size=size, seed=2, epoch=1, min_area=min_area)

    expected = one_by_one(images, size, seed=2, epoch=1, min_area=min_area)
    assert (out.int() - expected.int()).abs().max() <= 1  # torchvision rounds between the two axes


@BOTH_SIZES
def test_memory_layout_of_the_pixels_changes_nothing(images: torch.Tensor, size: int) -> None:
    out = augment(images.contiguous(memory_format=torch.channels_last), range(6), size=size, seed=0, epoch=0)

    assert torch.equal(out, augment(images, range(6), size=size, seed=0, epoch=0))


@BOTH_SIZES
def test_a_row_gets_the_same_crop_in_whatever_batch(images: torch.Tensor, size: int) -> None:
    whole = augment(images, range(6), size=size, seed=3, epoch=5)

    order = [4, 0, 5]
    part = augment(images[order], np.array(order), size=size, seed=3, epoch=5)

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


@pytest.mark.parametrize("side", [32, 112])
def test_half_of_the_images_are_mirrored_unless_that_is_switched_off(side: int) -> None:
    gradient = torch.from_numpy(smooth(side, side)).permute(2, 0, 1)[None].repeat(200, 1, 1, 1)

    def mirrored(flip: bool) -> float:
        out = augment(gradient, range(200), size=16, seed=0, epoch=0, flip=flip)[:, 1].float()  # grows to the right
        return (out[:, :, 0] > out[:, :, -1]).all(dim=1).float().mean().item()

    assert 0.35 < mirrored(flip=True) < 0.65
    assert mirrored(flip=False) == 0


@pytest.mark.parametrize("images", [IMAGES[:, :, :40, :40], LARGE[:, :, :110, :110]])
def test_the_whole_area_without_flip_is_a_plain_resize(images: torch.Tensor) -> None:
    out = augment(images, range(6), size=images.shape[-1], seed=0, epoch=0, min_area=1.0, flip=False)

    assert torch.equal(out, images)


@pytest.mark.parametrize("min_area", [0.08, 0.5, 0.9, 1.0])
def test_crops_fit_and_keep_their_area(min_area: float) -> None:
    draws = np.random.default_rng(0).random((2000, 5))

    top, left, height, width = crop_boxes(draws, 200, 300, min_area=min_area).T

    area, ratio = height * width / (200 * 300), (width / 300) / (height / 200)
    assert np.all((top >= 0) & (top <= 200 - height) & (left >= 0) & (left <= 300 - width))
    assert area.min() > min_area - 0.01
    assert area.mean() == pytest.approx((1 + min_area) / 2, abs=0.02)
    assert 0.73 < ratio.min() <= ratio.max() < 1.37


def test_crops_reach_every_border() -> None:
    top, left, height, width = crop_boxes(np.random.default_rng(0).random((2000, 5)), 20, 30, min_area=0.3).T

    assert (top.min(), left.min(), (top + height).max(), (left + width).max()) == (0, 0, 20, 30)
