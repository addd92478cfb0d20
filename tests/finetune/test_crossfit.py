import itertools

import numpy as np
import pytest

from bottleneck.errors import BudgetError, InvalidInputError
from bottleneck.finetune.compare import ALPHAS
from bottleneck.finetune.crossfit import codes_of, cross_fit
from tests.finetune.tasks import Task, WatchedPixels, coloured_noise, make_job, make_task, probe_of

pytestmark = pytest.mark.usefixtures("one_thread")


def rows_of_folds(task: Task) -> list[tuple[set[int], set[int]]]:
    """Return the rows that were trained on, and those that were predicted, of each fold."""
    asked = []
    job = make_job(
        task,
        roomy=WatchedPixels(task=task, purpose="train", asked=asked),
        exact=WatchedPixels(task=task, purpose="predict", asked=asked),
        # Batches of one row, so that an epoch asks for all of them.
        batch_size=1,
        steps=len(task.labels),
    )
    cross_fit(job, probe_of(task))
    assert [purpose for purpose, _ in asked] == ["train", "predict"] * (len(asked) // 2)
    return [(trained, predicted) for (_, trained), (_, predicted) in zip(asked[::2], asked[1::2], strict=True)]


def test_codes_are_the_places_of_the_labels_among_the_classes(colours):
    assert list(colours.head.classes_[codes_of(colours.labels, colours.head)]) == list(colours.labels)


def test_each_fold_predicts_what_it_was_not_trained_on_and_all_together_every_image(backbone):
    folds = rows_of_folds(make_task(*coloured_noise(20, seed=0), backbone))

    assert len(folds) == 3
    assert all(not trained & predicted and len(trained | predicted) == 20 for trained, predicted in folds)
    assert sorted(itertools.chain(*(predicted for _, predicted in folds))) == list(range(20))


def test_copies_of_an_image_are_never_on_both_sides(backbone):
    pixels, labels = coloured_noise(12, seed=0)
    task = make_task(np.concatenate([pixels, pixels]), np.concatenate([labels, labels]), backbone)

    for trained, predicted in rows_of_folds(task):
        assert not {row % 12 for row in trained} & {row % 12 for row in predicted}


def test_probe_of_a_fold_has_not_seen_what_it_predicts(chance):
    """Labels are noise: only who has seen them does better than chance."""
    held_out = cross_fit(make_job(chance, steps=1), probe_of(chance)).held_out

    assert held_out.correct.shape == held_out.log_loss.shape == (60, len(ALPHAS))
    assert held_out.correct[:, 0].mean() < chance.head.score(chance.features, chance.labels) - 0.05


def test_networks_near_the_probe_predict_as_the_probe_does(colours):
    """With next to no training the whole path is the fold's probe."""
    held_out = cross_fit(make_job(colours, steps=1, lr=1e-9), probe_of(colours)).held_out

    for column in range(1, len(ALPHAS)):
        np.testing.assert_allclose(held_out.log_loss[:, column], held_out.log_loss[:, 0], atol=1e-4)


def test_hold_out_compares_a_quarter(colours):
    assert len(cross_fit(make_job(colours, steps=1, folds=1), probe_of(colours)).held_out.weights) == 15


def test_later_folds_take_no_more_steps_than_the_first_had_time_for(colours):
    ticks = iter(np.arange(0, 1000, 0.5))
    job = make_job(colours, steps=1000, deadline=40.0, clock=lambda: float(next(ticks)))

    steps = cross_fit(job, probe_of(colours)).steps

    last = {record.stage: record.step for record in job.history}
    assert list(last) == [f"fine-tuning, fold {fold} of 3" for fold in (1, 2, 3)]
    assert 5 <= steps == min(last.values()) <= max(last.values()) < 40
    assert list(last.values()) == sorted(last.values(), reverse=True)


def test_deadline_in_the_past_stops_before_the_first_step(colours):
    with pytest.raises(BudgetError):
        cross_fit(make_job(colours, deadline=0.0, clock=lambda: 1.0), probe_of(colours))


def test_nothing_to_hold_out_is_an_error(backbone):
    pixels, labels = coloured_noise(2, seed=0)
    task = make_task(np.repeat(pixels, 3, axis=0), np.repeat(labels, 3), backbone)

    with pytest.raises(InvalidInputError, match="to hold any out"):
        cross_fit(make_job(task), probe_of(task))
