"""What the trainings of one hand-off share."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bottleneck.backbones import Backbone
from bottleneck.finetune.memory import MicroBatch
from bottleneck.finetune.pixels import Pixels, open_both
from bottleneck.finetune.recipe import Recipe
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

    def as_input(self, pixels: Tensor) -> Tensor:
        """Return uint8 pixels (n, 3, h, w) as the network takes them: normalised, float32, on the device."""
        images = self.backbone.preprocess.normalise(pixels.to(self.device))
        return images.contiguous(memory_format=torch.channels_last)


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
    """Return the job, its images decoded into memory where they fit."""
    roomy, exact = open_both(source, backbone, workers=workers, memory_limit=memory_limit, progress=progress)
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
