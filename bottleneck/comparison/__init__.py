"""Which backbone for these images: each computed once, all judged on the same held-out images."""

from bottleneck.comparison.compare import compare_backbones
from bottleneck.comparison.intervals import Interval
from bottleneck.comparison.records import BackboneComparison, BackboneScore

__all__ = ["BackboneComparison", "BackboneScore", "Interval", "compare_backbones"]
