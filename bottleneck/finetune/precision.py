"""In which arithmetic the training steps are computed: the fastest, unless it changes what the network says."""

import logging

import torch
from torch import Tensor, nn

from bottleneck.extraction import Precision, fastest_precision, in_precision

logger = logging.getLogger(__name__)

LOGIT_TOLERANCE = 0.1
"""How far logits may be from those in float32, as a share of how far those of one image lie apart (both root mean
squares). Weights and what is compared with the probe are float32 in any case; this is about the gradients. A
MobileNetV2 is at 0.08: its loss differed by 1 to 23 % while it learned, and what it had learned was no worse (clothing,
500 images, 100 steps at 160 pixels, three seeds: 78.5, 83.6, 82.0 % of 372 test images in float32, 80.9, 83.1, 81.5 in
bfloat16)."""


def choose_precision(network: nn.Module, images: Tensor) -> Precision:
    """Return the arithmetic to train ``network`` in, judged by its logits for normalised ``images`` (n, 3, h, w)."""
    fastest = fastest_precision(images.device)
    if fastest == "float32":
        return fastest
    error = logit_error(network, images, precision=fastest)
    if not error <= LOGIT_TOLERANCE:
        logger.info(
            "training in float32: in %s the first logits are %.1f %% off, at most %.0f %% are allowed",
            fastest,
            100 * error,
            100 * LOGIT_TOLERANCE,
        )
        return "float32"
    return fastest


@torch.inference_mode()
def logit_error(network: nn.Module, images: Tensor, *, precision: Precision) -> float:
    """Return how far logits are from those in float32, relative to their spread among the classes of an image."""
    network.eval()
    exact = centred(network(images))
    with in_precision(precision, images.device):
        fast = network(images)
    error, spread = float((centred(fast.float()) - exact).norm()), float(exact.norm())
    return error / spread if error > 0 else error


def centred(logits: Tensor) -> Tensor:
    """Return logits less their mean over the classes, which no probability depends on."""
    return logits - logits.mean(dim=1, keepdim=True)
