"""The probe as a network: backbone, row normalisation where the head asks for it, linear layer; and back."""

import copy
from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from bottleneck.backbones import Backbone, Stage
from bottleneck.errors import InvalidInputError
from bottleneck.finetune.folding import fold_frozen
from bottleneck.finetune.recipe import Recipe
from bottleneck.heads import LinearMap, LogisticHead


class ProbeNetwork(nn.Module):
    """A backbone's network with a linear layer: normalised pixels (n, 3, h, w) to logits (n, n_classes).

    ``train()`` leaves BatchNorm in eval mode where its statistics are frozen: everywhere with
    ``freeze_batch_norm``, else where its scale and shift do not learn. With ``stages`` the linear layer sees the
    penultimate layer and these, pooled, each L2-normalised, side by side.
    """

    def __init__(
        self,
        network: nn.Module,
        linear: nn.Linear,
        *,
        stages: Sequence[Stage] = (),
        normalize_rows: bool,
        freeze_batch_norm: bool,
    ) -> None:
        super().__init__()
        self.network = network
        self.linear = linear
        self.normalize_rows = normalize_rows
        self.freeze_batch_norm = freeze_batch_norm
        self.stages = tuple(stages)
        self._pooled: dict[str, Tensor] = {}
        for stage in self.stages:
            network.get_submodule(stage.module).register_forward_hook(partial(self._tap, stage))

    def forward(self, images: Tensor) -> Tensor:
        """Return logits."""
        features = self.network(images)
        if self.stages:
            layers = [features.float(), *(self._pooled.pop(stage.name) for stage in self.stages)]
            features = torch.cat([functional.normalize(layer, dim=1) for layer in layers], dim=1)
        if self.normalize_rows:
            features = functional.normalize(features, dim=1)
        logits: Tensor = self.linear(features)
        return logits

    def _tap(self, stage: Stage, module: nn.Module, args: object, output: Tensor) -> None:
        self._pooled[stage.name] = stage.pool(output).float()

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

    Raises
    ------
    InvalidInputError
        The head sees neither the penultimate layer alone nor all layers.
    """
    linear_map = head.linear_on_normalised()
    network = ProbeNetwork(
        copy.deepcopy(backbone.network),
        as_linear(linear_map),
        stages=stages_seen(backbone, head),
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


def stages_seen(backbone: Backbone, head: LogisticHead) -> tuple[Stage, ...]:
    """Return the stages that a head sees beside the penultimate layer: none, or all.

    Raises
    ------
    InvalidInputError
        Its number of features is that of neither.
    """
    alone, together = backbone.n_features, sum(backbone.layer_widths.values())
    if head.n_features_in_ not in (alone, together):
        raise InvalidInputError(
            f"Fine-tuning starts from a head on the {alone} penultimate features of {backbone.name} or on the "
            f"{together} of all its layers. Got one on {head.n_features_in_}."
        )
    return () if head.n_features_in_ == alone else backbone.stages


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
