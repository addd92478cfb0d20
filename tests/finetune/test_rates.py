import copy
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from bottleneck.finetune import checkpoints, crossfit
from bottleneck.finetune.batches import prepare_lesson, shuffled_batches
from bottleneck.finetune.crossfit import cross_fit, times_from_the_start
from bottleneck.finetune.identity import with_checkpoints
from bottleneck.finetune.job import Job
from bottleneck.finetune.loop import open_groups
from bottleneck.finetune.rates import Origin, loss_of, times_for, times_to_lower
from bottleneck.finetune.recipe import MOST_GENTLER, gentler
from bottleneck.finetune.step import Training, compute_gradients
from tests.finetune.tasks import Task, flat, make_job, make_training, probe_of

pytestmark = pytest.mark.usefixtures("one_thread")


def learning(task: Task, **settings: object) -> Training:
    """Return a training of which all layers learn."""
    training = make_training(task, **settings)
    open_groups(training, epoch=1)
    return training


def first_lesson(training: Training):
    batch = next(shuffled_batches(training.job, training.learned, epoch=1))
    return prepare_lesson(training.job, batch, n_classes=training.learned.n_classes, epoch=1)


def lowered_for(task: Task, **settings: object) -> int:
    training = make_training(task, **settings)
    return times_to_lower(training.job, task.head, training.learned)


def times_before_training(job: Job, task: Task) -> int:
    probe = probe_of(task)
    train = np.flatnonzero(probe.deal_folds(3, np.random.default_rng(job.seed)).train[0])
    return times_from_the_start(job, probe, probe.refitted_on(train, seed=job.seed), train)


@pytest.mark.parametrize("clip_norm", [1e-3, 1e9])
def test_a_step_is_that_of_sgd_without_momentum(staged: Task, clip_norm: float):
    training = learning(staged, lr=0.3, lr_decay=2.0, clip_norm=clip_norm)
    lesson = first_lesson(training)
    compute_gradients(training, lesson)
    naive = copy.deepcopy(training.network)
    for ours, theirs in zip(training.network.parameters(), naive.parameters(), strict=True):
        theirs.grad = None if ours.grad is None else ours.grad.clone()
    nn.utils.clip_grad_norm_(naive.parameters(), clip_norm)
    rate_of = {
        name: rate
        for group, rate in zip(staged.backbone.layer_groups, training.job.recipe.learning_rates, strict=False)
        for name in (f"network.{parameter}" for parameter in group.parameters)
    }
    groups = [{"params": [parameter], "lr": rate_of.get(name, 0.3)} for name, parameter in naive.named_parameters()]
    torch.optim.SGD(groups).step()

    Origin.of(training.network, staged.backbone).step(training.job.recipe)

    torch.testing.assert_close(flat(training.network.state_dict()), flat(naive.state_dict()))


@pytest.mark.parametrize("lr", [0.01, 1.0])
def test_steps_lead_back_to_where_they_began(colours: Task, lr: float):
    training = learning(colours, lr=lr)
    before = flat(training.network.state_dict()).clone()

    times_for(training, first_lesson(training))

    assert torch.equal(flat(training.network.state_dict()), before)


def test_rates_are_the_highest_whose_step_raises_the_loss_by_a_fifth_of_what_guessing_costs_at_most(colours: Task):
    training = learning(colours, lr=3.0)
    lesson = first_lesson(training)

    times = times_for(training, lesson)

    before = loss_of(training, lesson)
    origin = Origin.of(training.network, colours.backbone)
    rises = []
    for lowered in (times - 1, times):
        origin.step(gentler(training.job.recipe, lowered))
        rises.append(loss_of(training, lesson) - before)
    assert rises[0] > 0.2 * math.log(2) >= rises[1]


def test_where_no_rate_will_do_the_lowest_is_left(colours: Task):
    assert lowered_for(colours, lr=1e6) == MOST_GENTLER


def test_rates_far_too_high_for_a_network_are_lowered_and_low_ones_stay(colours: Task):
    assert lowered_for(colours, lr=1.0) > lowered_for(colours, lr=0.1) > 0
    assert lowered_for(colours, lr=0.01) == 0


def test_of_the_batches_the_one_in_the_middle_decides(colours: Task):
    training = learning(colours, lr=0.3)
    training.network.eval()
    found = []
    for batch in shuffled_batches(training.job, training.learned, epoch=1):
        lesson = prepare_lesson(training.job, batch, n_classes=training.learned.n_classes, epoch=1)
        found.append(times_for(training, lesson))

    assert lowered_for(colours, lr=0.3) == np.median(found)
    assert len(set(found)) > 1


def test_images_looked_at_in_small_parts_say_the_same(colours: Task):
    whole, parts = learning(colours, lr=3.0), learning(colours, lr=3.0)
    parts.job.micro_batch.most = 5

    assert loss_of(parts, first_lesson(parts)) == pytest.approx(loss_of(whole, first_lesson(whole)), rel=1e-4)
    assert times_for(parts, first_lesson(parts)) == times_for(whole, first_lesson(whole)) > 0


def test_rates_that_were_lowered_before_training_spare_it_from_diverging(colours: Task):
    settings = {"steps": 60, "lr": 1.0, "folds": 1}
    job = make_job(colours, **settings, check_rates=True)

    checked = cross_fit(job, probe_of(colours))

    assert checked.gentler == times_before_training(job, colours) > 0
    assert checked.held_out.correct[:, -1].mean() >= checked.held_out.correct[:, 0].mean()


def test_a_rate_that_somebody_gave_is_used_unless_asked(colours: Task):
    probe, rows = probe_of(colours), np.arange(60)
    given, asked = (make_job(colours, lr=1.0, check_rates=check) for check in ("auto", True))

    assert times_from_the_start(given, probe, colours.head, rows) == 0
    assert times_from_the_start(asked, probe, colours.head, rows) > 0


def test_what_steps_showed_is_kept_for_when_the_fit_goes_on(
    colours: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def kept_job():
        job = make_job(colours, lr=1.0, check_rates=True)
        return with_checkpoints(job, tmp_path, colours.source, colours.labels, workers=0)

    monkeypatch.setattr(checkpoints, "LEAST_SECONDS", 0.0)
    monkeypatch.setattr(checkpoints, "WRITES_APART", 0)
    first = times_from_the_start(kept_job(), probe_of(colours), colours.head, np.arange(60))
    monkeypatch.setattr(crossfit, "times_to_lower", lambda *_: pytest.fail("looked again"))

    assert times_from_the_start(kept_job(), probe_of(colours), colours.head, np.arange(60)) == first


def test_a_loss_that_is_no_number_is_infinite(staged: Task):
    training = make_training(staged)
    with torch.no_grad():
        training.network.linear.bias.fill_(math.nan)

    assert loss_of(training, first_lesson(training)) == math.inf
