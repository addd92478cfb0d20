import dataclasses

import numpy as np
import pytest
import torch
from torch.nn import functional

from bottleneck.backbones import Preprocess
from bottleneck.errors import InvalidInputError
from bottleneck.finetune.batches import augmented, prepare_lesson, scaled_side, shuffled_batches, weighted_targets
from bottleneck.finetune.ranks import Ranks
from tests.finetune.tasks import make_training

pytestmark = pytest.mark.usefixtures("one_thread")


def batches_of(training, *, epoch: int = 1):
    return shuffled_batches(training.job, training.learned, epoch=epoch)


def test_epoch_visits_full_batches_of_rows_at_most_once(colours):
    batches = list(batches_of(make_training(colours)))

    rows = np.concatenate([batch.rows for batch in batches])
    assert [len(batch.rows) for batch in batches] == [16, 16, 16]
    assert len(set(rows)) == 48
    for batch in batches:
        assert torch.equal(batch.images, torch.from_numpy(colours.pixels[batch.rows].transpose(0, 3, 1, 2)))
        assert list(colours.head.classes_[batch.codes.numpy()]) == list(colours.labels[batch.rows])


def test_fewer_images_than_a_batch_are_one_batch(colours):
    assert [len(batch.rows) for batch in batches_of(make_training(colours, batch_size=500))] == [60]


def test_training_that_goes_on_gets_the_batches_that_are_left(colours):
    training = make_training(colours, mixup=0.3, cutmix=1.0)
    whole = list(batches_of(training))

    for first in range(4):
        left = list(shuffled_batches(training.job, training.learned, epoch=1, first=first))

        assert len(left) == 3 - first
        for batch, expected in zip(left, whole[first:], strict=True):
            assert torch.equal(batch.images, expected.images)
            assert np.array_equal(batch.rows, expected.rows)
            assert batch.mixture.share == expected.mixture.share


def test_order_depends_on_seed_and_epoch(colours):
    orders = [
        tuple(next(batches_of(make_training(colours, seed=seed), epoch=epoch)).rows)
        for seed, epoch in [(0, 1), (0, 2), (1, 1), (0, 1)]
    ]

    assert orders[0] == orders[3]
    assert len(set(orders)) == 3


@pytest.mark.parametrize("kind", ["crop", "trivial"])
def test_augmentation_depends_on_the_row_and_not_on_the_batch(colours, kind):
    small, large = make_training(colours, augment=kind), make_training(colours, augment=kind, batch_size=60)

    alone = augmented(small.job, next(batches_of(small)), epoch=3)
    whole = augmented(large.job, next(batches_of(large)), epoch=3)

    assert torch.equal(whole[:16], alone)


def test_without_crops_and_flips_images_are_only_normalised(colours):
    training = make_training(colours, min_crop_scale=1.0, flip=False)
    batch = next(batches_of(training))

    torch.testing.assert_close(augmented(training.job, batch, epoch=1), training.job.as_input(batch.images))


def test_crops_have_the_shape_that_the_network_takes_also_when_it_is_no_square(colours):
    training = make_training(colours)
    wide = Preprocess(resize=12, crop=(8, 10), mean=(0.5,) * 3, std=(0.5,) * 3)
    backbone = dataclasses.replace(colours.backbone, preprocess=wide)
    job = dataclasses.replace(training.job, backbone=backbone)

    assert augmented(job, next(batches_of(training)), epoch=1).shape == (16, 3, 8, 10)


def test_smaller_training_images_are_the_same_crops_resized(colours):
    given = {"cutmix": 1.0, "mixup": 0.3}
    training = make_training(colours, image_scale=0.5, **given)
    large = dataclasses.replace(colours.backbone.preprocess, resize=(64, 96), crop=(64, 96))
    job = dataclasses.replace(training.job, backbone=dataclasses.replace(colours.backbone, preprocess=large))
    batch = next(shuffled_batches(job, training.learned, epoch=1))

    lesson = prepare_lesson(job, batch, n_classes=training.learned.n_classes, epoch=1)

    assert lesson.images.shape == (16, 3, 32, 64)  # 48 is no multiple of 32
    assert torch.isfinite(lesson.images).all()


@pytest.mark.parametrize(
    ("side", "scale", "expected"), [(224, 5 / 7, 160), (299, 1, 299), (64, 0.1, 32), (20, 0.5, 20)]
)
def test_scaled_sides_are_multiples_of_the_stride_and_never_larger(side, scale, expected):
    assert scaled_side(side, scale) == expected


def test_images_reach_the_network_in_the_memory_order_of_its_weights(colours):
    training = make_training(colours)

    images = augmented(training.job, next(batches_of(training)), epoch=1)

    assert images.is_contiguous(memory_format=torch.channels_last)


def test_targets_give_the_loss_that_torch_gives_for_codes():
    generator = torch.Generator().manual_seed(0)
    logits, codes = torch.randn(5, 3, generator=generator), torch.tensor([0, 2, 1, 1, 0])
    weights = torch.rand(5, generator=generator)

    targets = weighted_targets(codes, weights, n_classes=3, label_smoothing=0.2)

    expected = functional.cross_entropy(logits, codes, reduction="none", label_smoothing=0.2) * weights
    torch.testing.assert_close(functional.cross_entropy(logits, targets, reduction="none"), expected)


def test_mixing_is_seeded_by_epoch_and_step(colours):
    training = make_training(colours, mixup=1.0)

    def shares(epoch: int) -> list[float]:
        return [batch.mixture.share for batch in batches_of(training, epoch=epoch)]

    assert shares(1) == shares(1)
    assert len({*shares(1), *shares(2)}) == 6


def test_targets_of_mixed_images_add_up_to_their_weight(colours):
    training = make_training(colours, mixup=1.0)
    batch = next(batches_of(training))

    lesson = prepare_lesson(training.job, batch, n_classes=2, epoch=1)

    torch.testing.assert_close(lesson.targets.sum(dim=1), batch.weights)
    assert not torch.equal(lesson.targets, lesson.targets.round())


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("settings", [{}, {"mixup": 1.0, "cutmix": 1.0}, {"augment": "trivial", "mixup": 0.4}])
def test_shares_of_the_ranks_are_together_the_batch_of_one(colours, settings, count):
    """Bit for bit: augmentation knows rows only, and a rank loads the partners that others train on."""
    job = make_training(colours, **settings).job
    learned = make_training(colours, **settings).learned
    alone = [prepare_lesson(job, batch, n_classes=2, epoch=2) for batch in shuffled_batches(job, learned, epoch=2)]

    parts = []
    for rank in range(count):
        own = dataclasses.replace(job, ranks=Ranks(rank=rank, count=count))
        parts.append(
            [prepare_lesson(own, batch, n_classes=2, epoch=2) for batch in shuffled_batches(own, learned, epoch=2)]
        )

    for whole, *shares in zip(alone, *parts, strict=True):
        assert {share.n_images for share in shares} == {16}
        assert max(len(share.images) for share in shares) <= -(-16 // count)
        for field in ("images", "targets", "codes"):
            joined = torch.cat([getattr(share, field) for share in shares])
            torch.testing.assert_close(joined, getattr(whole, field), atol=0, rtol=0)


def test_more_ranks_than_images_in_a_batch_are_refused(colours):
    training = make_training(colours, batch_size=2)
    job = dataclasses.replace(training.job, ranks=Ranks(rank=0, count=3))

    with pytest.raises(InvalidInputError, match=r"'batch_size'.*at least 3, one image for each process.*Got 2"):
        next(shuffled_batches(job, training.learned, epoch=1))
