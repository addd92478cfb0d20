"""From a name, an own module or a weights file to a frozen network with its preprocessing and layer groups."""

from bottleneck.backbones.base import Backbone, BackboneReference
from bottleneck.backbones.load import load_backbone
from bottleneck.backbones.preprocess import Preprocess
from bottleneck.backbones.structure import LayerGroup, Stage, has_layer_norm

__all__ = [
    "Backbone",
    "BackboneReference",
    "LayerGroup",
    "Preprocess",
    "Stage",
    "has_layer_norm",
    "load_backbone",
]
