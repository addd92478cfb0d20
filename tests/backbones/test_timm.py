import numpy as np
import pytest
import torch
from PIL import Image

from bottleneck.backbones import Preprocess, load_backbone
from bottleneck.backbones.timm import published_preprocess
from bottleneck.errors import BackboneError, WeightsError
from bottleneck.torchvision_door import torchvision
from tests.backbones.networks import random_pixels, save_safetensors

torchvision()  # timm imports it
timm = pytest.importorskip("timm", reason="timm is an optional package")

FAST = ["resnet18", "mobilenetv3_small_100", "vit_tiny_patch16_224", "convnext_atto", "test_efficientnet"]


def untouched(name: str, *, num_classes: int) -> torch.nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return timm.create_model(name, pretrained=False, num_classes=num_classes).eval()


@pytest.mark.parametrize("name", FAST)
def test_features_equal_timms_own(name, tmp_path):
    original = untouched(name, num_classes=10)
    path = save_safetensors(original.state_dict(), tmp_path / "weights.safetensors")

    backbone = load_backbone(f"timm:{name}", path)

    pixels = random_pixels(2, backbone.preprocess.crop)
    images = backbone.preprocess.normalise(pixels)
    with torch.inference_mode():
        expected = original.forward_head(original.forward_features(images), pre_logits=True)
    torch.testing.assert_close(backbone.forward_layers(pixels)["penultimate"], expected)
    assert backbone.weights == str(path)
    assert backbone.name == backbone.reference.backbone == f"timm:{name}"


# center (bicubic and bilinear), squash, and a crop of the whole image.
@pytest.mark.parametrize(
    "name", ["resnet18.a1_in1k", "resnet18.tv_in1k", "coatnet_rmlp_1_rw2_224", "test_vit", "lcnet_050"]
)
@pytest.mark.parametrize("size", [(300, 260), (120, 333), (50, 40)])
def test_preprocessing_equals_timms_evaluation_transform(name, size):
    preprocess = published(name)
    image = Image.fromarray(np.random.RandomState(0).randint(0, 256, (size[1], size[0], 3), dtype=np.uint8))
    config = timm.data.resolve_data_config(pretrained_cfg=timm.get_pretrained_cfg(name).to_dict())

    expected = timm.data.create_transform(**config, is_training=False)(image)

    result = preprocess.normalise(torch.from_numpy(preprocess(image))[None])[0]
    grey_levels = (result - expected).abs() * 255 * torch.tensor(preprocess.std).view(3, 1, 1)
    assert grey_levels.max() < 2.001  # bicubic on noise; bilinear, and photographs, stay within one
    assert (grey_levels > 0.5).float().mean() < 0.02


@pytest.mark.parametrize("name", ["resnet18", "convnext_atto", "densenet121", "regnetx_002"])
def test_stages_are_among_those_that_timm_names(name):
    backbone = load_backbone(f"timm:{name}", None)

    known = {(part["module"], part["num_chs"]) for part in backbone.network.feature_info}

    assert {(stage.module, stage.n_features) for stage in backbone.stages} <= known
    assert len(backbone.stages) == 4


def test_vision_transformer_has_four_stages_and_groups_for_the_stem_and_every_block():
    backbone = load_backbone("timm:vit_tiny_patch16_224", None)

    assert [stage.module for stage in backbone.stages] == ["blocks.2", "blocks.5", "blocks.8", "blocks.11"]
    assert [group.name for group in backbone.layer_groups] == ["stem", *(f"block{i}" for i in range(1, 13))]
    assert {"cls_token", "pos_embed"} <= set(backbone.layer_groups[0].parameters)


@pytest.mark.parametrize(
    "name", ["resnet18", "regnetx_002", "densenet121", "convnext_atto", "mobilenetv2_100", "levit_128s", "test_byobnet"]
)
def test_every_parameter_is_in_exactly_one_group(name):
    backbone = load_backbone(f"timm:{name}", None)

    grouped = [parameter for group in backbone.layer_groups for parameter in group.parameters]

    assert sorted(grouped) == sorted(parameter for parameter, _ in backbone.network.named_parameters())
    assert len(backbone.layer_groups) > 1


@pytest.mark.parametrize("name", ["mobilenetv2_100", "ghostnet_050"])
def test_groups_that_are_far_more_than_the_stages_are_cut_at_the_stages_instead(name):
    backbone = load_backbone(f"timm:{name}", None)

    names = [group.name for group in backbone.layer_groups]

    assert names[:2] == ["stem+stage1", "stage2"]
    assert len(names) <= len(backbone.stages) + 1


def test_random_weights_are_the_same_every_time():
    first, second = load_backbone("timm:test_efficientnet", None), load_backbone("timm:test_efficientnet", None)

    assert first.weights_digest == second.weights_digest
    assert (first.weights, first.pretrained) == ("random", False)


def test_unknown_name_suggests_the_nearest():
    with pytest.raises(BackboneError, match=r"timm has no model 'resnet19'.*'timm:resnet18'"):
        load_backbone("timm:resnet19", None)


def test_unknown_tag_is_named():
    with pytest.raises(BackboneError, match=r"resnet18\.nonsense"):
        load_backbone("timm:resnet18.nonsense", None)


def test_other_weights_than_timm_has_are_refused_with_what_to_write():
    with pytest.raises(WeightsError, match=r"part of the name: 'timm:resnet50\.a1_in1k'"):
        load_backbone("timm:resnet18", "a1_in1k")


def test_failed_download_says_where_the_file_is_looked_for(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)

    with pytest.raises(WeightsError, match=r"timm's 'test_efficientnet' cannot be loaded.*weights=PATH.*embedded"):
        load_backbone("timm:test_efficientnet")


def test_published_weights_in_hugging_faces_cache_are_used_and_named_by_their_tag(monkeypatch, tmp_path):
    tag = timm.get_pretrained_cfg("test_efficientnet").tag
    folder = tmp_path / f"models--timm--test_efficientnet.{tag}"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text("0" * 40)
    (folder / "snapshots" / ("0" * 40)).mkdir(parents=True)
    published = untouched("test_efficientnet", num_classes=1000)
    path = save_safetensors(published.state_dict(), folder / "snapshots" / ("0" * 40) / "model.safetensors")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))

    backbone = load_backbone("timm:test_efficientnet")

    assert (backbone.name, backbone.weights) == (f"timm:test_efficientnet.{tag}", tag)
    assert backbone.pretrained
    assert backbone.weights_digest == load_backbone(backbone.name, path).weights_digest
    assert load_backbone(backbone.reference.backbone, backbone.reference.weights).weights_digest == (
        backbone.weights_digest
    )


def test_preprocessing_that_is_not_known_here_is_refused_and_can_be_given():
    border = timm.create_model("test_vit", num_classes=0)
    border.pretrained_cfg = {**border.pretrained_cfg, "crop_mode": "border"}

    with pytest.raises(BackboneError, match=r"crop_mode 'border'.*preprocess="):
        published_preprocess(timm, border)


def test_preprocessing_can_be_given():
    preprocess = Preprocess(resize=64, crop=(64, 64), mean=(0.5,) * 3, std=(0.5,) * 3)

    backbone = load_backbone("timm:resnet18", None, preprocess=preprocess)

    assert backbone.preprocess == preprocess
    assert backbone.forward_layers(random_pixels(2, (64, 64)))["penultimate"].shape == (2, 512)


def published(name: str) -> Preprocess:
    with torch.device("meta"):
        network = timm.create_model(name, num_classes=0)
    return published_preprocess(timm, network)
