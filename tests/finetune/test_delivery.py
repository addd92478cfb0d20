import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from bottleneck.errors import BudgetError
from bottleneck.finetune import FineTuneSettings, finetune
from bottleneck.finetune.average import Weights
from bottleneck.finetune.compare import Comparison
from bottleneck.finetune.crossfit import CHECKED_IMAGES, CrossFitted, cross_fit
from bottleneck.finetune.delivery import fit_on_all, how_to_begin, path_on_all
from bottleneck.finetune.groups import recipe_for
from bottleneck.finetune.identity import with_checkpoints
from bottleneck.finetune.job import Job
from bottleneck.finetune.timing import SPARE
from tests.finetune.tasks import Task, coloured_noise, flat, make_job, make_task, probe_of

pytestmark = pytest.mark.usefixtures("one_thread")

STEPS, FOLD_STEPS, STEP_SECONDS = 12, 4, 2.0


def compared(*, tuned_accuracy: float, alpha: float) -> Comparison:
    return Comparison(
        n_images=60,
        probe_accuracy=tuned_accuracy - 0.1,
        more_right=0.1,
        measured=0.1,
        standard_error=0.01,
        gain=0.1,
        doubt=0.01,
        z=0.5,
        alpha=alpha,
        path=(),
        accepted=True,
    )


@pytest.mark.parametrize("alpha", [0.0, 1.0])
def test_refit_stands_where_the_comparison_says(colours, alpha):
    folds = CrossFitted(held_out=None, steps=1, steps_on_all=3, gentler=0)
    delivered = fit_on_all(make_job(colours), probe_of(colours), folds, compared(tuned_accuracy=0.5, alpha=alpha))

    start, end = (network.state_dict() for network in (colours.backbone.network, delivered.network.network))
    assert all(torch.equal(tensor, start[name]) for name, tensor in end.items()) == (alpha == 0)
    assert delivered.steps == 3


def test_refit_that_does_worse_on_what_it_learnt_than_the_folds_on_what_they_did_not_has_collapsed(chance):
    folds = CrossFitted(held_out=None, steps=1, steps_on_all=1, gentler=0)
    with pytest.raises(FloatingPointError, match=r"collapsed, with an accuracy of 0\.\d+ .* 1\.000 were expected"):
        fit_on_all(make_job(chance), probe_of(chance), folds, compared(tuned_accuracy=1.0, alpha=1.0))


def timely(task: Task, *, left: float | None = None, refit: str = "as_time_allows") -> Job:
    """Return a job that may begin anew, with so many seconds left and steps that take two."""
    job = make_job(task, steps=STEPS, deadline=left, clock=lambda: 0.0)
    job.timing.step = STEP_SECONDS
    return replace(job, recipe=replace(job.recipe, refit=refit, fold_steps=FOLD_STEPS))


@pytest.fixture(scope="module")
def last(colours, one_thread) -> Weights:
    """The weights of a network that took the steps of a fold."""
    return path_on_all(make_job(colours, steps=FOLD_STEPS), probe_of(colours), steps=FOLD_STEPS, begin=None).end


def after_folds(last: Weights | None, *, steps: int = FOLD_STEPS) -> CrossFitted:
    return CrossFitted(held_out=None, steps=steps, steps_on_all=2 * steps, gentler=0, last=last)


@pytest.mark.parametrize("begins_anew", [True, False])
def test_the_last_training_takes_all_steps_from_the_probe_or_goes_on_from_the_fold(colours, last, begins_anew):
    job = timely(colours, refit="as_time_allows" if begins_anew else "continue")
    steps, begin = (STEPS, None) if begins_anew else (STEPS - FOLD_STEPS, last)
    naive = path_on_all(timely(colours), probe_of(colours), steps=steps, begin=begin)

    delivered = fit_on_all(job, probe_of(colours), after_folds(last), compared(tuned_accuracy=0.5, alpha=1.0))

    assert delivered.steps == STEPS
    assert torch.equal(flat(delivered.network.state_dict()), flat(naive.at(1.0).state_dict()))


