"""Read a finished classifier back; nothing in its folder is ever run."""

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

from safetensors import SafetensorError
from safetensors.numpy import load as numpy_from_bytes
from safetensors.torch import load as torch_from_bytes
from torch import nn

from bottleneck.backbones import Backbone, BackboneReference, load_backbone
from bottleneck.errors import BackboneError, ModelFileError, TransferError
from bottleneck.estimators import TransferClassifier
from bottleneck.extraction import Precision
from bottleneck.persistence.format import BACKBONE, HEAD, read_checked, read_description
from bottleneck.persistence.heads import rebuild_head
from bottleneck.persistence.params import parse_params
from bottleneck.persistence.parsing import (
    parse_history,
    parse_layers,
    parse_number,
    parse_one_of,
    parse_preprocess,
    parse_reference,
    parse_skipped,
    parse_text,
    parse_tree,
)
from bottleneck.planner import Plan, StrategyName

DAMAGED = (
    KeyError, IndexError, TypeError, ValueError, AttributeError, ArithmeticError, RuntimeError, MemoryError,
    SafetensorError,
)  # fmt: skip
"""What files raise whose values are of the right kind and do not fit together, in numpy, safetensors and torch."""


def load(path: str | Path, *, backbone: nn.Module | Backbone | None = None) -> TransferClassifier:
    """Load a classifier that ``save`` wrote.

    Parameters
    ----------
    path : path
        Its folder.
    backbone : nn.Module or Backbone, optional
        The network, if the classifier was fitted on an own module, whose code is not saved; or the same backbone
        with its weights from another place than the one that is noted.

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

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from tempfile import TemporaryDirectory
    >>> from bottleneck import TransferClassifier, load, save
    >>> digits = load_digits(n_class=2)
    >>> X = (digits.images / 16).astype("float32")
    >>> with TemporaryDirectory() as folder:
    ...     clf = TransferClassifier(strategy="probe", cache_dir=f"{folder}/cache").fit(X[:40], digits.target[:40])
    ...     loaded = load(save(clf, f"{folder}/model"))
    >>> loaded.classes_
    array([0, 1])
    """
    folder = Path(path).expanduser()
    described = read_description(folder)
    try:
        classifier = _rebuild(folder, described, backbone)
    except TransferError:
        raise
    except DAMAGED as exc:
        said = f"{type(exc).__name__}: {exc}".splitlines()[0]
        raise ModelFileError(f"{folder} is damaged: {said:.200}. Save the classifier again.") from exc
    return classifier


def _rebuild(folder: Path, described: dict[str, Any], given: nn.Module | Backbone | None) -> TransferClassifier:
    head = rebuild_head(parse_tree(described["head"], "head"), numpy_from_bytes(read_checked(folder, HEAD, described)))
    backbone = _rebuild_backbone(folder, described, given)
    classifier = TransferClassifier(backbone, **parse_params(described["params"]))
    classifier.backbone_ = backbone
    classifier.head_ = head
    classifier.classes_ = head.classes_
    classifier.n_features_in_ = head.n_features_in_
    classifier.layers_ = parse_layers(described["layers"], backbone, head.n_features_in_)
    classifier.precision_ = parse_one_of(described["precision"], get_args(Precision), "precision")
    classifier.strategy_ = parse_one_of(described["strategy"], get_args(StrategyName), "strategy")
    classifier.outcome_ = parse_text(described["outcome"], "outcome")
    classifier.accuracy_cv_ = parse_number(described["accuracy_cv"], "accuracy_cv")
    classifier.plan_ = Plan.from_json(json.dumps(described["plan"]))
    classifier.history_ = parse_history(described["history"])
    classifier.skipped_ = parse_skipped(described["skipped"])
    return classifier


def _rebuild_backbone(folder: Path, described: dict[str, Any], given: nn.Module | Backbone | None) -> Backbone:
    saved = parse_tree(described["backbone"], "backbone")
    reference = parse_reference(saved["reference"])
    included = BACKBONE in described["files"]
    backbone = _open_backbone(folder, saved, reference, given, included=included)
    if included:
        tensors = torch_from_bytes(read_checked(folder, BACKBONE, described))
        weights = parse_text(saved["weights"], "weights")
        backbone = replace(_with_tensors(backbone, tensors), weights=weights, reference=reference)
    if backbone.weights_digest != saved["weights_digest"]:
        raise ModelFileError(
            f"The classifier in {folder} was fitted on {saved['name']} with weights {saved['weights']}, and the ones "
            f"found now ({backbone.weights}) are others. Restore the weights, or save with include_backbone=True."
        )
    return backbone


def _open_backbone(
    folder: Path,
    saved: dict[str, Any],
    reference: BackboneReference,
    given: nn.Module | Backbone | None,
    *,
    included: bool,
) -> Backbone:
    preprocess = parse_preprocess(saved["preprocess"])
    if given is not None:
        return load_backbone(given, preprocess=preprocess)
    if not reference.rebuildable:
        raise ModelFileError(
            f"The classifier in {folder} was fitted on an own module, {saved['name']}, and code is not saved. "
            "Pass the network: load(path, backbone=network)."
        )
    # Weights that the folder holds need no other source.
    weights = None if included else reference.weights
    try:
        return load_backbone(reference.backbone, weights, preprocess=preprocess)
    except BackboneError as exc:
        raise ModelFileError(
            f"The backbone of the classifier in {folder} cannot be loaded. {exc} If its weights are elsewhere now: "
            f"load(path, backbone=load_backbone({reference.backbone!r}, weights=PATH))."
        ) from exc


def _with_tensors(backbone: Backbone, tensors: dict[str, Any]) -> Backbone:
    network = copy.deepcopy(backbone.network)
    try:
        network.load_state_dict(tensors)
    except RuntimeError as exc:
        raise ModelFileError(f"The saved weights do not fit {backbone.name}: {str(exc).splitlines()[0]}") from exc
    return backbone.with_network(network)
