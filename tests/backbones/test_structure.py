from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

from bottleneck.backbones.structure import find_structure, has_layer_norm, trace
from bottleneck.backbones.torchvision import (
    build_classifier,
    classification_models,
    drop_last_layer,
    published_preprocess,
)
from bottleneck.errors import BackboneError
from tests.backbones.networks import ParametersOnMeta, ResNet20, n_hooks, small_network

BY_BLOCKS = tuple(f"features.{i}" for i in (1, 3, 5))

# What a person would name as the last module before each halving of the map; the longest beginning of a name counts.
EXPECTED_STAGES = {
    "alexnet": ("features.1", "features.4", "features.11"),
    "convnext": (*BY_BLOCKS, "features.7"),
    "densenet": (*(f"features.denseblock{i}" for i in (1, 2, 3)), "features.norm5"),
    "efficientnet_b": tuple(f"features.{i}" for i in (1, 2, 3, 5, 8)),
    "efficientnet_v2": tuple(f"features.{i}" for i in (1, 2, 3, 5, 8)),
    "efficientnet_v2_s": tuple(f"features.{i}" for i in (1, 2, 3, 5, 7)),
    "googlenet": ("conv3", "inception3b", "inception4e", "inception5b"),
    "inception_v3": ("Conv2d_2b_3x3", "Conv2d_4a_3x3", "Mixed_5d", "Mixed_6e", "Mixed_7c"),
    "maxvit_t": ("stem", *(f"blocks.{i}" for i in range(4))),
    "mnasnet": tuple(f"layers.{i}" for i in (7, 8, 9, 11, 16)),
    "mobilenet_v2": tuple(f"features.{i}" for i in (1, 3, 6, 13, 18)),
    "mobilenet_v3_large": tuple(f"features.{i}" for i in (1, 3, 6, 12, 16)),
    "mobilenet_v3_small": tuple(f"features.{i}" for i in (1, 3, 8, 12)),
    "regnet": tuple(f"trunk_output.block{i}" for i in (1, 2, 3, 4)),
    "resne": ("layer1", "layer2", "layer3", "layer4"),
    "shufflenet": ("conv1", "stage2", "stage3", "conv5"),
    "squeezenet1_0": tuple(f"features.{i}" for i in (1, 5, 10, 12)),
    "squeezenet1_1": tuple(f"features.{i}" for i in (1, 4, 7, 12)),
    "swin": (*BY_BLOCKS, "norm"),
    "vgg11": tuple(f"features.{i}" for i in (4, 9, 14, 19)),
    "vgg11_bn": tuple(f"features.{i}" for i in (6, 13, 20, 27)),
    "vgg13": tuple(f"features.{i}" for i in (3, 8, 13, 18, 23)),
    "vgg13_bn": tuple(f"features.{i}" for i in (5, 12, 19, 26, 33)),
    "vgg16": tuple(f"features.{i}" for i in (3, 8, 15, 22, 29)),
    "vgg16_bn": tuple(f"features.{i}" for i in (5, 12, 22, 32, 42)),
    "vgg19": tuple(f"features.{i}" for i in (3, 8, 17, 26, 35)),
    "vgg19_bn": tuple(f"features.{i}" for i in (5, 12, 25, 38, 51)),
    "vit_b": tuple(f"encoder.layers.encoder_layer_{i}" for i in (2, 5, 8, 11)),
    "vit_l": tuple(f"encoder.layers.encoder_layer_{i}" for i in (5, 11, 17, 23)),
    "vit_h": tuple(f"encoder.layers.encoder_layer_{i}" for i in (7, 15, 23, 31)),
    "wide_resnet": ("layer1", "layer2", "layer3", "layer4"),
}

# One of every family; the others differ in depth and width only.
QUICK = {
    *("alexnet", "convnext_tiny", "densenet121", "efficientnet_b0", "googlenet", "inception_v3", "maxvit_t"),
    *("mnasnet0_5", "mobilenet_v2", "mobilenet_v3_small", "regnet_x_400mf", "resnet18", "shufflenet_v2_x0_5"),
    *("squeezenet1_0", "swin_t", "vgg11", "vit_b_32"),
}
NAMES = [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in classification_models()]


