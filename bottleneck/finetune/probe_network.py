"""The probe as a network: backbone, row normalisation where the head asks for it, linear layer; and back."""

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from bottleneck.backbones import Backbone
from bottleneck.finetune.folding import fold_frozen
from bottleneck.finetune.recipe import Recipe
from bottleneck.heads import LinearMap, LogisticHead


class ProbeNetwork(nn.Module):
    """A backbone's network with a linear layer: normalised pixels (n, 3, h, w) to logits (n, n_classes).

    ``train()`` leaves BatchNorm in eval mode where its statistics are frozen: everywhere with
    ``freeze_batch_norm``, else where its scale and shift do not learn.
    """

    def __init__(self, network: nn.Module, linear: nn.Linear, *, normalize_rows: bool, freeze_batch_norm: bool) -> None:
        super().__init__()
        self.network = network
        self.linear = linear
        self.normalize_rows = normalize_rows
        self.freeze_batch_norm = freeze_batch_norm

    def forward(self, images: Tensor) -> Tensor:
        """Return logits."""
        features = self.network(images)
        if self.normalize_rows:
            features = functional.normalize(features, dim=1)
        logits: Tensor = self.linear(features)
        return logits

    def train(self, mode: bool = True) -> "ProbeNetwork":
        """Switch to training, or evaluation, mode."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, _BatchNorm) and (self.freeze_batch_norm or not learns(module)):
                module.eval()
        return self


def learns(module: nn.Module) -> bool:
    """Say whether any parameter of the module is trained."""
    return any(parameter.requires_grad for parameter in module.parameters())


def build_network(backbone: Backbone, head: LogisticHead, *, recipe: Recipe, device: torch.device) -> ProbeNetwork:
    """Return the network that computes the head's logits from normalised pixels, on its own copy of the backbone.

    With a fresh head all logits are 0 instead.
    """
    linear_map = head.linear_on_normalised()
    network = ProbeNetwork(
        copy.deepcopy(backbone.network),
        as_linear(linear_map),
        normalize_rows=linear_map.rows == "l2",
        freeze_batch_norm=recipe.freeze_batch_norm,
    )
    if recipe.fresh_head:
        for parameter in network.linear.parameters():
            nn.init.zeros_(parameter)
    if recipe.freeze_batch_norm:
        fold_frozen(network.network)
    else:
        set_momentum(network, recipe.batch_norm_momentum)
    # Only four-dimensional weights change; other layers do not notice.
    return network.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


def set_momentum(network: nn.Module, momentum: float) -> None:
    """Set the share that a new batch has in the running statistics of BatchNorm."""
    for module in network.modules():
        if isinstance(module, _BatchNorm):
            module.momentum = momentum


def as_linear(linear_map: LinearMap) -> nn.Linear:
    """Return the linear layer with the same logits, in float32."""
    n_classes, n_features = linear_map.weight.shape
    # Weights made on a real device would be drawn from the caller's generator.
    linear = nn.Linear(n_features, n_classes, device="meta").to_empty(device="cpu")
    linear.load_state_dict({"weight": torch.from_numpy(linear_map.weight), "bias": torch.from_numpy(linear_map.bias)})
    return linear


def as_backbone(network: ProbeNetwork, backbone: Backbone) -> Backbone:
    """Return the backbone with the tuned weights."""
    tuned = copy.deepcopy(backbone.network)
    tuned.load_state_dict(network.network.state_dict())
    return backbone.with_network(tuned)


def as_head(network: ProbeNetwork, head: LogisticHead) -> LogisticHead:
    """Return a head that computes the network's logits from the tuned backbone's features."""
    linear = network.linear.cpu().requires_grad_(False)
    tuned: LogisticHead = LogisticHead.from_arrays(
        classes=head.classes_, coef=linear.weight.numpy(), intercept=linear.bias.numpy(), normalize=head.normalize_
    )
    return tuned
