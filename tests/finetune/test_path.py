from dataclasses import replace

import numpy as np
import pytest
import torch

from bottleneck.errors import BudgetError
from bottleneck.finetune.path import check_time_left, fit_path, n_predictable, predict_proba, share_of_time
from bottleneck.finetune.probe_network import build_network
from bottleneck.finetune.schedules import Pace
from bottleneck.finetune.timing import Ahead
from tests.finetune.slow import WorkClock, slow_task
from tests.finetune.tasks import codes_in, colour_blind_backbone, coloured_noise, make_job, make_task

pytestmark = pytest.mark.usefixtures("one_thread")


def walk(task, job):
    rows = np.arange(len(task.labels))
    pace = Pace(job.recipe.steps, deadline=None, clock=job.clock)
    return fit_path(job, task.head, rows, codes=codes_in(task), stage="test", pace=pace)


def same(first, second) -> bool:
    return all(torch.equal(first[name], second[name]) for name in first)


def test_path_leads_from_the_probe_to_the_tuned_network(colours):
    job = make_job(colours)
    path = walk(colours, job)
    rows = np.arange(len(colours.labels))

    at_start = predict_proba(job, path.at(0.0), rows)
    at_end = {name: tensor.clone() for name, tensor in path.at(1.0).state_dict().items()}
    halfway = path.at(0.5).state_dict()

    np.testing.assert_allclose(at_start, colours.head.predict_proba(colours.features), atol=1e-5)
    assert same(at_end, path.end)
    for name, tensor in halfway.items():
        if tensor.is_floating_point():
            torch.testing.assert_close(tensor, (path.start[name] + path.end[name]) / 2)
    assert path.steps == 10


def test_same_seed_gives_the_same_weights_bit_for_bit():
    task = make_task(*coloured_noise(40, seed=0), colour_blind_backbone(dropout=0.3))
    first = walk(task, make_job(task))
    torch.manual_seed(99)
    second, other = walk(task, make_job(task)), walk(task, make_job(task, seed=1))

    assert same(first.end, second.end)
    assert not same(first.end, other.end)


def test_training_leaves_the_random_state_of_the_caller_alone(colours):
    before = torch.get_rng_state()

    walk(colours, make_job(colours, steps=2))

    assert torch.equal(torch.get_rng_state(), before)


def test_time_left_is_shared_among_the_trainings_to_come(colours):
    job = make_job(colours, deadline=100.0, clock=lambda: 20.0)
    job.timing.head, job.timing.prediction = 3.0, 0.1

    pace = share_of_time(job, 50, Ahead(trainings=4, heads=2, images=100))

    assert pace.steps == 50
    assert pace.deadline == pytest.approx(20 + (0.99 * 80 - 2 * 3.0 - 100 * 0.1) / 4)


@pytest.mark.parametrize("ahead", [Ahead(trainings=1), Ahead(trainings=1, images=60)])
def test_no_training_begins_where_no_time_is_left_for_it(colours, ahead):
    job = make_job(colours, deadline=10.0 if ahead.images == 0 else 15.0, clock=lambda: 10.0)
    job.timing.prediction = 0.1

    with pytest.raises(BudgetError, match="no time was left"):
        share_of_time(job, 50, ahead)


def test_prediction_of_an_image_is_timed(colours):
    readings = iter([5.0, 8.0])
    job = make_job(colours, clock=lambda: next(readings))
    network = build_network(colours.backbone, colours.head, recipe=job.recipe, device=job.device).eval()

    predict_proba(job, network, np.arange(30))

    assert job.timing.prediction == pytest.approx(0.1)


def test_what_cannot_fit_is_refused_after_a_look_at_an_image_or_two():
    """An image takes three seconds: fourteen steps of sixteen images would take eleven minutes."""
    slow = slow_task(WorkClock(), learning=9.0)
    job = make_job(slow.task, steps=300, deadline=600.0, clock=slow.clock)

    with pytest.raises(BudgetError, match=r"need more than 672\.0 s, and 594\.0 s are left"):
        check_time_left(job, slow.task.head, Ahead(trainings=1))

    check_time_left(replace(job, deadline=1000.0), slow.task.head, Ahead(trainings=1))
    smaller = replace(job, recipe=replace(job.recipe, image_scale=0.5))
    check_time_left(smaller, slow.task.head, Ahead(trainings=1))  # a quarter of the pixels


@pytest.mark.parametrize("left, expected", [(30.0, 300), (1.0, 100)])
def test_final_look_is_at_as_many_images_as_there_is_time_for_but_a_few(colours, left, expected):
    job = make_job(colours, deadline=50.0 + left, clock=lambda: 50.0)
    job.timing.prediction = 0.1

    assert n_predictable(job, least=100) == expected
    assert n_predictable(replace(job, deadline=None), least=100) is None
