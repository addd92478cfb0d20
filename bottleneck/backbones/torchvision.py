"""Backbones from torchvision: every classification model by its name."""

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from bottleneck.backbones.base import RANDOM, Backbone, BackboneReference, build_backbone
from bottleneck.backbones.preprocess import Preprocess, parse_preprocess
from bottleneck.backbones.weights import WeightsFile, as_weights_path, fetch, fixed_seed, load_tensors, read_weights
from bottleneck.errors import BackboneError, WeightsError, did_you_mean
from bottleneck.torchvision_door import torchvision

AUXILIARY = ("AuxLogits", "aux1", "aux2")
"""Classifiers half-way through Inception and GoogLeNet, which only their training used."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ChosenWeights:
    """What the argument ``weights`` stands for, in plain words, with its file and its preprocessing."""

    described: str
    file: WeightsFile | None
    preprocess: Preprocess


def classification_models() -> list[str]:
    """Return the names of torchvision's classification models."""
    models = torchvision().models
    return list(models.list_models(module=models))


def load_torchvision(name: str, weights: str | Path | None, *, preprocess: Preprocess | None) -> Backbone:
    """Build a torchvision model without its classification layer.

    Raises
    ------
    BackboneError
        A size that the architecture cannot take.
    WeightsError
        Weights that do not exist, cannot be downloaded or do not fit.
    """
    chosen = _choose_weights(name, weights)
    preprocess = preprocess or chosen.preprocess
    network = build_classifier(name, preprocess)
    last = drop_last_layer(network)
    if chosen.file is not None:
        load_tensors(network, _with_new_names(chosen.file), ignored=(last, *AUXILIARY))
    reference = BackboneReference(backbone=name, weights=chosen.described if chosen.file else None, rebuildable=True)
    return build_backbone(network, reference, name=name, weights=chosen.described, preprocess=preprocess)


def build_classifier(name: str, preprocess: Preprocess) -> nn.Module:
    """Build the whole model with random weights, the same ones every time."""
    try:
        with fixed_seed():
            network: nn.Module = torchvision().models.get_model(name, weights=None, **_options(name, preprocess))
    except (AssertionError, ValueError) as exc:
        raise BackboneError(f"{name} cannot be built for images of {preprocess.crop} pixels: {exc}") from exc
    return network


def drop_last_layer(network: nn.Module) -> str:
    """Replace the classification layer, the last one that torchvision's models define, and return its name."""
    layers: list[str] = [name for name, module in network.named_modules() if isinstance(module, nn.Linear | nn.Conv2d)]
    last = layers[-1]
    if isinstance(network.get_submodule(last), nn.Linear):
        network.set_submodule(last, nn.Identity())
    else:
        # SqueezeNet classifies every position and then averages: without this, its features are averaged.
        dropout, _, _, pool = network.get_submodule("classifier").children()
        network.set_submodule("classifier", nn.Sequential(dropout, pool))
    return last


def published_preprocess(name: str, member: str) -> Preprocess:
    """Translate the transforms that torchvision publishes with weights."""
    transforms = torchvision().models.get_model_weights(name)[member].transforms()
    (resize,), (crop,) = transforms.resize_size, transforms.crop_size
    return Preprocess(
        resize=resize,
        crop=(crop, crop),
        mean=tuple(transforms.mean),
        std=tuple(transforms.std),
        interpolation=transforms.interpolation.value,
    )


def _options(name: str, preprocess: Preprocess) -> dict[str, Any]:
    match name:
        case "googlenet" | "inception_v3":
            # Their published weights expect 0.5 as mean and std; this converts pixels normalised as for ImageNet.
            imagenet = preprocess.mean == published_preprocess(name, "DEFAULT").mean
            return {"transform_input": imagenet, "aux_logits": False, "init_weights": True}
        case "maxvit_t":
            return {"input_size": preprocess.crop}
        case _ if name.startswith("vit_"):
            return {"image_size": preprocess.crop[0]}
    return {}


def _choose_weights(name: str, weights: str | Path | None) -> ChosenWeights:
    members = torchvision().models.get_model_weights(name).__members__
    if weights is None:
        return ChosenWeights(described=RANDOM, file=None, preprocess=published_preprocess(name, "DEFAULT"))
    if path := as_weights_path(weights):
        file = read_weights(path)
        base = published_preprocess(name, "DEFAULT")
        return ChosenWeights(described=str(file.path), file=file, preprocess=parse_preprocess(file.metadata, base=base))
    member = members.get("DEFAULT" if weights == "default" else str(weights))
    if member is None:
        raise WeightsError(
            f"The 'weights' parameter of {name} must be 'default', one of "
            f"{sorted({published.name for published in members.values()})}, a path"
            f" ending in .safetensors or .pth, or None. Got {weights!r} instead. {did_you_mean(str(weights), members)}"
        )
    file = read_weights(fetch(member.url, what=f"{member.name} of {name}"))
    return ChosenWeights(described=member.name, file=file, preprocess=published_preprocess(name, member.name))


def _with_new_names(file: WeightsFile) -> WeightsFile:
    """Rename what DenseNet's published files call ``norm.1`` and torch has long called ``norm1``."""
    renamed = {
        re.sub(r"(denselayer\d+\.(?:norm|relu|conv))\.([12])\.", r"\1\2.", name): tensor
        for name, tensor in file.tensors.items()
    }
    return replace(file, tensors=renamed)
