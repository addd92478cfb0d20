import numpy as np
import pytest
import torch

from bottleneck.errors import BudgetError
from bottleneck.finetune.path import fit_path, predict_proba, share_of_time
from bottleneck.finetune.schedules import Pace
from tests.finetune.tasks import codes_in, colour_blind_backbone, coloured_noise, make_job, make_task

pytestmark = pytest.mark.usefixtures("one_thread")


def walk(task, job):
    rows = np.arange(len(task.labels))
    pace = Pace(job.recipe.steps, deadline=None, reserve=0, clock=job.clock)
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

    pace = share_of_time(job, 50, n_trainings_left=4, n_predicted=96)

    assert pace.deadline == 40.0
    assert pace.steps == 50
    assert pace.reserve == pytest.approx(96 / 3 / 16)


def test_no_training_begins_after_the_deadline(colours):
    with pytest.raises(BudgetError, match="no time was left"):
        share_of_time(make_job(colours, deadline=10.0, clock=lambda: 10.0), 50, n_trainings_left=1, n_predicted=0)
