"""What a training step costs: timed on a copy of the network, with all that a step of fine-tuning does."""

import copy
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from bottleneck.backbones import Backbone
from bottleneck.extraction import ThreadChoice, in_precision, using_threads
from bottleneck.finetune.average import WeightAverage
from bottleneck.finetune.folding import fold_frozen
from bottleneck.finetune.groups import MOMENTUM
from bottleneck.finetune.precision import choose_precision
from bottleneck.images import augment
from bottleneck.timing import Timed, Work, next_size, seconds_of, seconds_per_image

MOST_IMAGES = 32
"""Most images of the timed step: as many as one step of the recipe has."""
COPIES = 6
"""The network as it was loaded, prepared for the pass, and trained; its gradients, moments and average."""
JUDGED_IMAGES = 4
"""Images that decide in what arithmetic the step is timed."""
TELLING_SECONDS = 0.03
"""A step that takes so long tells which number of threads is fastest, on whatever number of images."""
CLIP_NORM, DECAY = 1.0, 0.99
"""As in the recipe; what is clipped and averaged here is thrown away."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StepCost:
    """What each image of a step takes, and with how many threads it is fastest."""

    seconds_per_image: float
    bytes_per_image: int
    threads: int


def measure_step(
    backbone: Backbone, device: torch.device, pixels: NDArray[np.uint8], *, room: int | None, image_bytes: int
) -> StepCost:
    """Time steps on some of ``pixels`` (n, 3, h, w), of which one takes ``image_bytes`` without gradients.

    Raises
    ------
    RuntimeError
        No gradients go through this network, or there is no memory for one step within ``room`` bytes.
    """
    left = None if room is None else room - COPIES * network_bytes(backbone)
    at_once = images_within(left, image_bytes)
    if not at_once:
        raise RuntimeError("there is no memory for a step within the limit")
    step = TimedStep(backbone, device, judged=pixels[: min(at_once, JUDGED_IMAGES)])
    saved_bytes = 0

    def note_saved(tensor: torch.Tensor) -> torch.Tensor:
        nonlocal saved_bytes
        saved_bytes += tensor.numel() * tensor.element_size()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note_saved, lambda tensor: tensor):
        step(pixels[:1])
    most = max(1, images_within(left, max(saved_bytes, 1)))
    threads, known = fastest_threads(step, pixels[:most])
    with using_threads(threads):
        seconds = seconds_per_image(step, pixels[:most], known=known)
    return StepCost(seconds_per_image=seconds, bytes_per_image=saved_bytes, threads=threads)


class TimedStep:
    """Steps of all layers at a rate of zero, in the arithmetic in which the network says the same of ``judged``."""

    def __init__(self, backbone: Backbone, device: torch.device, *, judged: NDArray[np.uint8]) -> None:
        self.preprocess, self.device = backbone.preprocess, device
        network = copy.deepcopy(backbone.network).to(device).eval().requires_grad_(True)
        # Before folding: a folded network's features differ more, and logits, by which training judges, do not.
        images = self.preprocess.normalise(torch.from_numpy(judged).to(device))
        self.precision = choose_precision(network, images)
        fold_frozen(network)
        self.network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stub lacks it
        self.parameters = list(network.parameters())
        self.moments = [torch.zeros_like(parameter) for parameter in self.parameters]
        self.average = WeightAverage(network, decay=DECAY)

    def __call__(self, pixels: NDArray[np.uint8]) -> None:
        """Take one step on these images."""
        views = augment(torch.from_numpy(pixels), range(len(pixels)), size=pixels.shape[-1], seed=0, epoch=1)
        images = self.preprocess.normalise(views.to(self.device)).contiguous(memory_format=torch.channels_last)
        with in_precision(self.precision, self.device):
            loss = self.network(images).float().square().mean()
        loss.backward()
        nn.utils.clip_grad_norm_(self.parameters, CLIP_NORM)
        self._move()
        self.average.update()
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    @torch.no_grad()
    def _move(self) -> None:
        """Do what an optimizer does, as far as it takes time: torch's own import its compiler, which takes longer."""
        for parameter, moment in zip(self.parameters, self.moments, strict=True):
            if parameter.grad is not None:  # a layer that has no part in the features
                moment.mul_(MOMENTUM).add_(parameter.grad)
                parameter.add_(moment.mul(MOMENTUM).add_(parameter.grad), alpha=0.0)
                parameter.grad = None


def fastest_threads(step: Work, pixels: NDArray[np.uint8]) -> tuple[int, Timed | None]:
    """Return with how many threads a step is fastest, and what it took then on as many images as it takes to tell."""
    candidates, n = ThreadChoice().candidates, 1
    if len(candidates) == 1:
        return candidates[0], None
    while True:
        seconds = {}
        for threads in candidates:
            with using_threads(threads):
                step(pixels[:n])  # the first one of a size also sets it up
                seconds[threads] = seconds_of(step, pixels[:n])
        fastest = min(seconds, key=lambda threads: seconds[threads])
        if seconds[fastest] >= TELLING_SECONDS or n == len(pixels):
            return fastest, Timed(n_images=n, seconds=seconds[fastest])
        n = next_size(n, seconds[fastest], most=len(pixels))


def images_within(room: int | None, bytes_per_image: int) -> int:
    """Return how many images of a step there is room for; None is room for all."""
    return MOST_IMAGES if room is None else min(MOST_IMAGES, max(0, room // bytes_per_image))


def network_bytes(backbone: Backbone) -> int:
    """Return the memory of one copy of the network."""
    return sum(tensor.nbytes for tensor in backbone.network.state_dict().values())
