import numpy as np
import pytest
import torch

from bottleneck.finetune.mixing import Mixture, draw_mixture, mix_images, mix_targets

IMAGES = torch.rand(6, 3, 20, 30, generator=torch.Generator().manual_seed(0))
TARGETS = torch.eye(6)


def draw(step: int = 0, *, mixup: float = 0.0, cutmix: float = 0.0, n_images: int = 6) -> Mixture | None:
    return draw_mixture(n_images, (20, 30), mixup=mixup, cutmix=cutmix, seed=0, epoch=1, step=step)


def test_switched_off_nothing_is_mixed():
    assert draw() is None
    assert draw(mixup=1.0, n_images=1) is None


@pytest.mark.parametrize("strengths", [{"mixup": 0.4}, {"cutmix": 1.0}])
def test_share_of_the_target_is_the_share_of_the_image(strengths):
    for step in range(20):
        mixture = draw(step, **strengths)
        brightness = torch.arange(6.0)
        flat = brightness[:, None, None, None].expand(6, 3, 20, 30)

        means, targets = (
            mix_images(flat, flat[mixture.partner], mixture).mean(dim=(1, 2, 3)),
            mix_targets(TARGETS, mixture),
        )

        torch.testing.assert_close(means, targets @ brightness)
        torch.testing.assert_close(targets.sum(dim=1), torch.ones(6))


def test_mixup_blends_each_image_with_another_one():
    mixture = draw(mixup=1.0)

    mixed = mix_images(IMAGES, IMAGES[mixture.partner], mixture)

    for image, partner in enumerate(mixture.partner):
        assert partner != image
        expected = (1 - mixture.share) * IMAGES[image] + mixture.share * IMAGES[partner]
        torch.testing.assert_close(mixed[image], expected)


def test_cutmix_pastes_a_box_and_leaves_the_given_images_alone():
    mixture = next(found for step in range(99) if 0.1 < (found := draw(step, cutmix=1.0)).share < 0.9)
    top, left, bottom, right = mixture.box
    before = IMAGES.clone()

    mixed = mix_images(IMAGES, IMAGES[mixture.partner], mixture)

    inside = torch.zeros(20, 30, dtype=torch.bool)
    inside[top:bottom, left:right] = True
    partner = torch.from_numpy(mixture.partner)
    assert torch.equal(mixed[..., inside], IMAGES[partner][..., inside])
    assert torch.equal(mixed[..., ~inside], IMAGES[..., ~inside])
    assert torch.equal(IMAGES, before)
    assert inside.float().mean() == pytest.approx(mixture.share)


def test_with_both_each_step_does_one_of_them():
    boxes = [draw(step, mixup=1.0, cutmix=1.0).box for step in range(200)]

    assert 70 < sum(box is None for box in boxes) < 130


def test_weak_mixing_leaves_most_images_nearly_as_they_are():
    shares = np.array([draw(step, mixup=0.1).share for step in range(300)])

    assert shares.max() <= 0.5
    assert np.mean(shares < 0.05) > 0.6