def on_meta(name: str) -> tuple[nn.Module, Tensor]:
    """Build a model without memory for its parameters, and an image that computes nothing."""
    preprocess = published_preprocess(name, "DEFAULT")
    with ParametersOnMeta():
        network = build_classifier(name, preprocess)
    drop_last_layer(network)
    return network.eval(), torch.empty((2, 3, *preprocess.crop), device="meta")


def noise(size: int = 32) -> Tensor:
    return torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))


def modules_of(network: nn.Module, image: Tensor) -> tuple[str, ...]:
    return tuple(stage.module for stage in find_structure(network.eval(), image).stages)


def groups_of(network: nn.Module, image: Tensor) -> dict[str, tuple[str, ...]]:
    return {group.name: group.parameters for group in find_structure(network.eval(), image).layer_groups}


def test_torchvision_has_the_80_classification_models_that_are_checked_here():
    assert len(NAMES) == 80


@pytest.mark.parametrize("name", NAMES)
def test_every_torchvision_model_is_taken_apart(name):
    network, image = on_meta(name)

    structure = find_structure(network, image)

    modules = tuple(stage.module for stage in structure.stages)
    assert all(stage.n_features > 1 for stage in structure.stages)
    family = max((family for family in EXPECTED_STAGES if name.startswith(family)), key=len)
    assert modules == EXPECTED_STAGES[family]
    # torchvision defines its layers in the order in which they run.
    in_order = {parameter: i for i, (parameter, _) in enumerate(network.named_parameters())}
    grouped = [sorted(in_order[parameter] for parameter in group.parameters) for group in structure.layer_groups]
    assert [i for group in grouped for i in group] == list(range(len(in_order)))
    assert has_layer_norm(network) or 3 <= len(grouped) <= 6
    assert n_hooks(network) == 0


@pytest.mark.parametrize("name, n_blocks", [("vit_b_32", 12), ("swin_t", 12), ("convnext_tiny", 18)])
def test_transformers_and_convnext_have_a_layer_group_for_every_block(name, n_blocks):
    groups = groups_of(*on_meta(name))

    assert list(groups) == ["stem+block1", *(f"block{i}" for i in range(2, n_blocks + 1))]


def test_layer_norm_is_what_tells_transformers_and_convnext_from_other_networks():
    assert has_layer_norm(nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.LayerNorm(2))))
    assert not has_layer_norm(nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), nn.GroupNorm(1, 3)))


def test_group_of_a_vision_transformer_holds_what_comes_before_its_first_block():
    groups = groups_of(*on_meta("vit_b_32"))

    first, *_, last = groups.values()
    assert {"class_token", "conv_proj.weight", "encoder.pos_embedding"} <= set(first)
    assert "encoder.ln.weight" in last


def test_fully_connected_layers_after_the_last_stage_are_a_group_of_their_own():
    groups = groups_of(*on_meta("vgg11"))

    assert list(groups) == ["stem+stage1", "stage2", "stage3", "stage4", "rest"]
    assert groups["rest"] == ("classifier.0.weight", "classifier.0.bias", "classifier.3.weight", "classifier.3.bias")


def test_stages_of_a_small_map_and_of_an_own_network_end_before_it_shrinks():
    assert modules_of(small_network(n_classes=None), noise()) == ("2", "6", "10")


def test_layer_groups_follow_the_order_of_running_not_of_definition():
    class Backwards(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.late = nn.Sequential(nn.Conv2d(8, 16, 3, stride=2), nn.ReLU(), nn.Conv2d(16, 16, 3))
            self.early = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3))

        def forward(self, x: Tensor) -> Tensor:
            return self.late(self.early(x)).mean(dim=(2, 3))

    groups = groups_of(Backwards(), noise())

    assert list(groups) == ["stem+stage1", "stage2"]
    assert groups["stem+stage1"] == ("early.0.weight", "early.0.bias", "early.2.weight", "early.2.bias")