def test_it_begins_anew_only_where_all_steps_fit(colours, last):
    needed = STEPS * STEP_SECONDS / (1 - SPARE)

    enough, short = (how_to_begin(timely(colours, left=needed + more), after_folds(last)) for more in (0.1, -0.1))

    assert (enough.weights, enough.steps, enough.before) == (None, STEPS, 0)
    assert short.weights is last
    assert (short.steps, short.before) == (STEPS - FOLD_STEPS, FOLD_STEPS)


def test_time_to_look_at_what_was_trained_is_set_aside(colours, last):
    job = timely(colours, left=(STEPS * STEP_SECONDS + min(CHECKED_IMAGES, len(colours.labels))) / (1 - SPARE) - 0.1)
    at_once = how_to_begin(job, after_folds(last))
    job.timing.prediction = 1.0

    assert at_once.weights is None
    assert how_to_begin(job, after_folds(last)).weights is last


def test_where_it_is_not_known_how_long_a_step_takes_nothing_begins_anew(colours, last):
    job = timely(colours, left=1000.0)
    job.timing.step = 0.0

    assert how_to_begin(job, after_folds(last)).weights is last


def test_what_a_step_takes_is_known_after_folds_without_a_deadline(colours):
    job = make_job(colours, steps=30, folds=1)

    cross_fit(job, probe_of(colours))

    assert job.timing.step > 0


def test_a_network_of_fewer_steps_than_were_compared_is_not_delivered(colours, last):
    job = timely(colours)
    job = replace(job, recipe=replace(job.recipe, steps=FOLD_STEPS - 1))

    with pytest.raises(BudgetError, match="only 3 steps fitted"):
        fit_on_all(job, probe_of(colours), after_folds(last), compared(tuned_accuracy=0.5, alpha=1.0))


def test_few_further_steps_are_steps_more_than_were_compared(colours, last):
    folds = replace(after_folds(last), steps_on_all=1)

    job, comparison = timely(colours, refit="continue"), compared(tuned_accuracy=0.5, alpha=1.0)
    delivered = fit_on_all(job, probe_of(colours), folds, comparison)

    assert delivered.steps == FOLD_STEPS + 1


def test_with_enough_images_the_whole_hand_off_begins_anew_if_there_is_time(backbone):
    task = make_task(*coloured_noise(102, seed=0), backbone)
    settings = FineTuneSettings(batch_size=50, lr=0.1, lr_decay=1.0, flip=False, folds=1, more_folds=False)
    usual = recipe_for(task.backbone, settings, n_images=102)

    result = finetune(
        task.source,
        task.labels,
        backbone=task.backbone,
        head=task.head,
        features=task.features,
        settings=settings,
        deadline=time.monotonic() + 1000.0,
    )

    last = {record.stage: record.step for record in result.history}
    assert list(last.values()) == [usual.fold_steps, usual.steps]


def test_folds_that_were_cut_are_gone_on_from(colours, last):
    assert how_to_begin(timely(colours), after_folds(last, steps=FOLD_STEPS - 1)).weights is last


def test_a_resumed_job_begins_the_last_training_as_it_did_before(colours, last, tmp_path: Path):
    def resumed(left: float) -> Job:
        return with_checkpoints(timely(colours, left=left), tmp_path, colours.source, colours.labels, workers=0)

    first = resumed(1000.0)
    first.checkpoints.has_written = True  # the run is long enough for checkpoints
    began = how_to_begin(first, after_folds(last))
    assert not first.checkpoints.path.exists()  # the training under way is to be in the same one
    first.keep({})
    again, other = (how_to_begin(job, after_folds(last)) for job in (resumed(1.0), timely(colours, left=1.0)))

    assert began.weights is again.weights is None
    assert other.weights is last
