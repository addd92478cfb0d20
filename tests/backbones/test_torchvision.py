import copy

import pytest
import torch
from PIL import Image

from bottleneck.backbones import Preprocess, load_backbone
from bottleneck.backbones.torchvision import build_classifier, drop_last_layer, published_preprocess
from bottleneck.backbones.weights import read_weights
from bottleneck.errors import BackboneError, WeightsError
from bottleneck.torchvision_door import torchvision
from tests.backbones.networks import (
    IMAGENET,
    ParametersOnMeta,
    input_of_last_layer,
    pooled_by_hand,
    random_pixels,
    save_safetensors,
)

# The smallest member of every family, at the smallest size that it takes without degenerating.
FAMILIES = {
    "alexnet": 64,
    "convnext_tiny": 32,
    "densenet121": 32,
    "efficientnet_b0": 32,
    "efficientnet_v2_s": 32,
    "googlenet": 32,
    "inception_v3": 75,
    "maxvit_t": 224,
    "mnasnet0_5": 32,
    "mobilenet_v2": 32,
    "mobilenet_v3_small": 32,
    "regnet_x_400mf": 32,
    "regnet_y_400mf": 32,
    "resnet18": 32,
    "shufflenet_v2_x0_5": 32,
    "swin_t": 64,
    "swin_v2_t": 64,
    "vgg11": 32,
    "vit_b_32": 64,
}


def sized(name: str, size: int) -> Preprocess:
    published = published_preprocess(name, "DEFAULT")
    return Preprocess(resize=size, crop=(size, size), mean=published.mean, std=published.std)


def images_of(preprocess: Preprocess, n: int = 2) -> torch.Tensor:
    return preprocess.normalise(random_pixels(n, preprocess.crop))


# The windows of MaxViT need 224 pixels, which takes seconds; the others have a close relative among the rest.
SLOW = ("maxvit_t", "efficientnet_v2_s", "regnet_y_400mf", "swin_v2_t")
FAMILY_NAMES = [pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name for name in FAMILIES]


@pytest.fixture(scope="module", params=FAMILY_NAMES)
def family(request):
    """Build the untouched model, and the same one without its classification layer."""
    name = request.param
    preprocess = sized(name, FAMILIES[name])
    untouched = build_classifier(name, preprocess).eval()
    network = copy.deepcopy(untouched)
    last = drop_last_layer(network)
    return untouched, network.eval(), last, images_of(preprocess)


def test_features_are_what_the_last_layer_of_the_untouched_model_gets(family):
    untouched, network, last, images = family

    expected, logits = input_of_last_layer(untouched, last, images)
    with torch.inference_mode():
        features = network(images)
        again = untouched.get_submodule(last)(features)

    torch.testing.assert_close(features, expected)
    torch.testing.assert_close(again, logits)


def test_nothing_of_the_last_layer_stays_and_nothing_else_goes(family):
    untouched, network, last, _ = family

    gone = set(dict(untouched.named_parameters())) - set(dict(network.named_parameters()))

    assert gone == {f"{last}.{name}" for name, _ in untouched.get_submodule(last).named_parameters()}


@pytest.mark.parametrize("name", ["densenet121", "googlenet", "inception_v3", "maxvit_t", "mobilenet_v2", "vit_b_32"])
def test_network_trains_and_every_parameter_gets_a_gradient(name):
    with ParametersOnMeta():
        network = build_classifier(name, sized(name, FAMILIES[name])).to("meta")
    drop_last_layer(network)

    features = network.train()(torch.empty(2, 3, FAMILIES[name], FAMILIES[name], device="meta"))
    features.sum().backward()

    assert features.ndim == 2
    assert [parameter for parameter, tensor in network.named_parameters() if tensor.grad is None] == []


@pytest.mark.parametrize("name", ["squeezenet1_0", "squeezenet1_1"])
def test_squeezenet_features_are_the_pooled_input_of_its_classifying_convolution(name):
    untouched = build_classifier(name, sized(name, 64)).eval()
    network = copy.deepcopy(untouched)
    images = images_of(sized(name, 64))

    drop_last_layer(network)

    with torch.inference_mode():
        torch.testing.assert_close(network(images), untouched.features(images).mean(dim=(2, 3)))
    assert set(dict(untouched.named_parameters())) - set(dict(network.named_parameters())) == {
        "classifier.1.weight",
        "classifier.1.bias",
    }


