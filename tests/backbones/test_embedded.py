import json

import h5py
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open

from bottleneck.backbones import Preprocess, load_backbone
from bottleneck.backbones.embedded import TRAINED_ON, WEIGHTS
from bottleneck.errors import WeightsError
from bottleneck.extraction import ExtractionSettings, Extractor
from bottleneck.images import as_image_source
from tests.backbones.networks import random_pixels, save_safetensors


def test_it_says_what_it_was_trained_on():
    backbone = load_backbone("embedded")

    assert (backbone.name, backbone.weights) == ("embedded", TRAINED_ON)
    assert backbone.pretrained
    assert backbone.reference.weights == "default"


def test_it_has_five_stages_and_a_layer_group_for_each():
    backbone = load_backbone("embedded")

    assert backbone.n_features == 512
    assert [stage.module for stage in backbone.stages] == [f"stages.{i}" for i in range(5)]
    assert [group.name for group in backbone.layer_groups] == ["stem+stage1", *(f"stage{i}" for i in range(2, 6))]


def test_its_weights_are_small_and_in_half_precision_with_a_card_beside_them():
    with safe_open(WEIGHTS, framework="pt") as file:
        dtypes = {file.get_tensor(name).dtype for name in file.keys()}  # noqa: SIM118 (not a mapping)

    assert WEIGHTS.stat().st_size <= 3_000_000
    assert dtypes == {torch.float16, torch.int64}
    assert "Tiny ImageNet" in WEIGHTS.with_suffix(".md").read_text()


@pytest.mark.parametrize("size", [32, 33, 47, 64, 96])
def test_images_of_32_to_96_pixels_are_taken(size):
    preprocess = Preprocess(resize=size, crop=(size, size), mean=(0.5,) * 3, std=(0.25,) * 3)

    layers = load_backbone("embedded", preprocess=preprocess).forward_layers(random_pixels(2, (size, size)))

    assert layers["penultimate"].shape == (2, 512)
    assert all(torch.isfinite(layer).all() for layer in layers.values())


@pytest.mark.shared
def test_classification_layer_in_its_file_is_right_on_45_percent_of_validation_images(shared):
    with safe_open(WEIGHTS, framework="pt") as file:
        weight, bias = file.get_tensor("head.weight").float(), file.get_tensor("head.bias").float()
        classes = np.array(json.loads(file.metadata()["classes"]))
    with h5py.File(shared / "data" / "tiny_imagenet_64.h5") as file:
        rows = np.sort(np.random.default_rng(0).permutation(5000)[:1500])
        joined, offsets = file["val/bytes"][:], file["val/offsets"][:]
        encoded = [joined[offsets[row] : offsets[row + 1]].tobytes() for row in rows]
        labels = file["wnids"][:][file["val/labels"][:][rows]].astype(str)
    extractor = Extractor(load_backbone("embedded"), ExtractionSettings(device="cpu"))

    batches = extractor.extract(as_image_source(encoded), np.arange(len(rows)), precision="float32")
    features = torch.from_numpy(np.concatenate([batch.layers["penultimate"] for batch in batches]))

    predicted = classes[(features @ weight.T + bias).argmax(dim=1).numpy()]
    assert (predicted == labels).mean() >= 0.45


def test_linear_probe_on_digits_reaches_95_percent():
    from sklearn.datasets import load_digits
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    digits = load_digits()
    backbone = load_backbone("embedded")
    images = [Image.fromarray((image * 15.9).astype(np.uint8)) for image in digits.images[:900]]
    pixels = torch.from_numpy(np.stack([backbone.preprocess(image) for image in images]))
    features = torch.cat([backbone.forward_layers(part)["penultimate"] for part in pixels.split(128)]).numpy()

    probe = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=200))
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    assert cross_val_score(probe, features, digits.target[:900], cv=folds).mean() >= 0.95


def test_other_weights_can_be_loaded_from_a_file(tmp_path):
    random = load_backbone("embedded", None)
    metadata = {"mean": "0,0,0", "std": "1,1,1"}
    path = save_safetensors(random.network.state_dict(), tmp_path / "w.safetensors", metadata)

    backbone = load_backbone("embedded", path)

    assert backbone.weights_digest == random.weights_digest != load_backbone("embedded").weights_digest
    assert backbone.preprocess.mean == (0, 0, 0)
    assert backbone.preprocess.crop == (64, 64)
    assert backbone.pretrained
    assert not random.pretrained


def test_name_of_other_published_weights_is_refused():
    with pytest.raises(WeightsError, match=r"embedded backbone must be 'default'.*'IMAGENET1K_V1'"):
        load_backbone("embedded", "IMAGENET1K_V1")
