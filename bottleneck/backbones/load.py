"""From a name, an own module or a weights file to a backbone."""

from pathlib import Path

from torch import nn

from bottleneck.backbones.base import Backbone, build_backbone
from bottleneck.backbones.custom import load_custom
from bottleneck.backbones.embedded import load_embedded
from bottleneck.backbones.preprocess import Preprocess
from bottleneck.backbones.timm import PREFIX, load_timm
from bottleneck.backbones.torchvision import classification_models, load_torchvision
from bottleneck.errors import BackboneError, WeightsError, did_you_mean
from bottleneck.torchvision_door import torchvision

EMBEDDED = "embedded"


def load_backbone(
    backbone: str | nn.Module | Backbone,
    weights: str | Path | None = "default",
    *,
    preprocess: Preprocess | None = None,
) -> Backbone:
    """Load a frozen network that turns images into features.

    Parameters
    ----------
    backbone : str, nn.Module or Backbone
        The name of any torchvision classification model ("resnet50"), "timm:NAME" for a model of the optional
        package timm, "embedded" for the small network that needs no download, or an own module, which is copied.
        The final classification layer is dropped; a module that does not end in ``nn.Linear`` is taken to end in
        features already.
    weights : str, Path or None
        "default" (published weights, downloaded once; an own module as it is), the name of published torchvision
        weights ("IMAGENET1K_V1"), the path of a safetensors file or of a ``.pth`` state_dict, or None for a random
        network (always the same one). Files must fit exactly, except for the classification layer.
    preprocess : Preprocess, optional
        In place of the preprocessing that belongs to the weights. Required for an own module unless the metadata of
        the weights file gives mean, std and crop.

    Returns
    -------
    Backbone

    Raises
    ------
    BackboneError
        An unknown name, a network that cannot be taken apart, or missing preprocessing.
    WeightsError
        Weights that cannot be found, downloaded or loaded.
    MissingDependencyError
        "timm:..." without timm.

    Examples
    --------
    >>> from bottleneck import load_backbone
    >>> backbone = load_backbone("embedded")
    >>> backbone.name, backbone.n_features
    ('embedded', 512)
    """
    match backbone:
        case Backbone():
            if weights != "default":
                raise WeightsError("A Backbone has its weights already; load it by its name to give it others.")
            return backbone if preprocess in (None, backbone.preprocess) else _with_preprocess(backbone, preprocess)
        case nn.Module():
            return load_custom(backbone, weights, preprocess=preprocess)
        case "embedded":
            return load_embedded(weights, preprocess=preprocess)
        case str() if backbone.startswith(PREFIX):
            return load_timm(backbone.removeprefix(PREFIX), weights, preprocess=preprocess)
        case str() if backbone in classification_models():
            return load_torchvision(backbone, weights, preprocess=preprocess)
    raise _unknown_backbone(backbone)


def _with_preprocess(backbone: Backbone, preprocess: Preprocess) -> Backbone:
    return build_backbone(
        backbone.network,
        backbone.reference,
        name=backbone.name,
        weights=backbone.weights,
        preprocess=preprocess,
        stage_modules=[stage.module for stage in backbone.stages],
    )


def _unknown_backbone(backbone: object) -> BackboneError:
    wanted = (
        "The backbone must be a torchvision classification model, 'timm:NAME', 'embedded' or an nn.Module. "
        f"Got {backbone!r} instead."
    )
    if not isinstance(backbone, str):
        return BackboneError(wanted)
    models = torchvision().models
    if backbone in models.list_models():
        task = models.get_model_builder(backbone).__module__.split(".")[2]
        return BackboneError(f"{wanted} That torchvision model is made for {task}, not for classification.")
    return BackboneError(f"{wanted} {did_you_mean(backbone, [*classification_models(), EMBEDDED])}".rstrip())
