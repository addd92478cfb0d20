import dataclasses

import numpy as np
import pytest
import torch

from bottleneck.backbones import Preprocess
from bottleneck.finetune.groups import build_optimizer
from bottleneck.finetune.loop import Training, augmented, fit_loop, shuffled_batches
from bottleneck.finetune.probe_network import build_network
from bottleneck.finetune.schedules import Pace
from tests.finetune.tasks import Task, codes_in, make_job

pytestmark = pytest.mark.usefixtures("one_thread")


def make_training(task: Task, *, weights=None, codes=None, **options: object) -> Training:
    job = make_job(task, **options)
    network = build_network(task.backbone, task.head, freeze_batch_norm=True, device=job.device)
    return Training(
        job=job,
        stage="test",
        network=network,
        optimizer=build_optimizer(network, backbone=task.backbone, recipe=job.recipe),
        pace=Pace(job.recipe.steps, deadline=None, reserve=0, clock=lambda: 0.0),
        rows=np.arange(len(task.labels)),
        codes=codes_in(task) if codes is None else codes,
        weights=job.weights if weights is None else weights,
    )


def flat_weights(training: Training) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten().clone() for parameter in training.network.parameters()])


def test_epoch_visits_full_batches_of_rows_at_most_once(colours):
    batches = list(shuffled_batches(make_training(colours), epoch=1))

    rows = np.concatenate([batch.rows for batch in batches])
    assert [len(batch.rows) for batch in batches] == [16, 16, 16]
    assert len(set(rows)) == 48
    for batch in batches:
        assert torch.equal(batch.images, torch.from_numpy(colours.pixels[batch.rows].transpose(0, 3, 1, 2)))
        assert list(colours.head.classes_[batch.codes.numpy()]) == list(colours.labels[batch.rows])


def test_fewer_images_than_a_batch_are_one_batch(colours):
    batches = shuffled_batches(make_training(colours, batch_size=500), epoch=1)

    assert [len(batch.rows) for batch in batches] == [60]


def test_order_depends_on_seed_and_epoch(colours):
    orders = [
        tuple(next(shuffled_batches(make_training(colours, seed=seed), epoch=epoch)).rows)
        for seed, epoch in [(0, 1), (0, 2), (1, 1), (0, 1)]
    ]

    assert orders[0] == orders[3]
    assert len(set(orders)) == 3


def test_history_has_one_record_an_epoch_up_to_the_last_step(colours):
    training = make_training(colours, steps=7)

    fit_loop(training)

    history = training.job.history
    assert [(record.epoch, record.step) for record in history] == [(1, 3), (2, 6), (3, 7)]
    assert all(record.stage == "test" and np.isfinite(record.loss) for record in history)
    assert len(history[0].learning_rates) == len(colours.backbone.layer_groups) + 1
    assert history[-1].learning_rates[-1] < history[0].learning_rates[-1]


@pytest.mark.parametrize("optimizer, lr", [("sgd", 0.1), ("adamw", 0.01)])
def test_training_learns_what_frozen_features_cannot_tell(colours, optimizer, lr):
    training = make_training(colours, steps=40, optimizer=optimizer, lr=lr)

    fit_loop(training)

    history = training.job.history
    assert history[0].accuracy < 0.8
    assert history[-1].accuracy > 0.95
    assert history[-1].loss < 0.5 * history[0].loss


def test_progress_is_told_after_each_step(colours):
    events = []

    fit_loop(make_training(colours, steps=5, progress=events.append))

    assert [(event.done, event.total, event.unit) for event in events] == [(step, 5, "steps") for step in range(1, 6)]


def test_frozen_groups_do_not_change(colours):
    training = make_training(colours, freeze_groups=1)
    first, *others = colours.backbone.layer_groups

    fit_loop(training)

    now, before = training.network.network, colours.backbone.network
    assert all(torch.equal(now.get_parameter(name), before.get_parameter(name)) for name in first.parameters)
    assert not any(
        torch.equal(now.get_parameter(name), before.get_parameter(name))
        for group in others
        for name in group.parameters
    )


def test_weight_zero_silences_an_image(colours):
    weights = np.where(np.arange(60) < 5, 0, 1).astype(np.float32)
    wrong = np.where(weights == 0, 1 - codes_in(colours), codes_in(colours))
    right, mislabelled, heard = (
        make_training(colours, weights=weights),
        make_training(colours, weights=weights, codes=wrong),
        make_training(colours, codes=wrong),
    )

    for training in (right, mislabelled, heard):
        fit_loop(training)

    assert torch.equal(flat_weights(right), flat_weights(mislabelled))
    assert not torch.equal(flat_weights(right), flat_weights(heard))


def test_gradient_norm_is_clipped(colours):
    """The first Nesterov step is 1.9 gradients long."""
    training = make_training(colours, steps=1, lr=1.0, clip_norm=1e-3, warmup_fraction=0.0)
    before = flat_weights(training)

    fit_loop(training)

    assert 0 < (flat_weights(training) - before).norm() <= 1.9e-3 * 1.001


def test_loss_that_is_no_number_stops_the_training(colours):
    with pytest.raises(FloatingPointError, match=r"the loss became (nan|inf) at step \d"):
        fit_loop(make_training(colours, lr=1e20))


def test_augmentation_depends_on_the_row_and_not_on_the_batch(colours):
    small, large = make_training(colours), make_training(colours, batch_size=60)

    alone = augmented(small.job, next(shuffled_batches(small, epoch=1)), epoch=3)
    whole = augmented(large.job, next(shuffled_batches(large, epoch=1)), epoch=3)

    assert torch.equal(whole[:16], alone)


def test_without_crops_and_flips_images_are_only_normalised(colours):
    training = make_training(colours, min_crop_scale=1.0, flip=False)
    batch = next(shuffled_batches(training, epoch=1))

    torch.testing.assert_close(augmented(training.job, batch, epoch=1), training.job.as_input(batch.images))


def test_crops_have_the_shape_that_the_network_takes_also_when_it_is_no_square(colours):
    training = make_training(colours)
    wide = Preprocess(resize=12, crop=(8, 10), mean=(0.5,) * 3, std=(0.5,) * 3)
    backbone = dataclasses.replace(colours.backbone, preprocess=wide)
    job = dataclasses.replace(training.job, backbone=backbone)

    assert augmented(job, next(shuffled_batches(training, epoch=1)), epoch=1).shape == (16, 3, 8, 10)
