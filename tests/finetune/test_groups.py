import sys
from types import ModuleType

import pytest
import torch

from bottleneck.backbones import load_backbone
from bottleneck.errors import InvalidInputError
from bottleneck.finetune import FineTuneSettings, describe_groups
from bottleneck.finetune.groups import build_optimizer, let_learn, recipe_for
from bottleneck.finetune.probe_network import build_network
from bottleneck.torchvision_door import torchvision
from tests.finetune.tasks import colour_blind_backbone


@pytest.fixture(scope="session")
def timm() -> ModuleType:
    torchvision()  # timm imports it
    pytest.importorskip("timm.optim", reason="timm is an optional package")
    return sys.modules["timm"]


def test_groups_are_listed_from_the_input_to_the_head_with_their_rates(backbone):
    described = describe_groups(backbone, FineTuneSettings(lr=0.1, lr_decay=2.0), n_classes=3)

    assert [group.group for group in described] == [*(group.name for group in backbone.layer_groups), "head"]
    assert described[-1].learning_rate == 0.1
    assert described[-2].learning_rate == pytest.approx(0.05)
    assert described[-1].n_parameters == 3 * (backbone.n_features + 1)


def test_groups_are_printed_as_a_table(backbone):
    lines = str(describe_groups(backbone, FineTuneSettings(lr=0.1, lr_decay=2.0))).splitlines()

    assert lines[0].split() == ["group", "layers", "parameters", "learning", "rate"]
    assert [line.split()[0] for line in lines[1:]] == [*(group.name for group in backbone.layer_groups), "head"]
    assert lines[-1].split() == ["head", "head", "34", "0.1"]
    assert len({len(line) for line in lines}) == 1


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


def scales_of(backbone, *, decay: float) -> dict[str, float]:
    """Return the learning rate of every parameter of the backbone where that of the head is 1."""
    settings = FineTuneSettings(lr=1.0, lr_decay=1 / decay)
    described = describe_groups(backbone, settings)
    return {
        parameter: rate.learning_rate
        for group, rate in zip(backbone.layer_groups, described[:-1], strict=True)
        for parameter in group.parameters
    }


def timm_scales(timm, name: str, *, decay: float) -> dict[str, float]:
    """Return timm's own, without those of its head."""
    network = timm.create_model(name, num_classes=5)
    groups = timm.optim.param_groups_layer_decay(network, layer_decay=decay)
    scale_of = {id(parameter): group["lr_scale"] for group in groups for parameter in group["params"]}
    return {
        parameter: scale_of[id(tensor)]
        for parameter, tensor in network.named_parameters()
        if not parameter.startswith(("head.", "fc."))
    }


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "convnext_atto", "test_vit"])
def test_rates_are_those_of_timms_layer_decay(name, timm):
    backbone = load_backbone(f"timm:{name}", None)

    ours, theirs = scales_of(backbone, decay=0.75), timm_scales(timm, name, decay=0.75)

    assert {parameter: ours[parameter] for parameter in theirs} == pytest.approx(theirs)


@pytest.mark.parametrize("name", ["resnet18", "regnetx_002"])
def test_rates_of_convolutional_networks_are_timms_layer_decay_over_its_coarse_groups(name, timm):
    """Its fine groups are single residual blocks: they come in the same order, and each lies in one of ours."""
    backbone = load_backbone(f"timm:{name}", None)
    network = timm.create_model(name, num_classes=5)
    layer_of = timm.models.group_parameters(network, network.group_matcher(coarse=True), reverse=True)
    expected = {p: 0.4 ** (max(layer_of.values()) - layer) for p, layer in layer_of.items()}

    ours, fine = scales_of(backbone, decay=0.4), timm_scales(timm, name, decay=0.4)

    assert ours == pytest.approx({parameter: expected[parameter] for parameter in ours})
    by_fine = sorted(ours, key=fine.__getitem__)
    assert [ours[parameter] for parameter in by_fine] == sorted(ours.values())
    assert len({(ours[parameter], fine[parameter]) for parameter in ours}) == len({*fine.values()} - {1.0})
