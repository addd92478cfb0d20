"""A small-data experiment: backbones, then heads, all on one cache, every image through each network once.

With pretrained networks: ``compare_backbones(folder, None, ["embedded", "resnet50", "timm:convnext_tiny.fb_in1k"])``.
"""

import tempfile

import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import StratifiedKFold, cross_val_score
from torch import nn

from bottleneck import FeatureExtractor, LogisticHead, Preprocess, SVMHead, compare_backbones, load_backbone


class ThreeConvolutions(nn.Sequential):
    """An untrained network of one's own: a stand-in that needs no download."""

    def __init__(self, width: int) -> None:
        super().__init__(
            nn.Sequential(nn.Conv2d(3, width, 3, padding=1), nn.ReLU()),
            nn.Sequential(nn.Conv2d(width, 2 * width, 3, stride=2, padding=1), nn.ReLU()),
            nn.Sequential(nn.Conv2d(2 * width, 4 * width, 3, stride=2, padding=1), nn.ReLU()),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
        )


torch.manual_seed(0)
preprocess = Preprocess(resize=16, crop=(16, 16), interpolation="bilinear", mean=(0.5,) * 3, std=(0.5,) * 3)
own = load_backbone(ThreeConvolutions(width=12), preprocess=preprocess)
digits = load_digits()
X, y = (digits.images[:240] / 16).astype("float32"), digits.target[:240]

with tempfile.TemporaryDirectory() as cache_dir:
    table = compare_backbones(X, y, [own, "embedded"], cv=3, cache_dir=cache_dir, random_state=0)
    print(table)
    # table.to_frame() is a pandas DataFrame, table.plot() draws accuracy against cost.

    # Which head is another experiment, on the same features: nothing is computed again.
    features = FeatureExtractor("embedded", cache_dir=cache_dir).fit_transform(X)
    print()
    folds = StratifiedKFold(3, shuffle=True, random_state=0)
    heads = {"logistic": LogisticHead(cv=3), "SVM": SVMHead(cv=3), "SVM, rbf": SVMHead(cv=3, kernel="rbf")}
    for name, head in heads.items():
        print(f"{name:<10}{cross_val_score(head, features, y, cv=folds).mean():.3f}")
