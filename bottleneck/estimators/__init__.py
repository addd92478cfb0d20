"""The scikit-learn face of the library: a classifier of images, and a transformer from images to features."""

from bottleneck.estimators.classifier import TransferClassifier
from bottleneck.estimators.extractor import FeatureExtractor

__all__ = ["FeatureExtractor", "TransferClassifier"]
