"""Candidate signals beside the planner's evidence: what each layer alone is worth."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from bottleneck.estimators.layers import join_layers
from bottleneck.heads import screen_features
from bottleneck.heads.normalize import Normalization


def layer_accuracies(
    layers: Mapping[str, NDArray[np.float32]], labels: NDArray[np.generic], *, normalization: Normalization, seed: int
) -> dict[str, float]:
    """Return the closed-form leave-one-out accuracy of each layer, of all, and of the earlier half of the stages."""
    stages = [name for name in layers if name != "penultimate"]
    blocks = {"penultimate": layers["penultimate"], **{name: layers[name] for name in stages}}
    if stages:
        blocks["all_stages"] = join_layers(layers, list(layers))
        blocks["early"] = join_layers(layers, stages[: (len(stages) + 1) // 2])
    screen = screen_features(blocks, labels, normalizations=(normalization,), random_state=seed)
    found = {name: screen.best(name).loo_accuracy for name in blocks}
    if stages:
        found["all_stages_gain_se"] = screen.gain("all_stages", over="penultimate").se
    return found
