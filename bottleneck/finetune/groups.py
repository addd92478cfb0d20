"""Layer groups with discriminative learning rates: what they are, and as the optimizer wants them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from bottleneck.backbones import Backbone, has_layer_norm
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
        The highest rate of the schedule, if it is not lowered before training; 0 is frozen.
    """

    group: str
    layers: tuple[str, ...]
    n_parameters: int
    learning_rate: float


class GroupDescriptions(tuple[GroupDescription, ...]):
    """Layer groups from the input to the head; printed they are a table."""

    __slots__ = ()

    def __str__(self) -> str:
        rows = [
            (group.group, _named(group.layers), f"{group.n_parameters:,}", f"{group.learning_rate:.2g}")
            for group in self
        ]
        header = ("group", "layers", "parameters", "learning rate")
        widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
        lines = [
            f"{group:<{widths[0]}}  {layers:<{widths[1]}}  {count:>{widths[2]}}  {rate:>{widths[3]}}"
            for group, layers, count, rate in (header, *rows)
        ]
        return "\n".join(lines)


def _named(layers: Sequence[str]) -> str:
    """Return the first and the last of some layers."""
    return layers[0] if len(layers) == 1 else f"{layers[0]} ... {layers[-1]}"


def describe_groups(
    backbone: Backbone,
    settings: FineTuneSettings = FineTuneSettings(),  # noqa: B008  frozen, so one for all is safe
    *,
    n_classes: int = 2,
) -> GroupDescriptions:
    """Return every layer group, from the input to the head, with its learning rate; print it for a table.

    Parameters
    ----------
    backbone : Backbone
    settings : FineTuneSettings
        Rates depend on them, and not on the number of images.
    n_classes : int
        Only the number of parameters of the head depends on it.

    Returns
    -------
    tuple of GroupDescription

    Raises
    ------
    InvalidInputError
        A setting is not allowed.
    """
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
    return GroupDescriptions((*described, head))


def recipe_for(backbone: Backbone, settings: FineTuneSettings, *, n_images: int, from_scratch: bool = False) -> Recipe:
    """Return the numbers for fine-tuning this backbone, or for training it anew, after checking the settings."""
    n_groups = len(backbone.layer_groups)
    check_settings(settings, n_groups=n_groups)
    return plan_recipe(
        settings,
        n_images=n_images,
        n_groups=n_groups,
        has_layer_norm=has_layer_norm(backbone.network),
        pretrained=backbone.pretrained and not from_scratch,
    )


def build_optimizer(network: ProbeNetwork, *, backbone: Backbone, recipe: Recipe) -> torch.optim.Optimizer:
    """Return the optimizer over the layer groups and the head, without the groups whose rate is 0."""
    groups: list[dict[str, Any]] = []
    for members, rate in zip(members_of(network, backbone), recipe.learning_rates, strict=True):
        if rate > 0:
            layers = by_layer(members) if recipe.adaptive_rates else {"": list(members.values())}
            for layer, parameters in layers.items():
                groups += parameter_groups(parameters, rate=rate, weight_decay=recipe.weight_decay, layer=layer)
    match recipe.optimizer:
        case "sgd":
            return torch.optim.SGD(groups, momentum=MOMENTUM, nesterov=True)
        case "adamw":
            return torch.optim.AdamW(groups)


def let_learn(network: ProbeNetwork, *, backbone: Backbone, rates: Sequence[float]) -> None:
    """Switch gradients on in the layer groups (and the head) with a learning rate, and off in the others."""
    for members, rate in zip(members_of(network, backbone), rates, strict=True):
        for parameter in members.values():
            parameter.requires_grad_(rate > 0)


def members_of(network: ProbeNetwork, backbone: Backbone) -> list[dict[str, nn.Parameter]]:
    """Return the parameters of each layer group and of the head, by name."""
    groups = [
        {name: network.network.get_parameter(name) for name in group.parameters} for group in backbone.layer_groups
    ]
    # Whole numbers among the parameters do not learn.
    groups = [{name: each for name, each in group.items() if each.is_floating_point()} for group in groups]
    return [*groups, {f"{HEAD}.{name}": parameter for name, parameter in network.linear.named_parameters()}]


def by_layer(members: Mapping[str, nn.Parameter]) -> dict[str, list[nn.Parameter]]:
    """Return the parameters of each module."""
    layers: dict[str, list[nn.Parameter]] = {}
    for name, parameter in members.items():
        layers.setdefault(name.rpartition(".")[0], []).append(parameter)
    return layers


def parameter_groups(
    parameters: Sequence[nn.Parameter], *, rate: float, weight_decay: float, layer: str
) -> list[dict[str, Any]]:
    """Split parameters into those whose weights decay and the rest: norms and biases, which are vectors.

    ``base_lr`` is the highest rate of the schedule, which moves ``lr``; ``layer`` says whose gradients count together.
    """
    matrices = [parameter for parameter in parameters if parameter.ndim > 1]
    vectors = [parameter for parameter in parameters if parameter.ndim <= 1]
    return [
        {"params": members, "lr": rate, "base_lr": rate, "weight_decay": decay, "layer": layer}
        for members, decay in ((matrices, weight_decay), (vectors, 0.0))
        if members
    ]
