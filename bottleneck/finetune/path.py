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
from bottleneck.finetune.batches import LabelledRows
from bottleneck.finetune.job import Job
from bottleneck.finetune.loop import run_training, start_training
from bottleneck.finetune.probe_network import ProbeNetwork, build_network
from bottleneck.finetune.ranks import synchronise_batch_norm, take_weights_of_first
from bottleneck.finetune.schedules import Pace
from bottleneck.heads import LogisticHead

FORWARD_SHARE = 1 / 3
"""Cost of predicting an image in units of learning from it: a backward pass costs about two forward passes."""


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
    job: Job, head: LogisticHead, rows: NDArray[np.int64], *, codes: NDArray[np.int64], stage: str, pace: Pace
) -> Path:
    """Fine-tune from ``head`` on ``rows``, which have the class ``codes``."""
    network = build_network(job.backbone, head, recipe=job.recipe, device=job.device)
    if not job.recipe.freeze_batch_norm:
        synchronise_batch_norm(job.ranks, network, job.device)
    take_weights_of_first(job.ranks, network)
    weights = job.weights[rows] / job.weights[rows].mean()
    learned = LabelledRows(rows=rows, codes=codes, weights=weights, n_classes=len(head.classes_))
    training = start_training(job, network, learned, stage=stage, pace=pace)
    start = weights_of(network)
    return Path(network=network, start=start, end=run_training(training), steps=pace.step)


@torch.inference_mode()
def predict_proba(
    job: Job, network: ProbeNetwork, rows: NDArray[np.int64], *, mirrored: bool = False
) -> NDArray[np.float64]:
    """Return class probabilities (n, n_classes) of ``rows``, from pixels as features are extracted from.

    ``mirrored``: of their mirror images. Each rank predicts its share of the rows.
    """
    proba, own = np.zeros((len(rows), network.linear.out_features)), np.arange(len(rows))[job.ranks.share(len(rows))]
    done = 0
    for pixels in job.exact.batches(rows[own], batch_size=job.recipe.batch_size):
        images = job.as_input(pixels.flip(-1) if mirrored else pixels)
        proba[own[done : done + len(images)]] = network(images).double().softmax(dim=1).cpu().numpy()
        done += len(images)
    return job.ranks.sum(proba)


def share_of_time(job: Job, steps: int, *, n_trainings_left: int, n_predicted: int) -> Pace:
    """Return the pace of the next of ``n_trainings_left`` equal trainings, after which ``n_predicted`` images follow.

    Raises
    ------
    BudgetError
        The deadline has passed.
    """
    now = job.clock()
    if job.ranks.first(job.deadline is not None and now >= job.deadline):
        raise BudgetError("no time was left to train")
    return Pace(
        steps,
        deadline=None if job.deadline is None else now + (job.deadline - now) / n_trainings_left,
        reserve=FORWARD_SHARE * n_predicted / job.recipe.batch_size,
        clock=job.clock,
        decide=job.ranks.first,
    )
