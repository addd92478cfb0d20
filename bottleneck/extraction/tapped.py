"""A prepared network that returns the features of every layer, whichever threads call it at once."""

import threading
from collections.abc import Callable

import torch
from torch import Tensor, nn

from bottleneck.backbones import Backbone
from bottleneck.backbones.base import PENULTIMATE
from bottleneck.backbones.structure import Stage


class TappedNetwork:
    """Pixels to the pooled features of every layer, through a private copy of a backbone's network.

    ``Backbone.forward_layers`` hangs its taps on the modules for one pass. Here they stay, and each thread has its
    own place to put what it tapped: lanes share the modules and the weights, and never see each other's maps.
    """

    def __init__(self, backbone: Backbone, network: nn.Module, device: torch.device) -> None:
        self.network = network
        self.preprocess = backbone.preprocess
        self.stages = backbone.stages
        self.device = device
        self._tapped = threading.local()
        self.taps = [
            network.get_submodule(stage.module).register_forward_hook(self._tap(stage)) for stage in self.stages
        ]

    def __call__(self, pixels: Tensor) -> dict[str, Tensor]:
        """Return float32 features by layer, as ``Backbone.forward_layers`` does, of uint8 pixels (n, 3, h, w)."""
        pooled: dict[str, Tensor] = {}
        self._tapped.pooled = pooled
        try:
            with torch.inference_mode():
                penultimate = self.network(self.preprocess.normalise(pixels.to(self.device)))
        finally:
            del self._tapped.pooled
        return {PENULTIMATE: penultimate.float(), **{stage.name: pooled[stage.name] for stage in self.stages}}

    def _tap(self, stage: Stage) -> Callable[[nn.Module, object, Tensor], None]:
        def tap(module: nn.Module, args: object, output: Tensor) -> None:
            self._tapped.pooled[stage.name] = stage.pool(output)

        return tap