def test_module_that_runs_twice_ends_no_stage():
    class SharedActivation(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 16, 3, stride=2, padding=1)
            self.relu = nn.ReLU()

        def forward(self, x: Tensor) -> Tensor:
            return self.relu(self.second(self.relu(self.first(x)))).mean(dim=(2, 3))

    assert modules_of(SharedActivation(), noise()) == ("first", "second")


def test_wrapped_network_is_looked_into():
    class Wrapped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = small_network(n_classes=None)

        def forward(self, x: Tensor) -> Tensor:
            return self.inner(x * 2)

    assert modules_of(Wrapped(), noise()) == ("inner.2", "inner.6", "inner.10")


def test_maps_with_channels_last_are_recognised_whatever_the_shape_of_the_image():
    class ChannelsLast(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.patches = nn.Conv2d(3, 24, 4, stride=4)
            self.mix = nn.ModuleList([nn.Linear(24, 24), nn.Linear(24, 24)])

        def forward(self, x: Tensor) -> Tensor:
            x = self.patches(x).permute(0, 2, 3, 1)
            for layer in self.mix:
                x = layer(x)
            return x.mean(dim=(1, 2))

    (stage,) = find_structure(ChannelsLast().eval(), torch.randn(2, 3, 32, 48)).stages

    assert (stage.module, stage.layout, stage.n_features) == ("mix.1", "nhwc", 24)


@pytest.mark.parametrize("n_layers, expected", [(1, [2]), (3, [2, 2, 2]), (6, [4, 2, 4, 2])])
def test_network_without_maps_has_no_stages_and_at_most_four_groups_of_its_layers(n_layers, expected):
    widths = [3 * 8 * 8, *[10] * n_layers]
    layers = [nn.Linear(n_in, n_out) for n_in, n_out in pairwise(widths)]
    network = nn.Sequential(nn.Flatten(), *layers, nn.ReLU())

    structure = find_structure(network, noise(8))

    assert structure.stages == ()
    assert [len(group.parameters) for group in structure.layer_groups] == expected
    grouped = [parameter for group in structure.layer_groups for parameter in group.parameters]
    assert grouped == [name for name, _ in network.named_parameters()]
    assert structure.n_features == 10


def test_unused_parameters_are_in_a_group_too():
    network = ResNet20()
    network.linear = nn.Identity()
    network.register_parameter("spare", nn.Parameter(torch.zeros(3)))

    groups = groups_of(network, noise())

    assert "spare" in groups["stem+stage1"]


def test_stages_named_by_an_author_are_taken_as_they_are():
    structure = find_structure(small_network(n_classes=None).eval(), noise(), stage_modules=["3", "6"])

    assert [(stage.name, stage.module, stage.n_features) for stage in structure.stages] == [
        ("stage1", "3", 8),
        ("stage2", "6", 12),
    ]


def test_trace_is_the_order_of_running_with_what_ran_inside():
    network = nn.Sequential(nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU()), nn.Flatten())

    root = trace(network, noise(4))

    assert [call.name for call in root.walk()] == ["", "0", "0.0", "0.1", "1"]
    assert [child.name for child in root.children] == ["0", "1"]
    assert root.shape == (2, 64)


def test_network_that_returns_maps_is_told_to_pool():
    with pytest.raises(BackboneError, match=r"\(2, 16, 8, 8\).*Flatten"):
        find_structure(small_network(n_classes=None)[:-2], noise())


def test_network_that_cannot_run_on_such_images_says_so_and_keeps_no_hooks():
    network = small_network()[:-2].append(nn.Flatten()).append(nn.Linear(7, 7))

    with pytest.raises(BackboneError, match=r"does not run on images of shape \(2, 3, 32, 32\).*preprocess"):
        find_structure(network, noise())
    assert n_hooks(network) == 0
