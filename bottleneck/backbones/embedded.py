"""The backbone that needs no download: a small residual network for images of 32 to 96 pixels.

It is not trained: its filters are random. They come from NumPy's frozen ``RandomState`` stream, so that the features
are the same on every machine and with every version of torch. Random filters with a linear head do well on small,
centred images (Saxe et al. 2011, "On Random Weights and Unsupervised Feature Learning") and poorly on photographs.
"""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from bottleneck.backbones.base import RANDOM, UNTRAINED, Backbone, BackboneReference, build_backbone
from bottleneck.backbones.preprocess import Preprocess, parse_preprocess
from bottleneck.backbones.weights import as_weights_path, fixed_seed, load_tensors, read_weights
from bottleneck.errors import WeightsError

NAME = "embedded"
FILTER_SEED = 0

WIDTHS = (16, 32, 64, 128, 64)
STRIDES = (1, 2, 2, 1, 1)
QUARTERS = 2
"""Features are averaged over the quarters of the image: random filters alone do not say where something is."""

PREPROCESS = Preprocess(resize=32, crop=(32, 32), mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))


class ConvNorm(nn.Module):
    """A convolution without bias, then batch normalisation."""

    def __init__(self, n_channels: int, width: int, *, size: int, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(n_channels, width, size, stride=stride, padding=size // 2, bias=False)
        self.norm = nn.BatchNorm2d(width)

    def forward(self, maps: Tensor) -> Tensor:
        """Return the normalised maps."""
        normalised: Tensor = self.norm(self.conv(maps))
        return normalised


class ResidualStage(nn.Module):
    """Two 3x3 convolutions beside a shortcut that averages: maps (n, c, h, w) to (n, width, h / stride, w / stride)."""

    def __init__(self, n_channels: int, width: int, *, stride: int) -> None:
        super().__init__()
        self.first = ConvNorm(n_channels, width, size=3, stride=stride)
        self.second = ConvNorm(width, width, size=3)
        self.pool = nn.AvgPool2d(stride, ceil_mode=True)
        self.shortcut = ConvNorm(n_channels, width, size=1)

    def forward(self, maps: Tensor) -> Tensor:
        """Return the maps of the next stage."""
        inner = torch.relu(self.first(maps))
        return torch.relu(self.second(inner) + self.shortcut(self.pool(maps)))


class EmbeddedNetwork(nn.Module):
    """A stem, five residual stages and the mean over each quarter: images (n, 3, h, w) to features (n, 256)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = ConvNorm(3, WIDTHS[0], size=3)
        widths = zip((WIDTHS[0], *WIDTHS[:-1]), WIDTHS, STRIDES, strict=True)
        self.stages = nn.Sequential(*(ResidualStage(n, width, stride=stride) for n, width, stride in widths))
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(QUARTERS), nn.Flatten())

    def forward(self, images: Tensor) -> Tensor:
        """Return penultimate features."""
        features: Tensor = self.pool(self.stages(torch.relu(self.stem(images))))
        return features


def load_embedded(weights: str | Path | None, *, preprocess: Preprocess | None) -> Backbone:
    """Build the embedded backbone; other weights than its own must be a file, or None for torch's initialisation.

    Raises
    ------
    WeightsError
        Weights that do not exist or do not fit.
    """
    with fixed_seed():
        network = EmbeddedNetwork()
    path = as_weights_path(weights)
    default, described = PREPROCESS, RANDOM
    if path is not None:
        file = read_weights(path)
        load_tensors(network, file)
        default, described = parse_preprocess(file.metadata, base=PREPROCESS), str(file.path)
    elif weights == "default":
        _fill_with_random_filters(network)
        described = UNTRAINED
    elif weights is not None:
        raise WeightsError(
            "The 'weights' parameter of the embedded backbone must be 'default', a path ending in .safetensors or "
            f".pth, or None. Got {weights!r} instead."
        )
    spec = described if path else None if weights is None else "default"
    reference = BackboneReference(backbone=NAME, weights=spec, rebuildable=True)
    return build_backbone(
        network,
        reference,
        name=NAME,
        weights=described,
        preprocess=preprocess or default,
        stage_modules=[f"stages.{i}" for i in range(len(WIDTHS))],
    )


def _fill_with_random_filters(network: EmbeddedNetwork) -> None:
    """Draw the filters, and set the statistics of the normalisations so that activations keep unit scale.

    Independent filters of unit norm keep the mean square of what they see, and ReLU halves it: 1 for the image, 0.5
    after the stem and inside a stage, and 1 again after every stage, where two terms of mean square 1 are added.
    """
    random = np.random.RandomState(FILTER_SEED)
    for name, layer in network.named_modules():
        if isinstance(layer, ConvNorm):
            shape = layer.conv.weight.shape
            # Uniform draws are the same to the last bit everywhere; normal ones go through the C library's logarithm.
            drawn = (2 * random.random_sample(shape) - 1) * np.sqrt(3 / shape[1:].numel())
            layer.conv.weight.data.copy_(torch.from_numpy(drawn))
            halved = name.startswith("stages.0.") or name.endswith(".second")
            torch.nn.init.constant_(layer.norm.get_buffer("running_var"), 0.5 if halved else 1.0)
