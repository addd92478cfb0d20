"""The running average of the weights (Polyak and Juditsky 1992), which is steadier than the last ones."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

Weights = Mapping[str, Tensor]


class WeightAverage:
    """An exponential moving average of all parameters and buffers of a network that is being trained.

    Statistics of BatchNorm are averaged as weights are; integers are counters and simply the last ones.

    Parameters
    ----------
    network : nn.Module
    decay : float
        Share of the old average in the new one; less in the first steps, so that the start is soon forgotten.
    """

    def __init__(self, network: nn.Module, *, decay: float) -> None:
        self.decay = decay
        self.n_updates = 0
        self._network = network
        self._average = weights_of(network)

    @torch.no_grad()
    def update(self) -> None:
        """Take in the weights as they are now."""
        self.n_updates += 1
        decay = min(self.decay, (1 + self.n_updates) / (10 + self.n_updates))
        for name, current in self._network.state_dict().items():
            if current.is_floating_point():
                self._average[name].lerp_(current, 1 - decay)
            else:
                self._average[name].copy_(current)

    @torch.no_grad()
    def restore(self, weights: Weights, *, n_updates: int) -> None:
        """Go on from the averages of another run, in place."""
        for name, average in self._average.items():
            average.copy_(weights[name])
        self.n_updates = n_updates

    @property
    def weights(self) -> Weights:
        """The averages, by the names of the state dict."""
        return self._average


def weights_of(network: nn.Module) -> Weights:
    """Return a copy of all parameters and buffers."""
    return {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}
