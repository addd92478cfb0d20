"""A finished classifier as one folder: JSON and safetensors, never pickle."""

from bottleneck.persistence.reading import load
from bottleneck.persistence.writing import check_target, save

__all__ = ["check_target", "load", "save"]
