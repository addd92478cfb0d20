"""Candidate signals beside the planner's evidence: what else is cheap to know before fine-tuning."""

import copy
from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from bottleneck.backbones import Backbone
from bottleneck.estimators.layers import join_layers
from bottleneck.finetune.pixels import Pixels
from bottleneck.heads import normalize_rows, screen_features
from bottleneck.heads.normalize import Normalization

N_NEIGHBOURS = 5
N_SHIFT_IMAGES = 256


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


def neighbour_accuracy(features: NDArray[np.float32], labels: NDArray[np.generic]) -> float:
    """Return how often the five nearest other rows, by cosine, vote for the right class."""
    classes, codes = np.unique(labels, return_inverse=True)
    unit = normalize_rows(features, "l2")
    cosines = unit @ unit.T
    np.fill_diagonal(cosines, -np.inf)
    nearest = np.argpartition(-cosines, min(N_NEIGHBOURS, len(codes) - 1) - 1, axis=1)[:, :N_NEIGHBOURS]
    votes = np.zeros((len(codes), len(classes)))
    rows = np.arange(len(codes))[:, None]
    np.add.at(votes, (np.broadcast_to(rows, nearest.shape), codes[nearest]), np.take_along_axis(cosines, nearest, 1))
    return float((votes.argmax(axis=1) == codes).mean())


@torch.inference_mode()
def batch_norm_shift(backbone: Backbone, pixels: Pixels, *, n_images: int) -> float | None:
    """Return how far, in standard deviations, the inputs of BatchNorm layers lie from what these expect.

    A mean over channels and layers; None for a network without any.
    """
    network, shifts = copy.deepcopy(backbone.network).eval(), list[float]()

    def note(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        assert isinstance(module, _BatchNorm)
        assert module.running_mean is not None
        assert module.running_var is not None
        mean = inputs[0].float().mean(dim=(0, *range(2, inputs[0].dim())))
        shifts.append(float(((mean - module.running_mean).abs() / (module.running_var + module.eps).sqrt()).mean()))

    for module in network.modules():
        if isinstance(module, _BatchNorm):
            module.register_forward_pre_hook(note)
    rows = np.arange(min(n_images, N_SHIFT_IMAGES))
    for images in pixels.batches(rows, batch_size=64):
        network(backbone.preprocess.normalise(images))
    return float(np.mean(shifts)) if shifts else None
