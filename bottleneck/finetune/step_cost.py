"""What a training step costs: timed on a copy of the network, with crops, both passes and the update of SGD."""

from copy import deepcopy as copied
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from bottleneck.backbones import Backbone
from bottleneck.extraction import ThreadChoice, in_precision, using_threads
from bottleneck.finetune.average import WeightAverage
from bottleneck.finetune.folding import fold_frozen
from bottleneck.finetune.groups import MOMENTUM
from bottleneck.finetune.precision import choose_precision
from bottleneck.images import augment
from bottleneck.timing import Timed, Work, largest_timed, next_size, seconds_of

MOST_IMAGES = 32
"""Most images of the timed step: as many as one step of the recipe has."""
COPIES = 6
"""The network as it was loaded, prepared for the pass, and trained; its gradients, moments and average."""
JUDGED_IMAGES = 4
"""Images that decide in what arithmetic the step is timed."""
FEWEST_TELLING, TELLING_SECONDS, SLOW_SECONDS = 4, 0.03, 0.25
"""Which number of threads is fastest is told by a step on so many images that takes so long, and by one on a single
image only where that is slow: many threads have little to share in it."""
LARGE_UPDATE, TELLING_IMAGES = 0.2, 4
"""Where the update takes this share of what the timed batch does, the network has large matrices (alexnet, VGG), whose
gradients take as long for one image as for many: how long, a batch of so many tells."""
CLIP_NORM, DECAY = 1.0, 0.99
"""As in the recipe; what is clipped and averaged here is thrown away."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StepCost:
    """What each of the images of a step takes, and with how many threads it is fastest."""

    seconds_per_image: float
    bytes_per_image: int
    threads: int


class NoRoomError(RuntimeError):
    """There is no memory for one step."""


def measure_step(
    backbone: Backbone,
    device: torch.device,
    pixels: NDArray[np.uint8],
    *,
    room: int | None,
    image_bytes: int,
    freeze_groups: int = 0,
) -> StepCost:
    """Time steps on some of ``pixels`` (n, 3, h, w), of which one takes ``image_bytes`` without gradients.

    The first ``freeze_groups`` layer groups stay as they are.

    Raises
    ------
    NoRoomError
        There is no memory for a step within ``room`` bytes.
    RuntimeError
        No gradients go through this network.
    """
    left = None if room is None else room - COPIES * network_bytes(backbone)
    at_once = images_within(left, image_bytes)
    if not at_once:
        raise NoRoomError("there is no memory for a step within the limit")
    step = TimedStep(backbone, device, judged=pixels[: min(at_once, JUDGED_IMAGES)], freeze_groups=freeze_groups)
    one = an_image = max(saved_bytes(step, pixels[:1]), 1)
    if len(pixels) > 1 and (left is None or 2 * one <= left):
        # What one image has saved is partly weights, as they were folded or cast; a second one adds its own alone.
        an_image = max(saved_bytes(step, pixels[:2]) - one, 1)
    most = max(1, images_within(None if left is None else left - (one - an_image), an_image))
    threads, known = fastest_threads(step, pixels[:most])
    with using_threads(threads):
        batch = largest_timed(step, pixels[:most], known=known)
        # What comes after the gradients takes as long for one image as for a whole batch.
        update = fastest_of_two(step.update, pixels[:1])
        seconds = batch.seconds / batch.n_images
        if len(pixels[:most]) > 1 and update > LARGE_UPDATE * batch.seconds:
            few, alone = more_than_one(step, pixels[:most], batch)
            seconds = shared_out(few, alone=alone, at_once=most)
    return StepCost(seconds_per_image=seconds + update / MOST_IMAGES, bytes_per_image=an_image, threads=threads)


def more_than_one(step: Work, pixels: NDArray[np.uint8], batch: Timed) -> tuple[Timed, float]:
    """Return what a few images take, and one alone; where that takes long, two are enough, and once."""
    if batch.n_images == 1:
        return Timed(n_images=2, seconds=seconds_of(step, pixels[:2])), batch.seconds
    few = pixels[:TELLING_IMAGES]
    return Timed(n_images=len(few), seconds=fastest_of_two(step, few)), fastest_of_two(step, pixels[:1])


def shared_out(batch: Timed, *, alone: float, at_once: int) -> float:
    """Return the seconds of one of the images that go through a network ``at_once``.

    What one ``alone`` takes longer than its share of the batch is taken once for all of them.
    """
    an_image = max(batch.seconds - alone, 0.0) / (batch.n_images - 1)
    return an_image + max(alone - an_image, 0.0) / at_once


def fastest_of_two(work: Work, pixels: NDArray[np.uint8]) -> float:
    """Return the seconds that work takes once it is set up and little else runs."""
    return min(seconds_of(work, pixels) for _ in range(2))


class TimedStep:
    """Gradients of what learns, in the arithmetic in which the network says the same of ``judged``, and an update."""

    def __init__(
        self, backbone: Backbone, device: torch.device, *, judged: NDArray[np.uint8], freeze_groups: int = 0
    ) -> None:
        self.preprocess, self.device = backbone.preprocess, device
        network = copied(backbone.network).to(device).eval()
        frozen = {name for group in backbone.layer_groups[:freeze_groups] for name in group.parameters}
        learns = {
            parameter: name not in frozen
            for name, parameter in network.named_parameters()
            if parameter.is_floating_point()
        }
        for parameter, does in learns.items():
            parameter.requires_grad_(does)
        self.parameters = [parameter for parameter, does in learns.items() if does]
        # Before folding: a folded network's features differ more, and logits, by which training judges, do not.
        images = self.preprocess.normalise(torch.from_numpy(judged).to(device))
        self.precision = choose_precision(network, images)
        fold_frozen(network)
        self.network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stub lacks it
        self.moments = [torch.zeros_like(parameter) for parameter in self.parameters]
        self.average = WeightAverage(network, decay=DECAY)

    def __call__(self, pixels: NDArray[np.uint8]) -> None:
        """Leave the gradients of a loss on these images in the parameters."""
        for parameter in self.parameters:
            parameter.grad = None
        given, size = torch.from_numpy(pixels).to(self.device), pixels.shape[2:]
        views = self.preprocess.normalise(augment(given, range(len(pixels)), size=max(size), seed=0, epoch=1))
        if views.shape[2:] != size:
            views = functional.interpolate(views, size, mode="bilinear", antialias=True)
        images = views.contiguous(memory_format=torch.channels_last)
        with in_precision(self.precision, self.device):
            loss = self.network(images).float().square().mean()
        if self.parameters:  # else the head alone learns, in no time
            loss.backward()
        self._wait()

    @torch.no_grad()
    def update(self, _: object = None) -> None:
        """Do what follows the gradients, as far as it takes time; nothing moves.

        The optimizer's arithmetic is written out, because torch's own optimizers import its compiler, which takes
        longer than all that is timed here.
        """
        if self.parameters:
            nn.utils.clip_grad_norm_(self.parameters, CLIP_NORM)
        for parameter, moment in zip(self.parameters, self.moments, strict=True):
            if parameter.grad is not None:  # a layer that has no part in the features
                moment.mul_(MOMENTUM).add_(parameter.grad)
                parameter.add_(moment.mul(MOMENTUM).add_(parameter.grad), alpha=0.0)
        self.average.update()
        self._wait()

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def saved_bytes(step: TimedStep, pixels: NDArray[np.uint8]) -> int:
    """Return the bytes that a step on these images keeps for its backward pass."""
    saved = 0

    def note(tensor: torch.Tensor) -> torch.Tensor:
        nonlocal saved
        saved += tensor.numel() * tensor.element_size()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        step(pixels)
    return saved


def fastest_threads(step: Work, pixels: NDArray[np.uint8]) -> tuple[int, Timed | None]:
    """Return with how many threads a step is fastest, and what it took then on as many images as it takes to tell."""
    candidates, n = ThreadChoice().candidates, min(FEWEST_TELLING, len(pixels))
    if len(candidates) == 1:
        return candidates[0], None
    if seconds_of(step, pixels[:1]) > SLOW_SECONDS:
        n = 1
    while True:
        step(pixels[:n])  # the first one of a size also sets it up
        seconds = {}
        for threads in candidates:
            with using_threads(threads):
                seconds[threads] = seconds_of(step, pixels[:n])
        fastest = min(seconds, key=lambda threads: seconds[threads])
        if seconds[fastest] >= TELLING_SECONDS or n == len(pixels) or n == 1:
            return fastest, Timed(n_images=n, seconds=seconds[fastest])
        n = next_size(n, seconds[fastest], most=len(pixels))


def images_within(room: int | None, bytes_per_image: int) -> int:
    """Return how many images of a step there is room for; None is room for all."""
    return MOST_IMAGES if room is None else min(MOST_IMAGES, max(0, room // bytes_per_image))


def network_bytes(backbone: Backbone) -> int:
    """Return the memory of one copy of the network."""
    return sum(tensor.nbytes for tensor in backbone.network.state_dict().values())
