"""Layer groups with discriminative learning rates: what they are, and as the optimizer wants them."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from bottleneck.backbones import Backbone
from bottleneck.finetune.probe_network import ProbeNetwork
from bottleneck.finetune.recipe import Recipe, plan_recipe
from bottleneck.finetune.settings import FineTuneSettings, check_settings

MOMENTUM = 0.9

HEAD = "head"


@dataclass(frozen=True, kw_only=True, slots=True)
class GroupDescription:
    """One layer group as it would be fine-tuned.

    Attributes
    ----------
    group : str
        Its name; "head" is the last.
    layers : tuple of str
        The modules whose parameters are in it.
    n_parameters : int
    learning_rate : float
        The highest rate of the schedule; 0 is frozen.
    """

    group: str
    layers: tuple[str, ...]
    n_parameters: int
    learning_rate: float


def describe_groups(
    backbone: Backbone, settings: FineTuneSettings, *, n_classes: int = 2
) -> tuple[GroupDescription, ...]:
    """Return every layer group, from the input to the head, with its learning rate.

    Parameters
    ----------
    backbone : Backbone
    settings : FineTuneSettings
    n_classes : int
        Only the number of parameters of the head depends on it.

    Raises
    ------
    InvalidInputError
        A setting is not allowed.
    """
    # No learning rate depends on the number of images.
    rates = recipe_for(backbone, settings, n_images=1).learning_rates
    described = [
        GroupDescription(
            group=group.name,
            layers=tuple(dict.fromkeys(name.rpartition(".")[0] or name for name in group.parameters)),
            n_parameters=sum(backbone.network.get_parameter(name).numel() for name in group.parameters),
            learning_rate=rate,
        )
        for group, rate in zip(backbone.layer_groups, rates[:-1], strict=True)
    ]
    head = GroupDescription(
        group=HEAD, layers=(HEAD,), n_parameters=(backbone.n_features + 1) * n_classes, learning_rate=rates[-1]
    )
    return (*described, head)


def recipe_for(backbone: Backbone, settings: FineTuneSettings, *, n_images: int) -> Recipe:
    """Return the numbers for fine-tuning this backbone, after checking the settings."""
    n_groups = len(backbone.layer_groups)
    check_settings(settings, n_groups=n_groups)
    return plan_recipe(settings, n_images=n_images, n_groups=n_groups, has_layer_norm=has_layer_norm(backbone.network))


def has_layer_norm(network: nn.Module) -> bool:
    """Say whether the network normalises by layer, as transformers and ConvNeXt do."""
    return any(isinstance(module, nn.LayerNorm | nn.RMSNorm) for module in network.modules())


def build_optimizer(network: ProbeNetwork, *, backbone: Backbone, recipe: Recipe) -> torch.optim.Optimizer:
    """Return the optimizer over the layer groups and the head; a group with rate 0 is frozen."""
    members = [[network.network.get_parameter(name) for name in group.parameters] for group in backbone.layer_groups]
    members.append(list(network.linear.parameters()))
    groups = []
    for parameters, rate in zip(members, recipe.learning_rates, strict=True):
        for parameter in parameters:
            parameter.requires_grad_(rate > 0)
        if rate > 0:
            groups += parameter_groups(parameters, rate=rate, weight_decay=recipe.weight_decay)
    match recipe.optimizer:
        case "sgd":
            return torch.optim.SGD(groups, momentum=MOMENTUM, nesterov=True)
        case "adamw":
            return torch.optim.AdamW(groups)


def parameter_groups(parameters: list[nn.Parameter], *, rate: float, weight_decay: float) -> list[dict[str, Any]]:
    """Split parameters into those whose weights decay and the rest: norms and biases, which are vectors.

    ``base_lr`` is the highest rate of the schedule, which moves ``lr``.
    """
    matrices = [parameter for parameter in parameters if parameter.ndim > 1]
    vectors = [parameter for parameter in parameters if parameter.ndim <= 1]
    return [
        {"params": members, "lr": rate, "base_lr": rate, "weight_decay": decay}
        for members, decay in ((matrices, weight_decay), (vectors, 0.0))
        if members
    ]
