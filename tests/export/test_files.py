"""Exported files, read by the programs that they are for, say what the classifier says."""

import json
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.exceptions import NotFittedError
from torch import nn

from bottleneck import (
    FineTuneSettings,
    LogisticHead,
    Preprocess,
    SVMHead,
    TransferClassifier,
    export_onnx,
    export_torch,
    load_backbone,
)
from bottleneck.errors import InvalidInputError
from bottleneck.export import export_model
from bottleneck.export.check import TOLERANCE
from tests.conftest import coloured_images

IMAGES, LABELS = coloured_images(24)
NAMES = np.array(["blåish", "reddish"])[LABELS]
Predict = Callable[[np.ndarray], np.ndarray]


def fitted(tmp_path: Path, backbone: object, labels: np.ndarray = NAMES, **params: object) -> TransferClassifier:
    params = {"strategy": "probe", **params}
    classifier = TransferClassifier(
        backbone, precision="float32", cache_dir=tmp_path / "cache", random_state=0, **params
    )
    return classifier.fit(IMAGES, labels)


def run_onnx(path: Path) -> Predict:
    session = pytest.importorskip("onnxruntime").InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return lambda images: session.run(None, {"images": images})[0]


def run_torch(path: Path) -> Predict:
    module = torch.export.load(path).module()
    return lambda images: module(torch.from_numpy(images)).detach().numpy()


def assert_agrees(predict: Predict, classifier: TransferClassifier) -> None:
    random = np.random.RandomState(1)
    for shape in ((1, 20, 20, 3), (5, 64, 90, 3), (2, 31, 30, 3), (3, 7, 9, 3)):
        images = random.randint(0, 256, shape).astype(np.uint8)
        np.testing.assert_allclose(predict(images), classifier.predict_proba(images), atol=TOLERANCE)


def test_onnx_file_takes_images_of_any_number_and_size_and_names_the_classes(tiny_backbone, tmp_path):
    pytest.importorskip("onnxscript")
    classifier = fitted(tmp_path, tiny_backbone, strategy="all_stages_probe", head=SVMHead())

    report = export_onnx(classifier, tmp_path / "classifier.onnx")

    assert report.largest_difference <= TOLERANCE
    assert report.classes == ("blåish", "reddish")
    assert report.n_bytes == report.path.stat().st_size < 100_000
    assert_agrees(run_onnx(report.path), classifier)
    described = pytest.importorskip("onnx").load(report.path)
    metadata = {entry.key: entry.value for entry in described.metadata_props}
    assert json.loads(metadata["classes"]) == ["blåish", "reddish"]
    assert metadata["weights_digest"] == tiny_backbone.weights_digest
    assert str(Path(__file__).parents[2]).encode() not in report.path.read_bytes()


def test_torch_file_takes_images_of_any_number_and_size_and_names_the_classes(tiny_backbone, tmp_path):
    classifier = fitted(tmp_path, tiny_backbone, np.arange(24) % 3, head=SVMHead(kernel="rbf"))

    report = export_torch(classifier, tmp_path / "classifier.pt2")

    assert report.largest_difference <= TOLERANCE
    assert_agrees(run_torch(report.path), classifier)
    extra = {"classifier.json": ""}
    torch.export.load(report.path, extra_files=extra)
    assert json.loads(json.loads(extra["classifier.json"])["classes"]) == [0, 1, 2]
    assert str(Path(__file__).parents[2]).encode() not in report.path.read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize(
    "params",
    [
        {"head": LogisticHead(normalize="l2")},
        {"head": SVMHead(kernel="rbf")},
        {"strategy": "finetune", "finetune": FineTuneSettings(steps=4, folds=2)},
    ],
    ids=["logistic", "rbf", "finetuned"],
)
@pytest.mark.parametrize("backbone", ["tiny", "embedded", "squeezenet1_1", "resnet18", "timm:vit_tiny_patch16_224"])
def test_every_kind_of_classifier_can_be_exported_to_onnx(backbone, params, tiny_backbone, tmp_path):
    pytest.importorskip("onnxscript")
    # Looked for, not imported: timm imports torchvision, which goes through our door first.
    if backbone.startswith("timm:") and find_spec("timm") is None:
        pytest.skip("timm is not installed")
    if backbone not in ("tiny", "embedded") and "head" not in params:
        pytest.skip("fine-tuned large networks are like small ones")
    network = tiny_backbone if backbone == "tiny" else backbone
    weights = "default" if backbone in ("tiny", "embedded") else None
    classifier = fitted(tmp_path, network, weights=weights, **params)

    report = export_onnx(classifier, tmp_path / "classifier.onnx")

    assert_agrees(run_onnx(report.path), classifier)


@pytest.mark.slow
@pytest.mark.shared
def test_real_pictures_get_the_same_probabilities(shared, tmp_path):
    pytest.importorskip("onnxscript")
    weights = shared / "weights" / "mobilenet_v2_imagenet_tf_hmirror.safetensors"
    backbone = load_backbone("mobilenet_v2", weights)
    folder = shared / "data" / "hymenoptera"
    paths = sorted((folder / "train").rglob("*.jpg"))[::6]
    classifier = TransferClassifier(
        backbone, strategy="probe", precision="float32", cache_dir=tmp_path / "cache", random_state=0
    ).fit(paths, [path.parent.name for path in paths])
    predict = run_onnx(export_onnx(classifier, tmp_path / "classifier.onnx").path)

    for path in sorted((folder / "test").rglob("*.jpg"))[::4]:
        pixels = np.array(Image.open(path).convert("RGB"))[None]
        np.testing.assert_allclose(predict(pixels), classifier.predict_proba(pixels), atol=TOLERANCE)


class Undecided(nn.Module):
    """A network whose way depends on what it sees."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        maps = self.conv(images)
        return (maps if maps.mean() > 0 else -maps).mean(dim=(2, 3))


def test_network_that_torch_cannot_follow_is_named(tmp_path):
    half = (0.5, 0.5, 0.5)
    torch.manual_seed(0)
    backbone = load_backbone(Undecided(), preprocess=Preprocess(resize=16, crop=(16, 16), mean=half, std=half))
    classifier = fitted(tmp_path, backbone)

    with pytest.raises(InvalidInputError, match="Undecided cannot be exported"):
        export_torch(classifier, tmp_path / "classifier.pt2")


def test_ending_decides_the_kind_and_others_are_refused_before_anything_is_done(tiny_backbone, tmp_path):
    classifier = fitted(tmp_path, tiny_backbone)

    with pytest.raises(InvalidInputError, match=r"ending in \.onnx or \.pt2.*Did you mean '\.onnx'"):
        export_model(classifier, tmp_path / "classifier.onx")
    with pytest.raises(InvalidInputError, match=r"ending in \.pt2"):
        export_torch(classifier, tmp_path / "classifier.onnx")
    with pytest.raises(InvalidInputError, match="existing folder"):
        export_model(classifier, tmp_path / "nowhere" / "classifier.pt2")
    (tmp_path / "folder.pt2").mkdir()
    with pytest.raises(InvalidInputError, match="That is a folder"):
        export_model(classifier, tmp_path / "folder.pt2")


def test_unfitted_classifier_cannot_be_exported(tmp_path):
    with pytest.raises(NotFittedError):
        export_torch(TransferClassifier(), tmp_path / "classifier.pt2")
