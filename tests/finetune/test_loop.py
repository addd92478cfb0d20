import math

import numpy as np
import pytest
import torch

from bottleneck.extraction import fastest_precision
from bottleneck.finetune.batches import LabelledRows
from bottleneck.finetune.loop import run_training
from tests.finetune.tasks import Task, codes_in, flat, make_training

pytestmark = pytest.mark.usefixtures("one_thread")


def changed_groups(task: Task, weights) -> list[bool]:
    """Say for each layer group whether it is no longer as it was."""
    before = task.backbone.network
    return [
        any(not torch.equal(weights[f"network.{name}"], before.get_parameter(name)) for name in group.parameters)
        for group in task.backbone.layer_groups
    ]


def test_history_has_one_record_an_epoch_up_to_the_last_step(colours):
    training = make_training(colours, steps=7)

    run_training(training)

    history = training.job.history
    assert [(record.epoch, record.step) for record in history] == [(1, 3), (2, 6), (3, 7)]
    assert all(record.stage == "test" and np.isfinite(record.loss) for record in history)
    assert len(history[0].learning_rates) == len(colours.backbone.layer_groups) + 1
    assert history[-1].learning_rates[-1] < history[0].learning_rates[-1]


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"optimizer": "adamw", "lr": 0.01},
        {"precision": "bfloat16"},
        {"adaptive_rates": True, "lr": 0.03},
        {"batch_norm": "train"},
        {"mixup": 0.2},
        {"head": "fresh"},
        {"unfreeze_every": 2},
        {"label_smoothing": 0.1, "weight_decay": 1e-3},
    ],
    ids=str,
)
def test_training_learns_what_frozen_features_cannot_tell(colours, settings):
    training = make_training(colours, **{"steps": 50, **settings})

    run_training(training)

    history = training.job.history
    assert history[0].accuracy < 0.8
    assert history[-1].accuracy > 0.9
    assert history[-1].loss < 0.8 * history[0].loss


def test_progress_is_told_after_each_step(colours):
    events = []

    run_training(make_training(colours, steps=5, progress=events.append))

    assert [(event.done, event.total, event.unit) for event in events] == [(step, 5, "steps") for step in range(1, 6)]


def test_progress_says_how_the_epoch_goes_so_far(colours):
    events = []
    training = make_training(colours, steps=6, progress=events.append)

    run_training(training)

    for event, record in zip([events[2], events[5]], training.job.history, strict=True):
        shown = f"loss {record.loss:.3f}, accuracy {record.accuracy:.3f}, lr {record.learning_rates[-1]:.2g}"
        assert event.note == f"epoch {record.epoch}, {shown}"


def test_frozen_groups_do_not_change(staged):
    assert changed_groups(staged, run_training(make_training(staged, freeze_groups=1))) == [False, True, True]


@pytest.mark.parametrize(
    "n_epochs, expected",
    [(1, [False, False, False]), (2, [False, False, True]), (3, [False, False, True]), (4, [False, True, True])],
)
def test_groups_learn_one_after_the_other_after_the_head(staged, n_epochs, expected):
    """Three steps are an epoch: the head alone, two with the last group, then another group."""
    training = make_training(staged, steps=3 * n_epochs, freeze_epochs=1, unfreeze_every=2, lr=0.001)

    weights = run_training(training)

    rates = training.job.history[-1].learning_rates
    assert changed_groups(staged, weights) == expected
    assert [rate > 0 for rate in rates] == [*expected, True]


def test_batch_norm_of_groups_that_do_not_learn_yet_keeps_its_statistics(staged):
    training = make_training(staged, steps=3, freeze_epochs=1, batch_norm="train")

    weights = run_training(training)

    before = staged.backbone.network.state_dict()
    assert all(torch.equal(weights[f"network.{name}"], before[name]) for name in before)


def test_averaged_weights_are_the_result_and_steadier_than_the_last_ones(colours):
    plain, averaged = make_training(colours, steps=12), make_training(colours, steps=12, ema=0.9)

    last, average = run_training(plain), run_training(averaged)

    assert torch.equal(flat(last), flat(averaged.network.state_dict()))
    start = flat(make_training(colours).network.state_dict())
    assert 0 < (flat(average) - start).norm() < (flat(last) - start).norm()


@pytest.mark.parametrize("settings", [{}, {"mixup": 0.3, "cutmix": 1.0, "augment": "trivial", "precision": "bfloat16"}])
def test_same_seed_gives_the_same_weights_bit_for_bit(colours, settings):
    first, second, other = (run_training(make_training(colours, seed=seed, **settings)) for seed in (0, 0, 1))

    assert torch.equal(flat(first), flat(second))
    assert not torch.equal(flat(first), flat(other))


def test_weight_zero_silences_an_image(colours):
    weights = np.where(np.arange(60) < 5, 0, 1).astype(np.float32)
    wrong = np.where(weights == 0, 1 - codes_in(colours), codes_in(colours))

    right, mislabelled, heard = (
        run_training(training)
        for training in (
            make_training(colours, weights=weights),
            make_training(colours, weights=weights, codes=wrong),
            make_training(colours, codes=wrong),
        )
    )

    assert torch.equal(flat(right), flat(mislabelled))
    assert not torch.equal(flat(right), flat(heard))


def test_loss_curve_in_bfloat16_is_that_in_float32(colours):
    def losses(precision: str) -> list[float]:
        training = make_training(colours, head="fresh", lr=0.3, steps=40, precision=precision)
        run_training(training)
        return [record.loss for record in training.job.history]

    exact, fast = losses("float32"), losses("bfloat16")

    assert exact[-1] < 0.5 * exact[0]
    np.testing.assert_allclose(fast, exact, atol=0.05)


@pytest.mark.parametrize("asked", ["float32", "bfloat16"])
def test_arithmetic_that_was_asked_for_is_used(colours, asked):
    assert make_training(colours, precision=asked).precision == asked


def test_automatic_arithmetic_is_the_fastest_where_predictions_stay(colours):
    training = make_training(colours, precision="auto", head="fresh")

    assert training.precision == fastest_precision(training.job.device)


def test_guessing_costs_the_entropy_of_the_classes():
    learned = LabelledRows(
        rows=np.arange(4), codes=np.array([0, 0, 0, 2]), weights=np.array([1, 1, 1, 3], dtype=np.float32), n_classes=3
    )

    assert learned.guessing_loss == pytest.approx(math.log(2))
