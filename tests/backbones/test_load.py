import subprocess
import sys

import pytest
from torch import nn

import bottleneck.backbones
from bottleneck.backbones import Preprocess, load_backbone
from bottleneck.errors import BackboneError, WeightsError
from tests.backbones.networks import CIFAR, random_pixels, small_network


def test_public_names_are_these():
    assert sorted(bottleneck.backbones.__all__) == [
        *("Backbone", "BackboneReference", "LayerGroup", "Preprocess", "Stage", "has_layer_norm", "load_backbone")
    ]


@pytest.mark.parametrize("name", ["embedded", "squeezenet1_1"])
def test_named_backbone_is_built_again_from_its_reference(name):
    backbone = load_backbone(name, None)

    again = load_backbone(backbone.reference.backbone, backbone.reference.weights, preprocess=backbone.preprocess)

    assert again.reference.rebuildable
    assert again.weights_digest == backbone.weights_digest


def test_backbone_passes_through():
    backbone = load_backbone("embedded")

    assert load_backbone(backbone) is backbone
    assert load_backbone(backbone, preprocess=backbone.preprocess) is backbone


def test_backbone_can_be_given_other_preprocessing():
    backbone = load_backbone("embedded")
    larger = Preprocess(resize=48, crop=(48, 48), mean=(0,) * 3, std=(1,) * 3)

    other = load_backbone(backbone, preprocess=larger)

    assert (other.preprocess, backbone.preprocess.crop) == (larger, (64, 64))
    assert (other.stages, other.weights_digest) == (backbone.stages, backbone.weights_digest)
    assert other.forward_layers(random_pixels(1, (48, 48)))["penultimate"].shape == (1, 512)


def test_backbone_with_weights_takes_no_others():
    with pytest.raises(WeightsError, match="has its weights already"):
        load_backbone(load_backbone("embedded"), "weights.pth")


@pytest.mark.parametrize(
    "name, suggested", [("resnet5O", "'resnet50'"), ("mobilenetv2", "'mobilenet_v2'"), ("embeded", "'embedded'")]
)
def test_mistyped_name_suggests_the_nearest(name, suggested):
    with pytest.raises(BackboneError, match=rf"Got '{name}' instead\. Did you mean .*{suggested}"):
        load_backbone(name)


@pytest.mark.parametrize(
    "name, task",
    [
        ("fasterrcnn_resnet50_fpn", "detection"),
        ("deeplabv3_resnet50", "segmentation"),
        ("r3d_18", "video"),
        ("raft_small", "optical_flow"),
    ],
)
def test_torchvision_model_for_another_task_is_named_as_such(name, task):
    with pytest.raises(BackboneError, match=f"made for {task}, not for classification"):
        load_backbone(name)


@pytest.mark.parametrize("backbone", [None, 18, small_network])
def test_what_is_no_backbone_is_refused(backbone):
    with pytest.raises(BackboneError, match=r"must be a torchvision classification model, 'timm:NAME', 'embedded'"):
        load_backbone(backbone)


def test_own_modules_and_the_embedded_network_need_no_torchvision_and_have_one_digest_in_every_process():
    script = f"""
import sys
import torch
from bottleneck import Preprocess, load_backbone
own = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.Flatten())
torch.nn.init.constant_(own[0].weight, 1), torch.nn.init.zeros_(own[0].bias)
print(load_backbone("embedded").weights_digest)
print(load_backbone(own, preprocess=Preprocess(**{CIFAR.describe()})).weights_digest)
print("torchvision" in sys.modules, "timm" in sys.modules)
"""
    own = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten())
    nn.init.constant_(own[0].weight, 1), nn.init.zeros_(own[0].bias)

    output = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout

    digests = [load_backbone("embedded").weights_digest, load_backbone(own, preprocess=CIFAR).weights_digest]
    assert output.splitlines() == [*digests, "False False"]
