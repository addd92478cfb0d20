"""Backbones from timm, by the name ``timm:NAME`` (an optional package)."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

from bottleneck.backbones.base import RANDOM, Backbone, BackboneReference, build_backbone
from bottleneck.backbones.preprocess import Preprocess, parse_preprocess
from bottleneck.backbones.structure import LayerGroup, has_layer_norm
from bottleneck.backbones.weights import as_weights_path, fixed_seed, load_tensors, read_weights
from bottleneck.errors import BackboneError, WeightsError, did_you_mean
from bottleneck.optional import require
from bottleneck.torchvision_door import torchvision

PREFIX = "timm:"

STEM_AND_NECK = 2
"""Groups beside the stages that timm may name in a network which is cut into stages."""


def load_timm(name: str, weights: str | Path | None, *, preprocess: Preprocess | None) -> Backbone:
    """Build a timm model with ``num_classes=0``; ``name`` may carry timm's weights tag, "resnet50.a1_in1k".

    Raises
    ------
    BackboneError
        An unknown name or tag, or preprocessing that cannot be done here.
    WeightsError
        Weights that do not exist, cannot be downloaded or do not fit.
    MissingDependencyError
        timm is not installed.
    """
    torchvision()  # timm imports it
    timm = require("timm", extra="timm")
    path = as_weights_path(weights)
    if path is None and weights not in ("default", None):
        raise WeightsError(
            f"The 'weights' parameter of a timm backbone must be 'default', a path ending in .safetensors or .pth, or "
            f"None. Got {weights!r} instead. A tag of published weights is part of the name: 'timm:resnet50.a1_in1k'."
        )
    if not timm.is_model(name):
        known = [PREFIX + model for model in timm.list_models()]
        raise BackboneError(f"timm has no model {name!r}. {did_you_mean(PREFIX + name, known)}".rstrip())
    network = _create(timm, name, pretrained=weights == "default")
    file = read_weights(path) if path else None
    if file is not None:
        load_tensors(network, file, ignored=_classifiers(network))
    if preprocess is None:
        preprocess = parse_preprocess(file.metadata if file else {}, base=published_preprocess(timm, network))
    described, spec = RANDOM, None
    if file is not None:
        described = spec = str(file.path)
    elif weights is not None:
        described, spec = network.pretrained_cfg["tag"] or "default", "default"
        # timm may change which weights are the default ones: the tag says which they were.
        name = ".".join(filter(None, (network.pretrained_cfg["architecture"], network.pretrained_cfg["tag"])))
    reference = BackboneReference(backbone=PREFIX + name, weights=spec, rebuildable=True)
    backbone = build_backbone(network, reference, name=PREFIX + name, weights=described, preprocess=preprocess)
    return replace(backbone, layer_groups=_groups_of_author(timm, backbone) or backbone.layer_groups)


def _groups_of_author(timm: Any, backbone: Backbone) -> tuple[LayerGroup, ...] | None:
    """Return the layer groups that the author of a network names (its ``group_matcher``), from input to output.

    Networks with LayerNorm have one for each block, as in timm's layer decay, the others one for each stage. None
    where these are far more than the feature map has sizes (MobileNets, Inception): the learning rate falls by 2.6
    from stage to stage, and with twice the groups the first layers would hardly learn.
    """
    network: Any = backbone.network
    per_block = has_layer_norm(network)
    if not hasattr(network, "group_matcher"):
        return None
    numbered = timm.models.group_parameters(network, network.group_matcher(coarse=not per_block))
    members = [list(parameters) for _, parameters in sorted(numbered.items())]
    # A lone normalisation at the end is no layer to give a rate of its own.
    if len(members) > 1 and not any(network.get_parameter(name).ndim > 1 for name in members[-1]):
        members[-2].extend(members.pop())
    if not per_block and len(members) > len(backbone.stages) + STEM_AND_NECK:
        return None
    names = ["stem", *(f"{'block' if per_block else 'stage'}{i}" for i in range(1, len(members)))]
    return tuple(
        LayerGroup(name=name, parameters=tuple(parameters)) for name, parameters in zip(names, members, strict=True)
    )


def _create(timm: Any, name: str, *, pretrained: bool) -> Any:
    try:
        with fixed_seed():
            return timm.create_model(name, pretrained=pretrained, num_classes=0)
    except (OSError, RuntimeError) as exc:
        if not pretrained:
            raise BackboneError(f"timm cannot build {name!r}: {exc}") from exc
        from huggingface_hub.constants import HF_HUB_CACHE

        raise WeightsError(
            f"The weights of timm's {name!r} cannot be loaded ({exc}): they are looked for in {HF_HUB_CACHE!r}. "
            "Use weights=PATH of a file that you have, weights=None (random), or backbone='embedded'."
        ) from exc


def _classifiers(network: Any) -> tuple[str, ...]:
    named = network.pretrained_cfg.get("classifier") or ()
    return (named,) if isinstance(named, str) else tuple(named)


def published_preprocess(timm: Any, network: Any) -> Preprocess:
    """Translate timm's evaluation transform (``timm.data.transforms_factory.transforms_imagenet_eval``)."""
    config = timm.data.resolve_model_data_config(network)
    channels, height, width = config["input_size"]
    crop_mode = config["crop_mode"]
    if channels != 3 or crop_mode not in ("center", "squash") or (crop_mode == "center" and height != width):
        raise BackboneError(
            f"The preprocessing of this timm model is not known here: input {config['input_size']}, "
            f"crop_mode {crop_mode!r}. Pass preprocess=Preprocess(...)."
        )
    scaled = math.floor(height / config["crop_pct"]), math.floor(width / config["crop_pct"])
    return Preprocess(
        resize=scaled if crop_mode == "squash" else scaled[0],
        crop=(height, width),
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
        interpolation=config["interpolation"],
    )
