"""The backbone that needs no download: a small residual network for images of 32 to 96 pixels.

``examples/train_embedded.py`` trained it; ``embedded.md`` beside this file says on what, how, and how good it is.
"""

from pathlib import Path

import torch
from torch import Tensor, nn

from bottleneck.backbones.base import RANDOM, Backbone, BackboneReference, build_backbone
from bottleneck.backbones.preprocess import Preprocess, parse_preprocess
from bottleneck.backbones.weights import as_weights_path, fixed_seed, load_tensors, read_weights
from bottleneck.errors import WeightsError

NAME = "embedded"
WEIGHTS = Path(__file__).with_name("embedded.safetensors")
TRAINED_ON = "Tiny ImageNet, 60,000 images of 200 classes"
HEAD = "head"
"""The classification layer that the file holds beside the network, with which its accuracy can be checked."""

WIDTHS = (32, 64, 128, 192)
BLOCKS = (1, 2, 2, 1)
N_FEATURES = 512

PREPROCESS = Preprocess(resize=64, crop=(64, 64), mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))


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


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut: maps (n, c, h, w) to (n, width, h / stride, w / stride)."""

    def __init__(self, n_channels: int, width: int, *, stride: int) -> None:
        super().__init__()
        self.first = ConvNorm(n_channels, width, size=3, stride=stride)
        self.second = ConvNorm(width, width, size=3)
        # A shortcut that averages loses nothing where one with a stride would skip three pixels of four.
        self.shortcut = (
            nn.Identity()
            if stride == 1 and n_channels == width
            else nn.Sequential(nn.AvgPool2d(stride, ceil_mode=True), ConvNorm(n_channels, width, size=1))
        )

    def forward(self, maps: Tensor) -> Tensor:
        """Return the maps of the next block."""
        inner = torch.relu(self.first(maps))
        return torch.relu(self.second(inner) + self.shortcut(maps))


class Mixer(nn.Module):
    """A 1x1 convolution to the many channels that a linear head likes: maps (n, c, h, w) to (n, width, h, w)."""

    def __init__(self, n_channels: int, width: int) -> None:
        super().__init__()
        self.mix = ConvNorm(n_channels, width, size=1)

    def forward(self, maps: Tensor) -> Tensor:
        """Return the mixed maps."""
        return torch.relu(self.mix(maps))


class EmbeddedNetwork(nn.Module):
    """A stem, four residual stages, a mixing stage and their mean: images (n, 3, h, w) to features (n, 512)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = ConvNorm(3, WIDTHS[0], size=3, stride=2)
        self.stages = nn.Sequential(*residual_stages(), Mixer(WIDTHS[-1], N_FEATURES))
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())

    def forward(self, images: Tensor) -> Tensor:
        """Return penultimate features."""
        features: Tensor = self.pool(self.stages(torch.relu(self.stem(images))))
        return features


def residual_stages() -> list[nn.Sequential]:
    """Return the residual stages; each but the first halves the side of the maps."""
    stages, n_channels = [], WIDTHS[0]
    for i, (width, n_blocks) in enumerate(zip(WIDTHS, BLOCKS, strict=True)):
        first = ResidualBlock(n_channels, width, stride=1 if i == 0 else 2)
        stages.append(nn.Sequential(first, *(ResidualBlock(width, width, stride=1) for _ in range(n_blocks - 1))))
        n_channels = width
    return stages


def load_embedded(weights: str | Path | None, *, preprocess: Preprocess | None) -> Backbone:
    """Build the embedded backbone; other weights than its own must be a file, or None for torch's initialisation.

    Raises
    ------
    WeightsError
        Weights that do not exist or do not fit.
    """
    if weights not in ("default", None) and as_weights_path(weights) is None:
        raise WeightsError(
            "The 'weights' parameter of the embedded backbone must be 'default', a path ending in .safetensors or "
            f".pth, or None. Got {weights!r} instead."
        )
    with fixed_seed():
        network = EmbeddedNetwork()
    path = WEIGHTS if weights == "default" else as_weights_path(weights)
    default, described = PREPROCESS, RANDOM
    if path is not None:
        file = read_weights(path)
        load_tensors(network, file, ignored=(HEAD,))
        default = parse_preprocess(file.metadata, base=PREPROCESS)
        described = TRAINED_ON if path == WEIGHTS else str(file.path)
    spec = "default" if path == WEIGHTS else described if path else None
    reference = BackboneReference(backbone=NAME, weights=spec, rebuildable=True)
    return build_backbone(
        network,
        reference,
        name=NAME,
        weights=described,
        preprocess=preprocess or default,
        stage_modules=[f"stages.{i}" for i in range(len(network.stages))],
    )
