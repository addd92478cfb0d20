import itertools
from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.base import clone

from bottleneck.errors import BudgetError, InvalidInputError
from bottleneck.finetune import checkpoints, crossfit
from bottleneck.finetune.checkpoints import Snapshot
from bottleneck.finetune.compare import ALPHAS
from bottleneck.finetune.crossfit import check_not_lost, cross_fit, gentler_until_it_holds, whole_hand_off
from bottleneck.finetune.identity import with_checkpoints
from bottleneck.finetune.path import check_time_left
from tests.finetune.slow import WorkClock, slow_task
from tests.finetune.tasks import Blocks, Task, WatchedPixels, coloured_noise, make_job, make_task, probe_of

pytestmark = pytest.mark.usefixtures("one_thread")


def rows_of_folds(task: Task, *, groups: NDArray[np.intp] | None = None) -> list[tuple[set[int], set[int]]]:
    """Return the rows that were trained on, and those that were predicted, of each fold."""
    asked = []
    job = make_job(
        task,
        roomy=WatchedPixels(task=task, purpose="train", asked=asked),
        exact=WatchedPixels(task=task, purpose="predict", asked=asked),
        # Batches of one row, so that an epoch asks for all of them.
        batch_size=1,
        steps=len(task.labels),
        lr=1e-4,
    )
    cross_fit(job, replace(probe_of(task), groups=groups))
    assert [purpose for purpose, _ in asked] == ["train", "predict"] * (len(asked) // 2)
    return [(trained, predicted) for (_, trained), (_, predicted) in zip(asked[::2], asked[1::2], strict=True)]


def weights_of(task: Task) -> dict[str, torch.Tensor]:
    return {name: tensor for name, tensor in task.backbone.network.state_dict().items() if tensor.is_floating_point()}


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


def test_images_of_a_group_are_never_on_both_sides(backbone):
    groups = np.arange(24) // 3

    folds = rows_of_folds(make_task(*coloured_noise(24, seed=0), backbone), groups=groups)

    assert len(folds) == 3
    assert all(not set(groups[list(trained)]) & set(groups[list(predicted)]) for trained, predicted in folds)


def test_features_in_blocks_are_compared_as_the_array_is(colours):
    in_memory = make_task(colours.pixels, colours.labels, colours.backbone, Cs=[0.1])
    head = clone(in_memory.head).set_params(memory_limit=1).fit(colours.features, colours.labels)
    in_blocks = replace(probe_of(colours), head=head, features=Blocks(array=colours.features))

    streamed = cross_fit(make_job(colours, steps=1), in_blocks).held_out

    expected = cross_fit(make_job(colours, steps=1), probe_of(in_memory)).held_out
    np.testing.assert_array_equal(streamed.correct[:, 0], expected.correct[:, 0])
    np.testing.assert_allclose(streamed.log_loss[:, 0], expected.log_loss[:, 0], atol=1e-4)


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


def test_one_group_is_too_little_to_compare_by(colours):
    with pytest.raises(InvalidInputError, match="or groups"):
        cross_fit(make_job(colours, steps=1, folds=1), replace(probe_of(colours), groups=np.zeros(60, dtype=int)))


def test_few_groups_are_all_held_out_in_turn(colours):
    few, many = (
        cross_fit(make_job(colours, steps=1, folds=1), replace(probe_of(colours), groups=np.arange(60) // size))
        for size in (20, 3)
    )

    assert len(few.held_out.weights) == 60
    assert len(many.held_out.weights) < 30


@pytest.mark.parametrize("n_worse, loses", [(12, True), (1, False)])
def test_a_network_that_is_clearly_worse_on_held_out_images_has_lost(colours, n_worse, loses):
    rows = np.arange(30)
    correct = torch.ones(30, len(ALPHAS), dtype=torch.bool)
    correct[:n_worse, -1] = False
    scores = {"correct": correct, "log_loss": torch.zeros(30, len(ALPHAS)), "margin": torch.zeros(30, len(ALPHAS))}
    kept = Snapshot(facts={}, tensors=scores)

    with pytest.raises(FloatingPointError, match=r"40\.0 points worse") if loses else nullcontext():
        check_not_lost(make_job(colours), probe_of(colours), rows, kept)


def test_rates_that_lose_are_lowered_once(colours):
    tried = []

    def fit(job):
        tried.append(job.recipe.learning_rates[-1])
        return None, Snapshot(facts={})

    def check(kept):
        raise FloatingPointError("it lost")

    _, kept = gentler_until_it_holds(make_job(colours, lr=0.1, lr_decay=1.3), fit, check, "a fold", 0)

    assert tried == [0.1, 0.05]
    assert kept.facts == {"gentler": 1}


def test_rates_too_high_for_a_network_are_lowered_until_training_holds(staged):
    """Without normalisation layers a loss of 0.01 rises to thousands at a rate of 1; less is fine."""
    fitted = cross_fit(make_job(staged, steps=60, lr=1.0), probe_of(staged))

    assert fitted.gentler > 0
    assert fitted.held_out.correct[:, -1].mean() > fitted.held_out.correct[:, 0].mean()
    assert cross_fit(make_job(staged, steps=40, lr=0.003), probe_of(staged)).gentler == 0


def test_hold_out_compares_a_third(colours):
    assert len(cross_fit(make_job(colours, steps=1, folds=1), probe_of(colours)).held_out.weights) == 20


def test_further_folds_are_held_out_as_long_as_it_is_in_doubt_which_is_better(colours):
    asked = []

    def in_doubt(held_out):
        asked.append(len(held_out.weights))
        return len(asked) == 1

    sure, doubtful, told = (
        cross_fit(make_job(colours, steps=1, folds=1, more_folds=more), probe_of(colours), in_doubt=doubt)
        for more, doubt in ((True, lambda _: False), (True, in_doubt), (False, lambda _: True))
    )

    assert [len(each.held_out.weights) for each in (sure, doubtful, told)] == [20, 40, 20]
    assert asked == [20, 40]
    np.testing.assert_array_equal(doubtful.held_out.log_loss[:20], sure.held_out.log_loss)
    assert not torch.equal(doubtful.last["linear.weight"], sure.last["linear.weight"])  # that of the last fold


@pytest.mark.parametrize("seconds, n_compared", [(75.0, 40), (180.0, 60)])
def test_a_further_fold_is_held_out_if_it_fits_whole_and_half_as_many_steps_after_it(seconds, n_compared):
    slow = slow_task(WorkClock(), learning=1 / 16)
    job = make_job(slow.task, steps=60, folds=1, more_folds=True, deadline=seconds, clock=slow.clock)

    fitted = cross_fit(job, probe_of(slow.task), in_doubt=lambda _: True)

    assert fitted.steps == 20
    assert len(fitted.held_out.weights) == n_compared
    assert {record.stage: record.step for record in job.history} == {
        f"fine-tuning, fold {fold} of {fold}": 20 for fold in range(1, n_compared // 20 + 1)
    }
    assert slow.clock.now + 10 < seconds  # there is time for half of a fold's steps on all images


def test_what_stops_a_further_fold_leaves_the_comparison_as_it_was(colours, monkeypatch):
    job = make_job(colours, steps=1, folds=1, more_folds=True)
    alone = cross_fit(job, probe_of(colours))
    fit_path = crossfit.fit_path

    def stopping(job, *args, stage, **given):
        if "fold 2" in stage:
            raise BudgetError("no time")
        return fit_path(job, *args, stage=stage, **given)

    monkeypatch.setattr(crossfit, "fit_path", stopping)
    stopped = cross_fit(job, probe_of(colours), in_doubt=lambda _: True)

    np.testing.assert_array_equal(stopped.held_out.log_loss, alone.held_out.log_loss)
    assert torch.equal(stopped.last["linear.weight"], alone.last["linear.weight"])


def test_time_for_a_further_fold_is_known_where_a_fit_goes_on(colours, tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints, "LEAST_SECONDS", 0.0)
    monkeypatch.setattr(checkpoints, "WRITES_APART", 0)
    options = {"steps": 60, "folds": 1, "more_folds": True}

    def kept_job(task, **given):
        return with_checkpoints(make_job(task, **options, **given), tmp_path, task.source, task.labels, workers=0)

    first = slow_task(WorkClock(), learning=1 / 16)
    cross_fit(kept_job(first.task, clock=first.clock, deadline=300.0), probe_of(first.task))
    later = slow_task(WorkClock(), learning=1 / 16)

    little, enough = (
        cross_fit(kept_job(later.task, clock=later.clock, deadline=left), probe_of(later.task), in_doubt=lambda _: True)
        for left in (30.0, 50.0)
    )

    assert (len(little.held_out.weights), len(enough.held_out.weights)) == (20, 40)


@pytest.mark.parametrize("refit", ["continue", "as_time_allows", "anew"])
def test_weights_of_the_last_fold_are_there_to_go_on_from_unless_training_begins_anew(colours, refit):
    job = make_job(colours, steps=4, lr=0.1, lr_decay=1.0, folds=2)
    job = replace(job, recipe=replace(job.recipe, refit=refit))

    last = cross_fit(job, probe_of(colours)).last

    if refit == "anew":
        assert last is None
    else:
        assert any(not torch.equal(last[f"network.{name}"], given) for name, given in weights_of(colours).items())


def test_later_folds_take_no_more_steps_than_the_first_had_time_for():
    slow = slow_task(WorkClock(noise=0.3), learning=1 / 16)
    job = make_job(slow.task, steps=1000, deadline=140.0, clock=slow.clock)

    steps = cross_fit(job, probe_of(slow.task)).steps

    last = {record.stage: record.step for record in job.history}
    assert list(last) == [f"fine-tuning, fold {fold} of 3" for fold in (1, 2, 3)]
    assert 20 <= steps == min(last.values()) <= max(last.values()) < 40
    assert list(last.values()) == sorted(last.values(), reverse=True)


def test_time_of_what_follows_is_left_to_it():
    """Equal folds and one training of twice their steps, whatever heads and predictions take beside them."""
    slow = slow_task(WorkClock(), learning=1 / 16, predicting=1 / 16, head=10.0)
    job = make_job(slow.task, steps=1000, deadline=200.0, clock=slow.clock)
    check_time_left(job, slow.task.head, whole_hand_off(job.recipe, n_images=60))

    cross_fit(job, probe_of(slow.task))

    trainings = list({record.stage: record.step for record in job.history}.values())
    others = 3 * 10 + (3 * 20 * 5 + 60 + 18) / 16
    assert trainings == [pytest.approx((200 - others) / 5, abs=1.5)] * 3
    assert 200 - slow.clock.now == pytest.approx(2 * trainings[-1] + 60 / 16, abs=7)


def test_deadline_in_the_past_stops_before_the_first_step(colours):
    with pytest.raises(BudgetError):
        cross_fit(make_job(colours, deadline=0.0, clock=lambda: 1.0), probe_of(colours))


def test_nothing_to_hold_out_is_an_error(backbone):
    pixels, labels = coloured_noise(2, seed=0)
    task = make_task(np.repeat(pixels, 3, axis=0), np.repeat(labels, 3), backbone)

    with pytest.raises(InvalidInputError, match="to hold any out"):
        cross_fit(make_job(task), probe_of(task))
