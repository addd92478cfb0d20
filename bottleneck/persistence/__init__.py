"""A finished classifier as one folder: JSON and safetensors, never pickle."""

from bottleneck.persistence.load import load
from bottleneck.persistence.save import save

__all__ = ["load", "save"]
