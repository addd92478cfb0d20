import numpy as np
import pytest
import torch

from bottleneck.finetune.trivial import CHANGES, change_trivially
from bottleneck.torchvision_door import transforms_functional
from tests.images.samples import picture

pytestmark = pytest.mark.usefixtures("one_thread")

IMAGES = torch.from_numpy(np.stack([picture(seed, 40, 48) for seed in range(6)])).permute(0, 3, 1, 2)


def test_image_depends_on_seed_epoch_and_row_and_not_on_the_batch():
    whole = change_trivially(IMAGES, range(6), seed=3, epoch=5)

    order = [4, 0, 5]
    part = change_trivially(IMAGES[order], np.array(order), seed=3, epoch=5)

    assert torch.equal(part, whole[order])
    assert not torch.equal(change_trivially(IMAGES, range(6), seed=4, epoch=5), whole)
    assert not torch.equal(change_trivially(IMAGES, range(6), seed=3, epoch=6), whole)


def test_shape_type_memory_order_and_the_given_images_stay():
    before = IMAGES.clone()

    out = change_trivially(IMAGES, range(6), seed=0, epoch=0)

    assert (out.shape, out.dtype, out.stride()) == (IMAGES.shape, torch.uint8, IMAGES.stride())
    assert torch.equal(IMAGES, before)


def test_every_change_is_drawn():
    image = IMAGES[:1].repeat(300, 1, 1, 1)

    out = change_trivially(image, range(300), seed=0, epoch=0)

    unchanged = (out == image).flatten(1).all(dim=1).float().mean()
    assert 1 / len(CHANGES) / 2 < unchanged < 4 / len(CHANGES)
    assert len({bytes(found.numpy().tobytes()) for found in out}) > 150


@pytest.mark.parametrize("name", CHANGES)
@pytest.mark.parametrize("strength", [-1.0, 1.0])
def test_no_change_makes_an_image_unlike_itself(name, strength):
    """In grey values, smoothed: a negative image would have a correlation of -1."""
    image = IMAGES[0]

    changed = CHANGES[name](transforms_functional(), image, strength)

    small, expected = (
        torch.nn.functional.adaptive_avg_pool2d(pixels.float().mean(dim=0)[None], 6).flatten()
        for pixels in (changed, image)
    )
    assert changed.dtype == torch.uint8
    assert torch.corrcoef(torch.stack([small, expected]))[0, 1] > 0


@pytest.mark.parametrize("name", sorted(CHANGES.keys() - {"nothing", "autocontrast", "equalize", "posterize"}))
def test_strength_zero_changes_nothing(name):
    changed = CHANGES[name](transforms_functional(), IMAGES[0], 0.0)

    assert (changed.int() - IMAGES[0].int()).abs().max() <= 1
