"""A training between two steps, as a snapshot, and back: the next step has the same bits."""

import logging
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from bottleneck.finetune.checkpoints import Snapshot
from bottleneck.finetune.job import Job
from bottleneck.finetune.step import Training

NETWORK, AVERAGE, OPTIMIZER = "network", "average", "optimizer"
STEP = "step"
RANDOM_STATE, CUDA_RANDOM_STATE = "random state", "random state on CUDA"


FIRST_IMAGES, FEW_IMAGES = 96, 320
"""Images, three and ten batches of 32, whose mean loss says how well a training began, while its rates are low, and how
it is doing."""

logger = logging.getLogger(__name__)


@dataclass(kw_only=True, slots=True)
class Course:
    """Where a training is: the last step that is over, the epoch (from 1), and what the steps done in it gave.

    ``first_loss`` is the mean over the first images of all, ``recent_loss`` that over about the last few.
    """

    step: int = 0
    epoch: int = 1
    n_steps: int = 0
    total_loss: float = 0.0
    n_correct: int = 0
    n_seen: int = 0
    factor: float = 0.0
    n_seen_in_all: int = 0
    first_loss: float = 0.0
    recent_loss: float = 0.0

    @property
    def loss(self) -> float:
        """Mean over the steps of this epoch."""
        return self.total_loss / self.n_steps

    @property
    def accuracy(self) -> float:
        """Mean over the images of this epoch."""
        return self.n_correct / self.n_seen

    def note(self, loss: float, n_correct: int, *, n_seen: int, step: int) -> None:
        """Take in what one step gave."""
        self.n_steps += 1
        self.total_loss += loss
        self.n_correct += n_correct
        self.n_seen += n_seen
        self.step = step
        self.n_seen_in_all += n_seen
        self.recent_loss += (loss - self.recent_loss) * n_seen / min(self.n_seen_in_all, max(FEW_IMAGES, n_seen))
        if self.n_seen_in_all <= max(FIRST_IMAGES, n_seen):
            self.first_loss = self.recent_loss

    def begin_epoch(self, epoch: int) -> None:
        """Forget what the steps of the last epoch gave."""
        self.epoch, self.n_steps, self.total_loss, self.n_correct, self.n_seen = epoch, 0, 0.0, 0, 0


def take_snapshot(training: Training, course: Course) -> Snapshot:
    """Return where a training is; the tensors are those that the next step changes."""
    average, job = training.average, training.job
    tensors = {f"{NETWORK}/{name}": tensor for name, tensor in training.network.state_dict().items()}
    tensors |= {f"{OPTIMIZER}/{name}": tensor for name, tensor in optimizer_tensors(training.optimizer).items()}
    if average is not None:
        tensors |= {f"{AVERAGE}/{name}": tensor for name, tensor in average.weights.items()}
    # Dropout and stochastic depth draw from these; everything else random follows from seed, epoch, step and row.
    tensors[RANDOM_STATE] = torch.get_rng_state()
    if job.device.type == "cuda":
        tensors[CUDA_RANDOM_STATE] = torch.cuda.get_rng_state(job.device)
    facts = {
        "stage": training.stage,
        "step": course.step,
        "course": asdict(course),
        "pace": training.pace.state(),
        "n_averaged": 0 if average is None else average.n_updates,
        "micro_batch": job.micro_batch.most,
        "threads": torch.get_num_threads(),
    }
    return Snapshot(facts=facts, tensors=tensors)


def go_on_from(snapshot: Snapshot, training: Training) -> Course:
    """Put a training that has done no step where another one was, in place."""
    facts, job = snapshot.facts, training.job
    training.network.load_state_dict(part_of(snapshot, NETWORK))
    restore_optimizer(training.optimizer, part_of(snapshot, OPTIMIZER))
    if training.average is not None:
        training.average.restore(part_of(snapshot, AVERAGE), n_updates=facts["n_averaged"])
    torch.set_rng_state(snapshot.tensors[RANDOM_STATE])
    if job.device.type == "cuda":
        torch.cuda.set_rng_state(snapshot.tensors[CUDA_RANDOM_STATE], job.device)
    training.pace.restore(facts["pace"])
    job.micro_batch.most = facts["micro_batch"]
    if facts["threads"] != torch.get_num_threads():
        logger.info("the training began with %d threads; another number changes the last bits", facts["threads"])
    return Course(**facts["course"])


def part_of(snapshot: Snapshot, part: str) -> dict[str, Tensor]:
    """Return the tensors of one part, by their names in it."""
    prefix = f"{part}/"
    return {name.removeprefix(prefix): tensor for name, tensor in snapshot.tensors.items() if name.startswith(prefix)}


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return what an optimizer remembers of each parameter, by the parameter's number and the name of the quantity."""
    return {
        f"{number}/{name}": value
        for number, parameter in enumerate(parameters_of(optimizer))
        for name, value in optimizer.state.get(parameter, {}).items()
        if isinstance(value, Tensor)
    }


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Let an optimizer remember what another one did."""
    parameters = list(parameters_of(optimizer))
    for full_name, tensor in tensors.items():
        number, _, name = full_name.partition("/")
        parameter = parameters[int(number)]
        # Moments lie in memory as the parameter does, where the optimizer made them; its counter stays where it is.
        like = tensor if name == STEP else parameter
        optimizer.state[parameter][name] = torch.empty_like(like, dtype=tensor.dtype).copy_(tensor).detach()


def parameters_of(optimizer: torch.optim.Optimizer) -> Iterator[Any]:
    """Yield all parameters, group by group."""
    for group in optimizer.param_groups:
        yield from group["params"]


def bytes_of(job: Job) -> int:
    """Return about how large the snapshot of a training is: weights, their average, and up to two moments."""
    weights: int = sum(tensor.nbytes for tensor in job.backbone.network.state_dict().values())
    return weights * (2 + (job.recipe.ema > 0) + (job.recipe.optimizer == "adamw"))
