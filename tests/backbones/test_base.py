import copy
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from sklearn.base import clone
from torch import nn

from bottleneck.backbones import Backbone, load_backbone
from bottleneck.errors import BackboneError
from tests.backbones.networks import CIFAR, ResNet20, n_hooks, pooled_by_hand, random_pixels, small_network


@pytest.fixture
def backbone() -> Backbone:
    return load_backbone(small_network(), preprocess=CIFAR)


def shaken(network: nn.Module, name: str) -> nn.Module:
    """Return a copy of which one tensor differs."""
    changed = copy.deepcopy(network)
    tensor = changed.state_dict()[name]
    tensor.view(-1)[0] += 1
    return changed


def test_layers_come_from_one_pass_and_equal_one_pass_each(backbone):
    pixels = random_pixels(3)
    images = CIFAR.normalise(pixels)

    layers = backbone.forward_layers(pixels)

    assert list(layers) == ["penultimate", "stage1", "stage2", "stage3"]
    torch.testing.assert_close(layers["penultimate"], backbone.network(images))
    for name, expected in pooled_by_hand(backbone, images).items():
        torch.testing.assert_close(layers[name], expected)


def test_widths_are_those_of_the_layers(backbone):
    layers = backbone.forward_layers(random_pixels(2))

    assert backbone.layer_widths == {name: layer.shape[1] for name, layer in layers.items()}


def test_layers_are_float32_without_gradients_whatever_the_precision(backbone):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        layers = backbone.forward_layers(random_pixels(2))

    assert {layer.dtype for layer in layers.values()} == {torch.float32}
    assert not any(layer.requires_grad for layer in layers.values())


def test_network_is_frozen_and_in_eval_mode(backbone):
    assert not any(module.training for module in backbone.network.modules())
    assert not any(parameter.requires_grad for parameter in backbone.network.parameters())


def test_features_come_in_eval_mode_even_after_somebody_called_train(backbone):
    pixels = random_pixels(4)
    before = backbone.forward_layers(pixels)
    backbone.network.train()

    after = backbone.forward_layers(pixels)

    assert all(torch.equal(before[name], after[name]) for name in before)
    assert torch.equal(before["stage1"][:1], backbone.forward_layers(pixels[:1])["stage1"])


def test_no_hook_stays_on_the_network_even_after_an_error(backbone):
    backbone.forward_layers(random_pixels(1))
    assert n_hooks(backbone.network) == 0

    with pytest.raises(RuntimeError):
        backbone.forward_layers(torch.zeros((1, 7, 32, 32), dtype=torch.uint8))
    assert n_hooks(backbone.network) == 0


def test_threads_that_share_a_backbone_get_the_features_of_their_own_images(backbone):
    batches = [random_pixels(4, seed=seed) for seed in range(40)]
    alone = [backbone.forward_layers(batch) for batch in batches]
    together = threading.Barrier(4)

    def forward(batch: torch.Tensor) -> dict[str, torch.Tensor]:
        together.wait(timeout=60)
        return backbone.forward_layers(batch)

    with ThreadPoolExecutor(4) as pool:
        for expected, layers in zip(alone, pool.map(forward, batches), strict=True):
            for name in expected:
                torch.testing.assert_close(layers[name], expected[name])


@pytest.mark.parametrize(("name", "expected"), [("mobilenet_v2", True), ("vgg11", True), ("vit_b_32", False)])
def test_convolutions_take_smaller_images_and_patches_do_not(name, expected):
    assert load_backbone(name, None).takes_side(160) is expected


def test_own_module_that_flattens_its_maps_takes_one_side_only():
    flat = nn.Sequential(nn.Conv2d(3, 4, 3, stride=8), nn.Flatten(), nn.Linear(4 * 4 * 4, 7))
    backbone = load_backbone(flat, preprocess=CIFAR)

    assert backbone.takes_side(32)
    assert not backbone.takes_side(64)


def test_copies_are_the_same_backbone(backbone):
    assert copy.copy(backbone) is backbone
    assert copy.deepcopy({"backbone": backbone})["backbone"] is backbone
    assert clone(backbone, safe=False) is backbone


def test_backbones_are_equal_when_they_are_one_object(backbone):
    assert backbone == backbone
    assert backbone != load_backbone(small_network(), preprocess=CIFAR)
    assert len({backbone, backbone}) == 1


def test_pickled_backbone_computes_the_same(backbone):
    pixels = random_pixels(2)

    again = pickle.loads(pickle.dumps(backbone))

    assert again.weights_digest == backbone.weights_digest
    assert (again.stages, again.layer_groups, again.reference) == (
        backbone.stages,
        backbone.layer_groups,
        backbone.reference,
    )
    assert torch.equal(again.forward_layers(pixels)["penultimate"], backbone.forward_layers(pixels)["penultimate"])


def test_backbone_prints_as_one_line_without_its_layers(backbone):
    assert repr(backbone).startswith("Backbone(name='Sequential', preprocess=Preprocess(resize=32")
    assert "Conv2d" not in repr(backbone)
    assert "\n" not in repr(backbone)


@pytest.mark.parametrize("name", ["conv1.weight", "layer2.0.bn1.bias", "layer3.2.bn2.running_var"])
def test_digest_changes_with_every_tensor_that_makes_features(name):
    network = ResNet20()

    changed = load_backbone(shaken(network, name), preprocess=CIFAR)

    assert changed.weights_digest != load_backbone(network, preprocess=CIFAR).weights_digest


@pytest.mark.parametrize("name", ["linear.weight", "linear.bias", "bn1.num_batches_tracked"])
def test_digest_ignores_the_classification_layer_and_the_count_of_training_batches(name):
    network = ResNet20()

    changed = load_backbone(shaken(network, name), preprocess=CIFAR)

    assert changed.weights_digest == load_backbone(network, preprocess=CIFAR).weights_digest


def test_digest_tells_networks_apart_that_have_the_same_tensors():
    network = small_network()
    network[4].stride = (2, 2)

    assert load_backbone(network, preprocess=CIFAR).weights_digest != (
        load_backbone(small_network(), preprocess=CIFAR).weights_digest
    )


def test_fine_tuned_network_makes_a_backbone_of_the_same_structure(backbone):
    tuned = shaken(backbone.network, "0.weight").train().requires_grad_()

    result = backbone.with_network(tuned)

    assert (result.stages, result.layer_groups, result.preprocess) == (
        backbone.stages,
        backbone.layer_groups,
        backbone.preprocess,
    )
    assert result.weights_digest != backbone.weights_digest
    assert result.weights == "as given, fine-tuned" == result.with_network(tuned).weights
    assert result.pretrained
    assert result.reference == backbone.reference


def test_fine_tuned_network_is_copied(backbone):
    tuned = copy.deepcopy(backbone.network).train().requires_grad_()

    result = backbone.with_network(tuned)
    tuned[0].weight.data.zero_()

    assert tuned.training
    assert tuned[0].weight.requires_grad
    assert result.network[0].weight.any()
    assert result.weights_digest == backbone.weights_digest


def test_network_of_another_structure_is_refused(backbone):
    with pytest.raises(BackboneError, match="same parameters"):
        backbone.with_network(ResNet20())