@pytest.mark.parametrize("name", ["densenet121", "swin_t", "vit_b_32"])
def test_layers_equal_maps_averaged_by_hand(name):
    backbone = load_backbone(name, None, preprocess=sized(name, 64))
    pixels = random_pixels(2, (64, 64))
    images = backbone.preprocess.normalise(pixels)

    layers = backbone.forward_layers(pixels)

    for stage, expected in pooled_by_hand(backbone, images).items():
        torch.testing.assert_close(layers[stage], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
def test_inception_with_saved_weights_equals_what_torchvision_makes_of_them(name, tmp_path):
    # As torchvision does for its own weights: helping classifiers in the file, input converted from ImageNet's mean.
    with torch.random.fork_rng(devices=[]):
        original = torchvision().models.get_model(name, weights=None, transform_input=True, init_weights=True)
    torch.save(original.state_dict(), tmp_path / "weights.pth")
    expected, _ = input_of_last_layer(original, "fc", images_of(sized(name, 96)))

    backbone = load_backbone(name, tmp_path / "weights.pth", preprocess=sized(name, 96))

    torch.testing.assert_close(backbone.network(images_of(backbone.preprocess)), expected)
    assert not [part for part, _ in backbone.network.named_modules() if "aux" in part.lower()]
    assert isinstance(copy.deepcopy(backbone.network).train()(images_of(backbone.preprocess)), torch.Tensor)


def test_inception_weights_with_their_own_mean_get_pixels_normalised_with_it():
    preprocess = Preprocess(resize=80, crop=(80, 80), mean=(0.5,) * 3, std=(0.5,) * 3)
    pixels = random_pixels(2, (80, 80))

    own = load_backbone("inception_v3", None, preprocess=preprocess)
    converted = load_backbone("inception_v3", None, preprocess=sized("inception_v3", 80))

    given, expected = own.forward_layers(pixels)["penultimate"], converted.forward_layers(pixels)["penultimate"]
    assert (own.network.transform_input, converted.network.transform_input) == (False, True)
    assert (given - expected).norm() < 1e-3 * expected.norm()


def test_published_files_of_densenet_have_old_names_that_are_understood(tmp_path):
    original = build_classifier("densenet121", sized("densenet121", 32))
    old = {
        name.replace("norm1.", "norm.1.")
        .replace("norm2.", "norm.2.")
        .replace("conv1.", "conv.1.")
        .replace("conv2.", "conv.2.")
        if "denselayer" in name
        else name: tensor
        for name, tensor in original.state_dict().items()
    }

    backbone = load_backbone("densenet121", save_safetensors(old, tmp_path / "old.safetensors"))

    assert backbone.weights_digest == load_backbone("densenet121", None).weights_digest


@pytest.mark.parametrize("name", ["mobilenet_v3_small", "mnasnet0_5"])
@pytest.mark.parametrize("n_classes", [1000, 7, None])
def test_file_fits_whatever_its_classification_layer(name, n_classes, tmp_path):
    with torch.random.fork_rng(devices=[]):
        trained = torchvision().models.get_model(name, num_classes=n_classes or 2)
    last = drop_last_layer(copy.deepcopy(trained))
    tensors = {k: v for k, v in trained.state_dict().items() if n_classes or not k.startswith(last)}
    path = save_safetensors(tensors, tmp_path / "weights.safetensors")

    backbone = load_backbone(name, str(path))

    expected, _ = input_of_last_layer(trained, last, images_of(sized(name, 224)))
    torch.testing.assert_close(backbone.network(images_of(sized(name, 224))), expected)
    assert backbone.weights == backbone.reference.weights == str(path)


def test_weights_of_another_network_are_refused_with_what_does_not_fit(tmp_path):
    tensors = build_classifier("resnet34", sized("resnet34", 32)).state_dict()
    path = save_safetensors(tensors, tmp_path / "resnet34.safetensors")

    with pytest.raises(WeightsError, match=r"resnet34\.safetensors' are not for this network:\n  - unexpected: layer1"):
        load_backbone("resnet18", path)


def test_random_weights_are_the_same_every_time_and_leave_the_callers_random_numbers_alone():
    torch.manual_seed(1)
    first = load_backbone("resnet18", None)
    drawn = torch.rand(2)
    torch.manual_seed(1)

    assert torch.equal(drawn, torch.rand(2))
    assert load_backbone("resnet18", None).weights_digest == first.weights_digest
    assert (first.weights, first.reference.weights, first.pretrained) == ("random", None, False)
    assert first.preprocess == published_preprocess("resnet18", "DEFAULT")


def test_failed_download_says_where_the_file_is_looked_for(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    unreachable(monkeypatch)

    with pytest.raises(WeightsError, match=r"hub/checkpoints/resnet50-11ad3fa6\.pth.*weights=PATH.*embedded") as caught:
        load_backbone("resnet50")
    assert "IMAGENET1K_V2 of resnet50" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_weights_are_chosen_by_the_name_of_a_member(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    unreachable(monkeypatch)

    with pytest.raises(WeightsError, match=r"resnet50-0676ba61\.pth"):
        load_backbone("resnet50", "IMAGENET1K_V1")


def test_file_that_is_in_the_cache_but_damaged_is_refused(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    path = tmp_path / "hub" / "checkpoints" / "resnet18-f37072fd.pth"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"half a download")

    with pytest.raises(WeightsError, match=r"resnet18-f37072fd\.pth' is not the published file"):
        load_backbone("resnet18")


@pytest.mark.parametrize("weights", ["IMAGENET1K_V3", "imagenet1k_v1", "imagenet"])
def test_mistyped_weights_list_the_members(weights):
    with pytest.raises(WeightsError, match=r"\['IMAGENET1K_V1', 'IMAGENET1K_V2'.*Got '" + weights):
        load_backbone("resnet50", weights)


def test_size_that_the_architecture_cannot_take_is_a_backbone_error():
    with pytest.raises(BackboneError, match=r"vit_b_32 cannot be built for images of \(65, 65\)"):
        load_backbone("vit_b_32", None, preprocess=sized("vit_b_32", 65))
    with pytest.raises(BackboneError, match=r"does not run on images of shape \(2, 3, 20, 20\)"):
        load_backbone("inception_v3", None, preprocess=sized("inception_v3", 20))


@pytest.mark.shared
def test_mobilenet_file_brings_its_own_mean_and_std(shared):
    backbone = load_backbone("mobilenet_v2", shared / "weights" / "mobilenet_v2_imagenet_tf_hmirror.safetensors")

    assert backbone.preprocess == Preprocess(resize=256, crop=(224, 224), mean=(0.5,) * 3, std=(0.5,) * 3)
    assert {tensor.dtype for tensor in backbone.network.parameters()} == {torch.float32}
    assert backbone.pretrained


@pytest.mark.shared
def test_classification_layer_of_the_mobilenet_file_knows_ants_and_bees_by_our_features(shared):
    path = shared / "weights" / "mobilenet_v2_imagenet_tf_hmirror.safetensors"
    backbone, tensors = load_backbone("mobilenet_v2", path), read_weights(path).tensors
    kinds = {"bees": 309, "ants": 310}  # ImageNet's numbers
    photos = {kind: sorted((shared / "data" / "hymenoptera" / "test" / kind).iterdir())[:8] for kind in kinds}

    right = []
    for kind, number in kinds.items():
        pixels = torch.stack([torch.from_numpy(backbone.preprocess(Image.open(photo))) for photo in photos[kind]])
        features = backbone.forward_layers(pixels)["penultimate"]
        logits = features @ tensors["classifier.1.weight"].float().T + tensors["classifier.1.bias"]
        right += (logits[:, [309, 310]].argmax(dim=1) + 309 == number).tolist()

    assert sum(right) >= 13


@pytest.mark.shared
def test_squeezenet_file_fits_although_its_classifier_is_a_convolution(shared):
    backbone = load_backbone("squeezenet1_0", shared / "weights" / "squeezenet1_0_imagenet.safetensors")

    assert backbone.n_features == 512
    assert backbone.preprocess == Preprocess(resize=256, crop=(224, 224), **IMAGENET)


def unreachable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Send downloads to a port where nobody listens."""
    for scheme in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(scheme, "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
