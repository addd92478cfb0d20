import pytest
import torch
from torch import nn

from bottleneck.errors import InvalidInputError
from bottleneck.finetune import FineTuneSettings, describe_groups
from bottleneck.finetune.groups import build_optimizer, has_layer_norm, let_learn, recipe_for
from bottleneck.finetune.probe_network import build_network
from tests.finetune.tasks import colour_blind_backbone


def test_groups_are_listed_from_the_input_to_the_head_with_their_rates(backbone):
    described = describe_groups(backbone, FineTuneSettings(lr=0.1, lr_decay=2.0), n_classes=3)

    assert [group.group for group in described] == [*(group.name for group in backbone.layer_groups), "head"]
    assert described[-1].learning_rate == 0.1
    assert described[-2].learning_rate == pytest.approx(0.05)
    assert described[-1].n_parameters == 3 * (backbone.n_features + 1)


def test_every_parameter_is_in_exactly_one_group(backbone):
    described = describe_groups(backbone, FineTuneSettings())

    assert sum(group.n_parameters for group in described[:-1]) == sum(p.numel() for p in backbone.network.parameters())
    layers = [layer for group in described for layer in group.layers]
    assert len(layers) == len(set(layers))


def test_frozen_groups_have_rate_zero(backbone):
    described = describe_groups(backbone, FineTuneSettings(freeze_groups=1))

    assert [group.learning_rate == 0 for group in described] == [True] + [False] * (len(described) - 1)


def test_wrong_setting_is_refused(backbone):
    with pytest.raises(InvalidInputError, match="'freeze_groups'"):
        describe_groups(backbone, FineTuneSettings(freeze_groups=99))


def test_layer_norm_is_what_tells_transformers_and_convnext_from_other_networks():
    assert has_layer_norm(nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.LayerNorm(2))))
    assert not has_layer_norm(nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), nn.GroupNorm(1, 3)))


@pytest.mark.parametrize("kind, expected", [("sgd", torch.optim.SGD), ("adamw", torch.optim.AdamW)])
def test_optimizer_gives_each_group_its_rate_and_spares_norms_and_biases_the_decay(kind, expected, colours):
    backbone = colour_blind_backbone()
    recipe = recipe_for(backbone, FineTuneSettings(optimizer=kind, weight_decay=0.1, freeze_groups=1), n_images=60)
    network = build_network(backbone, colours.head, recipe=recipe, device=torch.device("cpu"))

    optimizer = build_optimizer(network, backbone=backbone, recipe=recipe)
    let_learn(network, backbone=backbone, rates=recipe.learning_rates)

    assert isinstance(optimizer, expected)
    frozen, *trained = backbone.layer_groups
    rate_of = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    decay_of = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    for group, rate in zip(trained, recipe.learning_rates[1:-1], strict=True):
        assert {rate_of[id(network.network.get_parameter(name))] for name in group.parameters} == {rate}
    assert {rate_of[id(p)] for p in network.linear.parameters()} == {recipe.learning_rates[-1]}
    assert not any(id(network.network.get_parameter(name)) in rate_of for name in frozen.parameters)
    assert not any(network.network.get_parameter(name).requires_grad for name in frozen.parameters)
    for parameter in network.parameters():
        if parameter.requires_grad:
            assert decay_of[id(parameter)] == (0.1 if parameter.ndim > 1 else 0.0)


def test_adaptive_rates_need_a_group_for_each_layer(colours):
    settings = FineTuneSettings(adaptive_rates=True, weight_decay=0.1)
    recipe = recipe_for(colours.backbone, settings, n_images=60)
    network = build_network(colours.backbone, colours.head, recipe=recipe, device=torch.device("cpu"))

    groups = build_optimizer(network, backbone=colours.backbone, recipe=recipe).param_groups

    assert {group["layer"] for group in groups} == {"stem.0", "stem.1", "stage.0", "stage.1", "head"}
    assert sum(len(group["params"]) for group in groups) == len(list(network.parameters()))
