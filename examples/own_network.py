"""An own network: any nn.Module, with the preprocessing that it was trained with."""

import tempfile

import torch
from sklearn.datasets import load_digits
from torch import nn

from bottleneck import Preprocess, TransferClassifier, load_backbone

torch.manual_seed(0)
network = nn.Sequential(
    nn.Sequential(nn.Conv2d(3, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU()),
    nn.Sequential(nn.Conv2d(32, 64, 3, stride=2, padding=1), nn.BatchNorm2d(64), nn.ReLU()),
    nn.Sequential(nn.Conv2d(64, 96, 3, stride=2, padding=1), nn.BatchNorm2d(96), nn.ReLU()),
    nn.AdaptiveAvgPool2d(1),
    nn.Flatten(),
    nn.Linear(96, 10),  # the classification layer: left out
)
preprocess = Preprocess(resize=16, crop=(16, 16), interpolation="bilinear", mean=(0.5,) * 3, std=(0.5,) * 3)
backbone = load_backbone(network, preprocess=preprocess)
print("layers:", backbone.layer_widths)
for group in backbone.layer_groups:
    print(f"group {group.name}: {len(group.parameters)} tensors")

digits = load_digits()
X = (digits.images / 16).astype("float32")
with tempfile.TemporaryDirectory() as cache_dir:
    classifier = TransferClassifier(backbone, strategy="probe", cache_dir=cache_dir, random_state=0)
    classifier.fit(X[:900], digits.target[:900])
    print(f"untrained filters, probe: {classifier.score(X[900:], digits.target[900:]):.3f}")
