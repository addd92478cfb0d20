import copy

import pytest
import torch
from torch import Tensor, nn

from bottleneck.backbones import Preprocess, load_backbone
from bottleneck.errors import BackboneError, WeightsError
from tests.backbones.networks import CIFAR, ResNet20, n_hooks, random_pixels, save_safetensors, small_network


def features_of(network: nn.Module, pixels: Tensor) -> Tensor:
    return load_backbone(network, preprocess=CIFAR).forward_layers(pixels)["penultimate"]


@pytest.mark.shared
def test_resnet20_needs_nothing_but_its_file(shared):
    network = ResNet20()
    pixels = random_pixels(3)

    backbone = load_backbone(network, shared / "weights" / "resnet20_cifar10.safetensors")

    from safetensors.torch import load_file

    network.load_state_dict(load_file(shared / "weights" / "resnet20_cifar10.safetensors"))
    with torch.inference_mode():
        expected = network.eval().features(CIFAR.normalise(pixels))
    assert backbone.preprocess == CIFAR
    assert [stage.module for stage in backbone.stages] == ["layer1", "layer2", "layer3"]
    assert [group.name for group in backbone.layer_groups] == ["stem+stage1", "stage2", "stage3"]
    torch.testing.assert_close(backbone.forward_layers(pixels)["penultimate"], expected)


def test_module_that_ends_in_a_linear_layer_gives_what_that_layer_gets():
    network, pixels = ResNet20().eval(), random_pixels(3)

    with torch.inference_mode():
        expected = network.features(CIFAR.normalise(pixels))

    torch.testing.assert_close(features_of(network, pixels), expected)


def test_module_that_ends_in_features_is_taken_as_it_is():
    network, pixels = small_network(n_classes=None).eval(), random_pixels(3)

    with torch.inference_mode():
        expected = network(CIFAR.normalise(pixels))

    torch.testing.assert_close(features_of(network, pixels), expected)


def test_last_layer_is_the_one_that_runs_last_not_the_one_defined_last():
    class Backwards(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.classifier = nn.Linear(12, 4)
            self.squeeze = nn.Linear(16, 12)
            self.trunk = small_network(n_classes=None)

        def forward(self, x: Tensor) -> Tensor:
            return self.classifier(torch.relu(self.squeeze(self.trunk(x))))

    backbone = load_backbone(Backwards(), preprocess=CIFAR)

    assert backbone.n_features == 12
    assert "classifier.weight" not in dict(backbone.network.named_parameters())
    assert [group.name for group in backbone.layer_groups] == ["stem+stage1", "stage2", "stage3", "rest"]


@pytest.mark.parametrize("ending", [nn.Softmax(dim=1), nn.LogSoftmax(dim=1)])
def test_module_that_goes_on_after_its_last_linear_layer_is_refused(ending):
    with pytest.raises(BackboneError, match=r"changes what its last layer '13' returns"):
        load_backbone(small_network().append(ending), preprocess=CIFAR)


def test_users_module_is_never_changed():
    network = ResNet20().train()
    before = copy.deepcopy(network.state_dict())

    load_backbone(network, preprocess=CIFAR).forward_layers(random_pixels(2))

    assert network.training
    assert isinstance(network.linear, nn.Linear)
    assert all(parameter.requires_grad for parameter in network.parameters())
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert n_hooks(network) == 0


def test_later_changes_of_the_users_module_do_not_reach_the_backbone():
    network, pixels = ResNet20(), random_pixels(2)
    backbone = load_backbone(network, preprocess=CIFAR)
    before = backbone.forward_layers(pixels)["penultimate"]

    network.conv1.weight.data.zero_()

    assert torch.equal(backbone.forward_layers(pixels)["penultimate"], before)


def test_half_precision_module_gives_float32_features():
    assert features_of(ResNet20().half(), random_pixels(2)).dtype == torch.float32


def test_preprocessing_is_required_where_nothing_tells_it(tmp_path):
    path = save_safetensors(ResNet20().state_dict(), tmp_path / "plain.safetensors")

    for weights in ("default", path):
        with pytest.raises(BackboneError, match=r"prepared for ResNet20 is not known.*preprocess=Preprocess"):
            load_backbone(ResNet20(), weights)


def test_given_preprocessing_is_preferred_to_the_files(tmp_path):
    metadata = {"mean": "0,0,0", "std": "1,1,1", "input_size": "32"}
    path = save_safetensors(ResNet20().state_dict(), tmp_path / "w.safetensors", metadata)

    assert load_backbone(ResNet20(), path).preprocess.mean == (0, 0, 0)
    assert load_backbone(ResNet20(), path, preprocess=CIFAR).preprocess == CIFAR


@pytest.mark.parametrize("n_classes", [10, 3])
def test_file_fits_whatever_its_number_of_classes(n_classes, tmp_path):
    trained = ResNet20(n_classes)
    path = save_safetensors(trained.state_dict(), tmp_path / "w.safetensors")

    backbone = load_backbone(ResNet20(), path, preprocess=CIFAR)

    pixels = random_pixels(2)
    torch.testing.assert_close(backbone.forward_layers(pixels)["penultimate"], features_of(trained, pixels))
    assert backbone.weights == str(path)


def test_own_module_cannot_be_built_again_from_its_reference():
    backbone = load_backbone(ResNet20(), preprocess=CIFAR)

    assert (backbone.name, backbone.weights, backbone.pretrained) == ("ResNet20", "as given", True)
    assert (backbone.reference.backbone, backbone.reference.rebuildable) == ("ResNet20", False)


def test_module_that_needs_values_is_run_with_values():
    class Threshold(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.trunk = small_network(n_classes=None)
            self.scale = torch.tensor(2.0)

        def forward(self, x: Tensor) -> Tensor:
            return self.trunk(x * self.scale if x.abs().max().item() > 0 else x)

    assert load_backbone(Threshold(), preprocess=CIFAR).n_features == 16


def test_module_without_layers_is_refused():
    with pytest.raises(BackboneError, match="no layer with parameters"):
        load_backbone(nn.Flatten(), preprocess=CIFAR)


def test_module_for_other_images_is_refused_with_its_own_words():
    preprocess = Preprocess(resize=8, crop=(8, 8), mean=(0,) * 3, std=(1,) * 3)
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 4), nn.ReLU())

    with pytest.raises(BackboneError, match=r"images of shape \(2, 3, 8, 8\).*mat1 and mat2"):
        load_backbone(network, preprocess=preprocess)


def test_name_of_published_weights_means_nothing_for_an_own_module():
    with pytest.raises(WeightsError, match=r"own nn\.Module must be a path.*'IMAGENET1K_V1'"):
        load_backbone(ResNet20(), "IMAGENET1K_V1", preprocess=CIFAR)


class Pooled(nn.Module):
    """Two functions of the same tensors, told apart by an attribute alone."""

    def __init__(self, pool: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.pool = nn.Conv2d(3, 8, 3), pool

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        maps = self.conv(x)
        return maps.mean(dim=(2, 3)) if self.pool == "mean" else maps.amax(dim=(2, 3))


def test_modules_that_compute_different_things_with_equal_tensors_have_different_digests():
    preprocess = Preprocess(resize=16, crop=(16, 16), mean=(0.5,) * 3, std=(0.5,) * 3)
    mean, peak, again = (load_backbone(Pooled(pool), preprocess=preprocess) for pool in ("mean", "max", "mean"))

    assert mean.weights_digest != peak.weights_digest
    assert mean.weights_digest == again.weights_digest
