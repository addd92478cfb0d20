"""One fine-tuning: the path of weights from a fitted probe to the network that training makes of it.

Wortsman et al. (2022), Robust fine-tuning of zero-shot models: averaging the weights before and after fine-tuning
often beats both ends. Here the start of the path *is* the linear probe.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from bottleneck.errors import BudgetError
from bottleneck.finetune.average import Weights, weights_of
from bottleneck.finetune.batches import rows_to_learn
from bottleneck.finetune.job import Job
from bottleneck.finetune.loop import run_training, start_training
from bottleneck.finetune.probe_network import ProbeNetwork, build_network
from bottleneck.finetune.ranks import synchronise_batch_norm, take_weights_of_first
from bottleneck.finetune.schedules import Pace, least_steps
from bottleneck.finetune.timing import Ahead, shortfall
from bottleneck.heads import LogisticHead

TRIAL_SHARE = 0.02
"""Share of the time left that a trial may take which shows how long predictions do."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Path:
    """Networks from the probe's weights (``start``) to the fine-tuned ones (``end``), which took ``steps``."""

    network: ProbeNetwork
    start: Weights
    end: Weights
    steps: int

    def at(self, alpha: float) -> ProbeNetwork:
        """Return the one network, in eval mode, with the weights (1 - alpha) start + alpha end."""
        blended = {
            # Integers are counters, of which there is no average.
            name: torch.lerp(self.start[name], end, alpha) if end.is_floating_point() else end
            for name, end in self.end.items()
        }
        self.network.load_state_dict(blended)
        return self.network.eval()


def fit_path(
    job: Job,
    head: LogisticHead,
    rows: NDArray[np.int64],
    *,
    codes: NDArray[np.int64],
    stage: str,
    pace: Pace,
    begin: Weights | None = None,
) -> Path:
    """Fine-tune on ``rows``, which have the class ``codes``, from ``head``; or from the weights ``begin``.

    The path starts at ``head`` in both cases.
    """
    network = build_network(job.backbone, head, recipe=job.recipe, device=job.device)
    if not job.recipe.freeze_batch_norm:
        synchronise_batch_norm(job.ranks, network, job.device)
    take_weights_of_first(job.ranks, network)
    learned = rows_to_learn(job, rows, codes, n_classes=len(head.classes_))
    start = weights_of(network)
    if begin is not None:
        network.load_state_dict(begin)
        take_weights_of_first(job.ranks, network)
    origin = start if begin is None else begin
    training = start_training(job, network, learned, stage=stage, pace=pace, origin=origin)
    end = run_training(training)
    job.timing.step = pace.step_seconds
    return Path(network=network, start=start, end=end, steps=pace.step)


@torch.inference_mode()
def predict_proba(
    job: Job, network: ProbeNetwork, rows: NDArray[np.int64], *, mirrored: bool = False
) -> NDArray[np.float64]:
    """Return class probabilities (n, n_classes) of ``rows``, from pixels as features are extracted from.

    ``mirrored``: of their mirror images. Each rank predicts its share of the rows.
    """
    proba, own = np.zeros((len(rows), network.linear.out_features)), np.arange(len(rows))[job.ranks.share(len(rows))]
    began, done = job.clock(), 0
    for pixels in job.exact.batches(rows[own], batch_size=job.micro_batch.size_up_to(job.recipe.batch_size)):
        images = job.as_input(pixels.flip(-1) if mirrored else pixels)
        proba[own[done : done + len(images)]] = network(images).double().softmax(dim=1).cpu().numpy()
        done += len(images)
    proba = job.ranks.sum(proba)
    job.timing.prediction = (job.clock() - began) / len(rows)
    return proba


def check_time_left(job: Job, head: LogisticHead, ahead: Ahead) -> None:
    """Raise if not even the shortest trainings fit before the deadline; note how long predictions take.

    Raises
    ------
    BudgetError
        They do not.
    """
    if job.deadline is None:
        return
    check_not_over(job, job.deadline - job.clock())
    network = build_network(job.backbone, head, recipe=job.recipe, device=job.device).eval()
    batch = np.arange(min(job.recipe.batch_size, len(job.weights)))
    for rows in (batch[:1], batch[:1], batch):  # the very first one also sets up the device
        seconds = job.deadline - job.clock()
        if job.ranks.first(job.timing.prediction * len(rows) > TRIAL_SHARE * seconds) and len(rows) > 1:
            break
        predict_proba(job, network, rows)
    refusal = shortfall(
        ahead,
        job.deadline - job.clock(),
        job.timing,
        images_a_training=least_steps(job.recipe.fold_steps) * job.recipe.batch_size * job.recipe.image_scale**2,
    )
    if refusal := job.ranks.first(refusal):
        raise BudgetError(refusal)


def check_not_over(job: Job, seconds: float) -> None:
    """Raise, on all ranks, if no seconds are left for a training."""
    if job.ranks.first(seconds <= 0):
        raise BudgetError("no time was left to train")


def n_predictable(job: Job, *, least: int) -> int | None:
    """Return how many images can be predicted before the deadline, or ``least``; None: any number."""
    if job.deadline is None or job.timing.prediction == 0:
        return job.ranks.first(None)
    return job.ranks.first(max(least, int((job.deadline - job.clock()) / job.timing.prediction)))


def share_of_time(job: Job, steps: int, ahead: Ahead) -> Pace:
    """Return the pace of the next of the trainings ``ahead``.

    Raises
    ------
    BudgetError
        The deadline has passed.
    """
    if job.deadline is None:
        return Pace(steps, deadline=None, clock=job.clock, decide=job.ranks.first)
    now = job.clock()
    seconds = ahead.seconds_a_training(job.deadline - now, job.timing)
    check_not_over(job, seconds)
    return Pace(
        steps,
        deadline=now + seconds,
        clock=job.clock,
        step_seconds=job.timing.step,
        decide=job.ranks.first,
    )
