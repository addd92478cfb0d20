import numpy as np
import pytest
import torch
from PIL import Image

from bottleneck.backbones import Preprocess, load_backbone
from bottleneck.errors import WeightsError
from tests.backbones.networks import random_pixels, save_safetensors


def test_it_says_that_it_is_not_trained():
    backbone = load_backbone("embedded")

    assert (backbone.name, backbone.weights) == ("embedded", "untrained random filters")
    assert not backbone.pretrained
    assert backbone.reference.weights == "default"


def test_it_has_five_stages_and_a_layer_group_for_each():
    backbone = load_backbone("embedded")

    assert backbone.n_features == 256
    assert [stage.module for stage in backbone.stages] == [f"stages.{i}" for i in range(5)]
    assert [group.name for group in backbone.layer_groups] == ["stem+stage1", *(f"stage{i}" for i in range(2, 6))]


def test_filters_are_the_frozen_stream_whatever_torchs_random_numbers():
    torch.manual_seed(5)
    weight = load_backbone("embedded").network.get_parameter("stem.conv.weight")

    expected = (2 * np.random.RandomState(0).random_sample((16, 3, 3, 3)) - 1) * np.sqrt(3 / 27)

    np.testing.assert_array_equal(weight.numpy(), expected.astype(np.float32))


def test_activations_keep_unit_scale_through_the_network():
    backbone = load_backbone("embedded")
    # Smooth on every scale, as photographs are, with the mean and spread that the preprocessing expects.
    generator = torch.Generator().manual_seed(0)
    octaves = [
        torch.nn.functional.interpolate(torch.randn(32, 3, size, size, generator=generator), size=32, mode="bilinear")
        for size in (2, 4, 8, 16, 32)
    ]
    images = torch.stack(octaves).sum(dim=0)
    images = images / images.std()

    maps = torch.relu(backbone.network.stem(images))
    for stage in backbone.network.stages:
        maps = stage(maps)
        assert 0.5 < maps.square().mean().sqrt() < 2


@pytest.mark.parametrize("size", [32, 33, 47, 64, 96])
def test_images_of_32_to_96_pixels_are_taken(size):
    preprocess = Preprocess(resize=size, crop=(size, size), mean=(0.5,) * 3, std=(0.25,) * 3)

    layers = load_backbone("embedded", preprocess=preprocess).forward_layers(random_pixels(2, (size, size)))

    assert layers["penultimate"].shape == (2, 256)
    assert all(torch.isfinite(layer).all() for layer in layers.values())


def test_linear_probe_on_digits_reaches_95_percent():
    from sklearn.datasets import load_digits
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    digits = load_digits()
    backbone = load_backbone("embedded")
    images = [Image.fromarray((image * 15.9).astype(np.uint8)) for image in digits.images]
    pixels = torch.from_numpy(np.stack([backbone.preprocess(image) for image in images]))
    features = torch.cat([backbone.forward_layers(part)["penultimate"] for part in pixels.split(128)]).numpy()

    probe = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=200))
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    assert cross_val_score(probe, features, digits.target, cv=folds).mean() >= 0.95


def test_other_weights_can_be_loaded_from_a_file(tmp_path):
    random = load_backbone("embedded", None)
    metadata = {"mean": "0,0,0", "std": "1,1,1"}
    path = save_safetensors(random.network.state_dict(), tmp_path / "w.safetensors", metadata)

    backbone = load_backbone("embedded", path)

    assert backbone.weights_digest == random.weights_digest != load_backbone("embedded").weights_digest
    assert backbone.preprocess.mean == (0, 0, 0)
    assert backbone.preprocess.crop == (32, 32)
    assert backbone.pretrained
    assert not random.pretrained


def test_name_of_other_published_weights_is_refused():
    with pytest.raises(WeightsError, match=r"embedded backbone must be 'default'.*'IMAGENET1K_V1'"):
        load_backbone("embedded", "IMAGENET1K_V1")
