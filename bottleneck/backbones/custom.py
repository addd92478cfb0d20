"""Backbones from the user's own ``nn.Module``."""

import copy
from pathlib import Path

import torch
from torch import Tensor, nn

from bottleneck.backbones.base import Backbone, BackboneReference, build_backbone, example_batch
from bottleneck.backbones.preprocess import Preprocess, parse_preprocess
from bottleneck.backbones.structure import trace
from bottleneck.backbones.weights import as_weights_path, load_tensors, read_weights
from bottleneck.errors import BackboneError, WeightsError


def load_custom(module: nn.Module, weights: str | Path | None, *, preprocess: Preprocess | None) -> Backbone:
    """Take a copy of an own module, without its classification layer if it ends in one.

    The rule: when the last layer with parameters that runs is ``nn.Linear``, it is the classification layer and is
    dropped; a module that ends in anything else already ends in features.

    Raises
    ------
    BackboneError
        The module does not run, does not end in features, or its preprocessing is not known.
    WeightsError
        Weights that do not exist or do not fit.
    """
    path = as_weights_path(weights)
    if path is None and weights not in ("default", None):
        raise WeightsError(
            "The 'weights' parameter for an own nn.Module must be a path ending in .safetensors or .pth, or left out "
            f"to use the module as it is. Got {weights!r} instead."
        )
    file = read_weights(path) if path else None
    preprocess = preprocess or parse_preprocess(file.metadata if file else {})
    name = type(module).__name__
    if preprocess is None:
        raise BackboneError(
            f"How images are prepared for {name} is not known: pass preprocess=Preprocess(resize=..., crop=..., "
            "mean=..., std=...), or weights=PATH of a file whose metadata gives mean, std and crop."
        )
    network = copy.deepcopy(module).cpu().float().eval()
    last = _drop_last_linear(network, example_batch(preprocess))
    if file is not None:
        load_tensors(network, file, ignored=(last,) if last else ())
    described = str(file.path) if file else "as given"
    reference = BackboneReference(backbone=name, weights=str(file.path) if file else None, rebuildable=False)
    return build_backbone(network, reference, name=name, weights=described, preprocess=preprocess)


def _drop_last_linear(network: nn.Module, image: Tensor) -> str | None:
    """Replace the classification layer, if there is one, and return its name."""
    layers = [call for call in trace(network, image).walk() if any(True for _ in call.module.parameters(recurse=False))]
    if not layers:
        raise BackboneError(f"{type(network).__name__} has no layer with parameters that runs.")
    last = layers[-1]
    if not isinstance(last.module, nn.Linear) or last.module is network:
        return None
    received: list[Tensor] = []
    tap = last.module.register_forward_pre_hook(lambda _, args: received.append(args[0]))
    with torch.no_grad():
        network(image)
        tap.remove()
        network.set_submodule(last.name, nn.Identity())
        features = network(image)
        # Were a softmax or a pooling run behind the layer, it would now run on the features.
        if not isinstance(features, Tensor) or not torch.equal(features, received[-1]):
            raise BackboneError(
                f"{type(network).__name__} changes what its last layer {last.name!r} returns (a softmax, or a mean?). "
                "Pass a module that ends in that layer, or in features."
            )
    return last.name
