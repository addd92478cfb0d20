"""What the trainings of one hand-off share."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bottleneck.backbones import Backbone
from bottleneck.finetune.checkpoints import Checkpoints, Snapshot
from bottleneck.finetune.memory import MicroBatch
from bottleneck.finetune.pixels import Pixels, open_both
from bottleneck.finetune.ranks import ALONE, Ranks
from bottleneck.finetune.recipe import Recipe
from bottleneck.finetune.timing import Timing, ending_at
from bottleneck.images import ImageSource
from bottleneck.progress import ProgressCallback


@dataclass(frozen=True, kw_only=True, slots=True)
class EpochRecord:
    """What one epoch did.

    Attributes
    ----------
    stage : str
        Which training it belongs to.
    epoch : int
        From 1.
    step : int
        Optimizer steps done at its end.
    loss, accuracy : float
        Means over the augmented training images, each seen by the network as it was at that moment.
    learning_rates : tuple of float
        Of each layer group and the head, at its last step.
    """

    stage: str
    epoch: int
    step: int
    loss: float
    accuracy: float
    learning_rates: tuple[float, ...]


EpochCallback = Callable[[EpochRecord], None]


def ignore(record: EpochRecord) -> None:
    """Tell nobody of an epoch."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Job:
    """What the trainings of one hand-off share.

    Attributes
    ----------
    weights : float32 array (n,)
        What each image counts, class weights included.
    roomy, exact : Pixels
        Images with room for random crops, and exactly as features are extracted from them.
    deadline : float or None
        Value of ``clock`` at which all must be over.
    history : list of EpochRecord
        Grows with every epoch, so that it survives whatever stops a training.
    micro_batch : MicroBatch
        What one training learned about the memory, the next need not.
    timing : Timing
        What parts of the job took that come again.
    checkpoints : Checkpoints or None
        Where the job is kept, and may have been before.
    on_epoch : callable
        Told each epoch's record when it is over.
    ranks : Ranks
        The processes that do this job together.
    """

    backbone: Backbone
    recipe: Recipe
    weights: NDArray[np.float32]
    roomy: Pixels
    exact: Pixels
    device: torch.device
    seed: int
    deadline: float | None
    clock: Callable[[], float]
    progress: ProgressCallback
    history: list[EpochRecord] = field(default_factory=list)
    micro_batch: MicroBatch = field(default_factory=MicroBatch)
    timing: Timing = field(default_factory=Timing)
    checkpoints: Checkpoints | None = None
    on_epoch: EpochCallback = ignore
    ranks: Ranks = ALONE

    def as_input(self, pixels: Tensor) -> Tensor:
        """Return uint8 pixels (n, 3, h, w) as the network takes them: normalised, float32, on the device."""
        images = self.backbone.preprocess.normalise(pixels.to(self.device))
        return images.contiguous(memory_format=torch.channels_last)

    @property
    def has_checkpoint(self) -> bool:
        """Whether the job could go on from the disk."""
        return self.checkpoints is not None and self.checkpoints.has_written

    def kept(self, part: str) -> Snapshot | None:
        """Return what a part of the job gave that was finished before it was stopped; None if it was not."""
        return None if self.checkpoints is None else self.checkpoints.parts.get(part)

    def keep(self, finished: Mapping[str, Snapshot]) -> None:
        """Keep what finished parts of the job gave, all at once."""
        if self.checkpoints is not None:
            self.checkpoints.finish(finished, history=self.told_history())

    def keep_with_the_next(self, decided: Mapping[str, Snapshot]) -> None:
        """Keep what was decided together with the next that is kept, and not before."""
        if self.checkpoints is not None:
            self.checkpoints.parts.update(decided)

    def told_history(self) -> list[dict[str, Any]]:
        """Return the history in plain values."""
        return [asdict(record) for record in self.history]


def open_job(
    source: ImageSource,
    *,
    backbone: Backbone,
    recipe: Recipe,
    weights: NDArray[np.float32],
    device: torch.device,
    seed: int,
    workers: int,
    memory_limit: int | None,
    deadline: float | None,
    clock: Callable[[], float],
    progress: ProgressCallback,
    history: list[EpochRecord],
) -> Job:
    """Return the job, its images decoded into memory where they fit.

    Raises
    ------
    BudgetError
        The deadline has passed before all were decoded.
    """
    watched = ending_at(deadline, clock, progress)
    roomy, exact = open_both(source, backbone, workers=workers, memory_limit=memory_limit, progress=watched)
    return Job(
        backbone=backbone,
        recipe=recipe,
        weights=weights,
        roomy=roomy,
        exact=exact,
        device=device,
        seed=seed,
        deadline=deadline,
        clock=clock,
        progress=progress,
        history=history,
    )
