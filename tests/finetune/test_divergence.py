"""A training has diverged where its loss rose above that of the network it began with, on the same images."""

import math
from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import pytest
import torch

from bottleneck.finetune import divergence
from bottleneck.finetune.average import weights_of
from bottleneck.finetune.batches import prepare_lesson, shuffled_batches
from bottleneck.finetune.divergence import check_not_diverged, loss_without_training, recent_batches
from bottleneck.finetune.resume import Course
from bottleneck.finetune.step import loss_of
from tests.finetune.tasks import flat, make_training


def course_of(first: float, later: float, *, epoch: int = 1, n_steps: int = 40) -> Course:
    course = Course(epoch=epoch)
    for step in range(1, 41):
        course.note(first if step <= 10 else later, 0, n_seen=32, step=step)
    course.n_steps = n_steps
    return course


@pytest.fixture
def training(colours):
    """Return a training of four classes that knows where it began."""
    given = make_training(colours, batch_size=16)
    return replace(given, origin=weights_of(given.network))


@pytest.mark.parametrize(
    ("first", "later", "diverges"),
    [
        (0.2, 1.25, False),  # of four classes, where guessing costs 1.39
        (0.2, 1.37, True),
        (1.0, 1.34, True),
        (1.2, 3.0, False),  # who knows little may do worse than guessing for a while
        (1.39, 3.6, True),
    ],
)
def test_a_network_that_knew_something_and_now_guesses_has_diverged(training, monkeypatch, first, later, diverges):
    monkeypatch.setattr(type(training.learned), "guessing_loss", math.log(4))
    unknown = replace(training, origin=None, learned=replace(training.learned, n_classes=4))

    with pytest.raises(FloatingPointError, match="the loss rose from") if diverges else nullcontext():
        check_not_diverged(unknown, course_of(first, later))


def test_images_that_are_hard_for_the_network_it_began_with_are_no_divergence(training, monkeypatch):
    monkeypatch.setattr(divergence, "loss_without_training", lambda *_: 1.2)
    monkeypatch.setattr(type(training.learned), "guessing_loss", math.log(4))
    hard, lost = course_of(0.2, 1.4), course_of(0.2, 9.0)

    check_not_diverged(training, hard)

    assert hard.first_loss == 1.2  # which it is not asked again
    with pytest.raises(FloatingPointError, match=r"from 1\.20 to 8\.63"):
        check_not_diverged(training, lost)


def test_the_loss_without_training_is_that_of_the_first_weights_and_leaves_everything_as_it_is(training):
    course = course_of(0.2, 1.4, n_steps=3)
    batches = list(shuffled_batches(training.job, training.learned, epoch=1))[:3]
    untrained = Course()
    for batch in batches:
        lesson = prepare_lesson(training.job, batch, n_classes=training.learned.n_classes, epoch=1)
        untrained.note(loss_of(training, lesson), 0, n_seen=len(batch.rows), step=0)
    with torch.no_grad():
        for parameter in training.network.parameters():
            parameter.add_(torch.randn_like(parameter))
    moved, state = weights_of(training.network), torch.get_rng_state()

    found = loss_without_training(training, course)

    assert found == pytest.approx(untrained.recent_loss)
    assert torch.equal(flat(weights_of(training.network)), flat(moved))
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("n_steps", [1, 2, 60])
def test_batches_are_those_of_the_last_steps_also_of_the_epoch_before(training, monkeypatch, n_steps):
    monkeypatch.setattr(divergence, "LOOKED_BACK_ON", 3 * 16)
    n_batches = len(training.learned.rows) // 16
    n_steps = min(n_steps, n_batches)
    whole = [
        [batch.rows for batch in shuffled_batches(training.job, training.learned, epoch=epoch)] for epoch in (1, 2)
    ]
    seen = [*((1, rows) for rows in whole[0]), *((2, rows) for rows in whole[1][:n_steps])]

    found = list(recent_batches(training, course_of(0.2, 1.4, epoch=2, n_steps=n_steps)))

    assert [epoch for epoch, _ in found] == [epoch for epoch, _ in seen[-3:]]
    for (_, batch), (_, rows) in zip(found, seen[-3:], strict=True):
        np.testing.assert_array_equal(batch.rows, rows)
