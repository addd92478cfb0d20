"""A finished classifier as one folder: JSON and safetensors, never pickle."""

from bottleneck.persistence.reading import load
from bottleneck.persistence.writing import save

__all__ = ["load", "save"]
