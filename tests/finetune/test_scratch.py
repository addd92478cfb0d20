from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from bottleneck.errors import BudgetError, CacheWarning
from bottleneck.finetune import EpochRecord, FineTuneSettings, train_from_scratch
from bottleneck.finetune.scratch import STAGE, reinitialised
from bottleneck.progress import Progress
from tests.finetune.slow import WorkClock, slow_task
from tests.finetune.tasks import coloured_noise, features_of, make_task, three_stage_backbone

pytestmark = pytest.mark.usefixtures("one_thread")

SHORT = FineTuneSettings(steps=40, batch_size=16, precision="float32")


@pytest.fixture(scope="module")
def trained(staged):
    return train_from_scratch(staged.source, staged.labels, backbone=staged.backbone, settings=SHORT)


def test_it_learns_from_images_and_labels_alone(staged, trained):
    unseen, labels = coloured_noise(40, seed=9)

    assert trained.head.score(features_of(trained.backbone, unseen), labels) > 0.9
    assert trained.steps == trained.history[-1].step == 40
    assert trained.history[0].stage == "training from random weights"


def test_weights_it_is_given_do_not_matter(staged, trained):
    other = nn.Module.__new__(type(staged.backbone.network))
    other.__dict__.update(reinitialised(staged.backbone.network, seed=99).__dict__)

    again = train_from_scratch(
        staged.source, staged.labels, backbone=staged.backbone.with_network(other), settings=SHORT
    )

    first, second = trained.backbone.network.state_dict(), again.backbone.network.state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_another_seed_gives_other_weights(staged, trained):
    again = train_from_scratch(staged.source, staged.labels, backbone=staged.backbone, settings=SHORT, seed=1)

    assert not np.array_equal(again.head.coef_, trained.head.coef_)


def test_statistics_of_batch_norm_are_learned(trained):
    norms = [module for module in trained.backbone.network.modules() if isinstance(module, nn.BatchNorm2d)]

    assert all(norm.running_mean.abs().max() > 0.01 for norm in norms)


def test_more_than_two_classes():
    task = make_task(*coloured_noise(60, seed=2, n_classes=3), three_stage_backbone())

    result = train_from_scratch(task.source, task.labels, backbone=task.backbone, settings=SHORT)

    assert list(result.head.classes_) == ["blue", "green", "red"]
    assert result.head.score(features_of(result.backbone, task.pixels), task.labels) > 0.9


def test_schedule_ends_in_time():
    slow = slow_task(WorkClock(noise=0.1), learning=1 / 16)
    options = {"backbone": slow.task.backbone, "clock": slow.clock}
    settings = FineTuneSettings(steps=1000, batch_size=16)

    result = train_from_scratch(slow.task.source, slow.task.labels, settings=settings, deadline=30.0, **options)

    assert 25 < result.steps <= 30
    assert 28 < slow.clock.now <= 31
    assert result.history[-1].learning_rates[-1] < 0.01
    with pytest.raises(BudgetError, match="need more than"):
        train_from_scratch(
            slow.task.source, slow.task.labels, settings=settings, deadline=slow.clock.now + 3, **options
        )


def test_interrupted_training_goes_on_from_its_checkpoint(staged, trained, tmp_path: Path):
    def press_ctrl_c(event: Progress) -> None:
        if event.stage == STAGE and event.done in (7, 23):
            raise KeyboardInterrupt

    options = {"backbone": staged.backbone, "settings": SHORT, "checkpoint_dir": str(tmp_path)}
    told: list[EpochRecord] = []
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            train_from_scratch(staged.source, staged.labels, progress=press_ctrl_c, on_epoch=told.append, **options)
    resumed = train_from_scratch(staged.source, staged.labels, on_epoch=told.append, **options)

    assert resumed.backbone.weights_digest == trained.backbone.weights_digest
    assert np.array_equal(resumed.head.coef_, trained.head.coef_)
    assert resumed.history == trained.history
    assert tuple(told) == trained.history


def test_checkpoint_of_another_seed_is_left_alone(staged, tmp_path: Path):
    def press_ctrl_c(record: EpochRecord) -> None:
        raise KeyboardInterrupt

    options = {"backbone": staged.backbone, "settings": SHORT, "checkpoint_dir": tmp_path}
    with pytest.raises(KeyboardInterrupt):
        train_from_scratch(staged.source, staged.labels, on_epoch=press_ctrl_c, **options)

    with pytest.warns(CacheWarning, match="other seed"):
        other = train_from_scratch(staged.source, staged.labels, seed=1, **options)

    assert other.history[0].epoch == 1


def test_deadline_in_the_past_is_an_error(staged):
    with pytest.raises(BudgetError):
        train_from_scratch(staged.source, staged.labels, backbone=staged.backbone, deadline=0.0)


def test_every_layer_is_drawn_anew_and_the_given_network_and_random_state_are_left_alone(staged):
    network, state = staged.backbone.network, torch.get_rng_state()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}

    fresh = reinitialised(network, seed=5).state_dict()

    weights = [name for name, tensor in before.items() if tensor.ndim > 1]
    assert not any(torch.equal(fresh[name], before[name]) for name in weights)
    assert all(torch.equal(network.state_dict()[name], before[name]) for name in before)
    assert torch.equal(torch.get_rng_state(), state)
    torch.testing.assert_close(fresh["0.0.weight"].std(), torch.tensor((2 / (6 * 9)) ** 0.5), rtol=0.3, atol=0)


def test_parameters_without_a_rule_stay_and_the_log_names_them(caplog):
    class Tokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.token = nn.Parameter(torch.full((3,), 7.0))

    caplog.set_level("INFO", logger="bottleneck")

    fresh = reinitialised(nn.Sequential(Tokens(), nn.Linear(2, 2)), seed=0)

    assert torch.equal(fresh[0].token, torch.full((3,), 7.0))
    assert "0 has parameters that keep their values" in caplog.text
