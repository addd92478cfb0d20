"""Fine-tuning where it is known to pay: a network pretrained on CIFAR-10, and drawings of clothes."""

from pathlib import Path

import numpy as np
import pytest

from bottleneck.backbones import load_backbone
from bottleneck.extraction import ExtractionSettings, Extractor
from bottleneck.finetune import FineTuneSettings, finetune
from bottleneck.heads import LogisticHead
from bottleneck.images import as_labelled_source, subset
from tests.finetune.resnet20 import ResNet20

pytestmark = pytest.mark.usefixtures("one_thread")

# Few steps and one hold-out, to be quick; the rates for data far from what the network was pretrained on.
QUICK_AND_HOT = FineTuneSettings(steps=360, lr=0.05, lr_decay=1.3, folds=1)


def some_of(folder: Path, n_images: int):
    source, labels = as_labelled_source(folder, None)
    rows = np.sort(np.random.default_rng(0).permutation(len(labels))[:n_images])
    return subset(source, rows), labels[rows]


def extract(backbone, source) -> np.ndarray:
    extractor = Extractor(backbone, ExtractionSettings(device="cpu", workers=0))
    batches = extractor.extract(source, np.arange(len(source)), precision="float32")
    return np.concatenate([batch.layers["penultimate"] for batch in batches])


@pytest.mark.shared
@pytest.mark.slow
def test_fine_tuning_beats_the_probe_on_fashion_mnist(shared: Path):
    backbone = load_backbone(ResNet20(), shared / "weights" / "resnet20_cifar10.safetensors")
    source, labels = some_of(shared / "data" / "fashion_mnist" / "train", 800)
    unseen, unseen_labels = some_of(shared / "data" / "fashion_mnist" / "test", 600)
    features = extract(backbone, source)
    head = LogisticHead(random_state=0).fit(features, labels)

    result = finetune(source, labels, backbone=backbone, head=head, features=features, settings=QUICK_AND_HOT)

    probe_accuracy = head.score(extract(backbone, unseen), unseen_labels)
    tuned_accuracy = result.head.score(extract(result.backbone, unseen), unseen_labels)
    assert result.accepted
    assert tuned_accuracy > probe_accuracy + 0.03
