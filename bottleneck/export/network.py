"""A fitted classifier as one torch module: images as they are to probabilities."""

import copy
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from bottleneck.backbones import Backbone
from bottleneck.backbones.base import PENULTIMATE
from bottleneck.backbones.structure import Stage
from bottleneck.estimators import TransferClassifier
from bottleneck.export.heads import as_module, unit_rows
from bottleneck.export.resampling import ResizeAndCrop


class LayerFeatures(nn.Module):
    """A copy of a backbone: whole numbers from 0 to 255 (n, 3, height, width) to features as a cache has them."""

    def __init__(self, backbone: Backbone, layers: Sequence[str]) -> None:
        super().__init__()
        self.preprocess = backbone.preprocess
        self.layers = tuple(layers)
        self.network = copy.deepcopy(backbone.network).cpu().eval()
        self.stages = tuple(stage for stage in backbone.stages if stage.name in self.layers)

    def forward(self, pixels: Tensor) -> list[Tensor]:
        """Return float32 features (n, width) of each layer."""
        found: dict[str, Tensor] = {}
        taps = [
            self.network.get_submodule(stage.module).register_forward_hook(_tap(stage, found)) for stage in self.stages
        ]
        try:
            found[PENULTIMATE] = self.network(self.preprocess.normalise(pixels)).float()
        finally:
            for tap in taps:
                tap.remove()
        return [as_stored(found[layer]) for layer in self.layers]


class ExportedClassifier(nn.Module):
    """uint8 images (n, height, width, 3) of any one size to float32 probabilities (n, n_classes)."""

    def __init__(self, classifier: TransferClassifier) -> None:
        super().__init__()
        self.resize_and_crop = ResizeAndCrop(classifier.backbone_.preprocess)
        self.features = LayerFeatures(classifier.backbone_, classifier.layers_)
        self.head = as_module(classifier.head_)

    def forward(self, images: Tensor) -> Tensor:
        """Return the probability of each class."""
        layers = self.features(self.resize_and_crop(images))
        joined = layers[0] if len(layers) == 1 else torch.cat([unit_rows(layer) for layer in layers], dim=1)
        probabilities: Tensor = self.head(joined)
        return probabilities


def as_stored(features: Tensor) -> Tensor:
    """Round features as the cache does: to float16, but for rows that overflow it."""
    rounded = features.to(torch.float16).to(torch.float32)
    overflowed = torch.isinf(rounded).any(dim=1, keepdim=True)
    return torch.where(overflowed, features, rounded)


def _tap(stage: Stage, found: dict[str, Tensor]) -> Callable[[nn.Module, object, Tensor], None]:
    def tap(module: nn.Module, args: object, output: Tensor) -> None:
        found[stage.name] = stage.pool(output)

    return tap
