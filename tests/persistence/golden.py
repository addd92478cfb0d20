"""Saved classifiers of every released format, and how they were made.

    python -m tests.persistence.golden

writes those of the present format into ``tests/golden/``. Folders of a released format are never written again: that
they can still be read is the promise.
"""

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from bottleneck import Backbone, FineTuneSettings, Preprocess, SVMHead, TransferClassifier, load_backbone, save
from bottleneck.persistence.format import VERSION
from tests.conftest import coloured_images

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
EXPECTED = "expected.json"
IMAGES, LABELS = coloured_images(24, seed=3)

CLASSIFIERS: dict[str, tuple[dict[str, Any], Any, bool]] = {
    "logistic": ({"strategy": "probe"}, np.array(["bluish", "rötlich"])[LABELS], False),
    "all_stages_svm": ({"strategy": "all_stages_probe", "head": SVMHead()}, LABELS == 1, True),
    "rbf": ({"strategy": "probe", "head": SVMHead(kernel="rbf"), "on_error": "skip"}, np.arange(24) % 3 + 7, True),
    "finetuned": (
        {"strategy": "finetune", "finetune": FineTuneSettings(steps=30, folds=2, acceptance_z=0.0, lr=0.02)},
        np.array(["bluish", "reddish"])[LABELS],
        False,
    ),
}
"""Parameters, labels, and whether the backbone is in the folder."""


def golden_backbone() -> Backbone:
    """Return a network of three small convolutions with weights from NumPy's frozen stream."""
    network = nn.Sequential(
        nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU()),
        nn.Sequential(nn.Conv2d(4, 6, 3, stride=2, padding=1), nn.BatchNorm2d(6), nn.ReLU()),
        nn.Sequential(nn.Conv2d(6, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8), nn.ReLU()),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    )
    random = np.random.RandomState(0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(torch.from_numpy(random.uniform(-0.5, 0.5, parameter.shape)))
    half = (0.5, 0.5, 0.5)
    return load_backbone(network, preprocess=Preprocess(resize=16, crop=(16, 16), mean=half, std=half))


def write_golden(name: str, folder: Path, cache_dir: Path) -> None:
    """Fit one of the classifiers and save it with what it predicts."""
    params, labels, include_backbone = CLASSIFIERS[name]
    classifier = TransferClassifier(
        golden_backbone(), precision="float32", cache_dir=cache_dir, random_state=0, **params
    ).fit(IMAGES, labels)
    assert classifier.strategy_ == params["strategy"], classifier.outcome_
    save(classifier, folder, include_backbone=include_backbone)
    expected = {
        "predict": classifier.predict(IMAGES).tolist(),
        "predict_proba": classifier.predict_proba(IMAGES).round(6).tolist(),
        "strategy": classifier.strategy_,
    }
    (folder / EXPECTED).write_text(json.dumps(expected))


def main() -> None:
    """Write all of the present format."""
    for name in CLASSIFIERS:
        folder = GOLDEN / f"classifier-v{VERSION}" / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory() as cache_dir:
            write_golden(name, folder, Path(cache_dir))


if __name__ == "__main__":
    main()
