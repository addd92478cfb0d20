"""Read a finished classifier back; nothing in its folder is ever run."""

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.numpy import load as numpy_from_bytes
from safetensors.torch import load as torch_from_bytes
from torch import nn

from bottleneck.backbones import Backbone, BackboneReference, Preprocess, load_backbone
from bottleneck.errors import BackboneError, ImageFailure, ModelFileError, TransferError
from bottleneck.estimators import TransferClassifier
from bottleneck.finetune import EpochRecord
from bottleneck.persistence.format import BACKBONE, HEAD, read_checked, read_description
from bottleneck.persistence.heads import number, rebuild_head
from bottleneck.persistence.writing import params_of
from bottleneck.planner import Plan


def load(path: str | Path, *, backbone: nn.Module | Backbone | None = None) -> TransferClassifier:
    """Load a classifier that ``save`` wrote.

    Parameters
    ----------
    path : path
        Its folder.
    backbone : nn.Module or Backbone, optional
        The network, if the classifier was fitted on an own module: code is not saved.

    Returns
    -------
    TransferClassifier
        Fitted; it predicts what the saved one did. Of its parameters, those that only matter to a new ``fit`` (the
        head, fine-tuning settings) are the defaults again.

    Raises
    ------
    ModelFileError
        The folder is no saved classifier, is damaged or from a newer version, or the backbone is not the one it was
        fitted on.
    BackboneError
        The backbone cannot be loaded from where it came.
    """
    folder = Path(path).expanduser()
    described = read_description(folder)
    try:
        classifier = _rebuild(folder, described, backbone)
    except TransferError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, SafetensorError) as exc:
        raise ModelFileError(f"{folder} is damaged: {type(exc).__name__}: {exc}. Save the classifier again.") from exc
    return classifier


def _rebuild(folder: Path, described: dict[str, Any], given: nn.Module | Backbone | None) -> TransferClassifier:
    arrays = numpy_from_bytes(read_checked(folder, HEAD, described))
    backbone = _rebuild_backbone(folder, described, given)
    classifier = TransferClassifier(backbone, **params_of(described))
    classifier.backbone_ = backbone
    classifier.head_ = rebuild_head(described["head"], arrays)
    classifier.classes_ = classifier.head_.classes_
    classifier.n_features_in_ = classifier.head_.n_features_in_
    classifier.layers_ = tuple(described["layers"])
    classifier.precision_ = described["precision"]
    classifier.strategy_ = described["strategy"]
    classifier.outcome_ = described["outcome"]
    classifier.accuracy_cv_ = number(described["accuracy_cv"])
    classifier.plan_ = Plan.from_json(json.dumps(described["plan"]))
    history = [{**record, "learning_rates": tuple(record["learning_rates"])} for record in described["history"]]
    classifier.history_ = tuple(EpochRecord(**record) for record in history)
    classifier.skipped_ = tuple(ImageFailure(**failure) for failure in described["skipped"])
    return classifier


def _rebuild_backbone(folder: Path, described: dict[str, Any], given: nn.Module | Backbone | None) -> Backbone:
    saved = described["backbone"]
    included = BACKBONE in described["files"]
    backbone = _open_backbone(folder, saved, given, included=included)
    if included:
        tensors = torch_from_bytes(read_checked(folder, BACKBONE, described))
        reference = BackboneReference(**saved["reference"])
        backbone = replace(_with_tensors(backbone, tensors), weights=saved["weights"], reference=reference)
    if backbone.weights_digest != saved["weights_digest"]:
        raise ModelFileError(
            f"The classifier in {folder} was fitted on {saved['name']} with weights {saved['weights']}, and the ones "
            f"found now ({backbone.weights}) are others. Restore the weights, or save with include_backbone=True."
        )
    return backbone


def _open_backbone(
    folder: Path, saved: dict[str, Any], given: nn.Module | Backbone | None, *, included: bool
) -> Backbone:
    preprocess = Preprocess(**{name: _tuple(value) for name, value in saved["preprocess"].items()})
    reference = saved["reference"]
    if given is not None:
        return load_backbone(given, preprocess=preprocess)
    if not reference["rebuildable"]:
        raise ModelFileError(
            f"The classifier in {folder} was fitted on an own module, {saved['name']}, and code is not saved. "
            "Pass the network: load(path, backbone=network)."
        )
    # Weights that the folder holds need no other source.
    weights = None if included else reference["weights"]
    try:
        return load_backbone(reference["backbone"], weights, preprocess=preprocess)
    except BackboneError as exc:
        raise ModelFileError(f"The backbone of the classifier in {folder} cannot be loaded. {exc}") from exc


def _with_tensors(backbone: Backbone, tensors: dict[str, Any]) -> Backbone:
    network = copy.deepcopy(backbone.network)
    try:
        network.load_state_dict(tensors)
    except RuntimeError as exc:
        raise ModelFileError(f"The saved weights do not fit {backbone.name}: {str(exc).splitlines()[0]}") from exc
    return backbone.with_network(network)


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
