"""What the trainings of one hand-off share."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bottleneck.backbones import Backbone
from bottleneck.finetune.pixels import Pixels
from bottleneck.finetune.recipe import Recipe
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

    def as_input(self, pixels: Tensor) -> Tensor:
        """Return uint8 pixels (n, 3, h, w) as the network takes them: normalised, float32, on the device."""
        images = self.backbone.preprocess.normalise(pixels.to(self.device))
        return images.contiguous(memory_format=torch.channels_last)
