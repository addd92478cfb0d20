"""Which layers a head sees, and how several become one matrix."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from bottleneck.backbones import Backbone
from bottleneck.errors import did_you_mean, wrong_parameter
from bottleneck.heads import normalize_rows

PENULTIMATE = ("penultimate",)


def layers_of(backbone: Backbone, name: str) -> tuple[str, ...]:
    """Return the layers that "penultimate", "all_stages" or one layer's own name stand for.

    Raises
    ------
    InvalidInputError
        The backbone has no such layer.
    """
    known = tuple(backbone.layer_widths)
    if name == "all_stages":
        return known
    if name not in known:
        allowed = "'all_stages' or one of " + ", ".join(map(repr, known))
        raise wrong_parameter(f"backbone {backbone.name}", "layers", allowed, name, did_you_mean(str(name), known))
    return (name,)


def join_layers(features: Mapping[str, NDArray[np.float32]], layers: Sequence[str]) -> NDArray[np.float32]:
    """Return one matrix of features, raw for a single layer.

    Several layers are L2-normalised row by row, each on its own, so that none outweighs the others (as in
    Head2Toe, Evci et al. 2022); nothing is fitted, so nothing leaks between folds.
    """
    if len(layers) == 1:
        return features[layers[0]]
    return np.hstack([normalize_rows(features[layer], "l2").astype(np.float32, copy=False) for layer in layers])
