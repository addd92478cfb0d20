"""Write a finished classifier as one folder, which appears whole or not at all."""

import json
import os
import secrets
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

from safetensors.numpy import save as numpy_to_bytes
from safetensors.torch import save as torch_to_bytes
from sklearn.utils.validation import check_is_fitted

import bottleneck
from bottleneck.backbones import Backbone
from bottleneck.backbones.packing import tensors_of
from bottleneck.errors import InvalidInputError, ModelFileError
from bottleneck.estimators import TransferClassifier
from bottleneck.finetune import EpochRecord
from bottleneck.persistence.format import (
    BACKBONE,
    DESCRIPTION,
    FILES,
    FORMAT,
    HEAD,
    VERSION,
    checksum,
    description_checksum,
    read_description,
)
from bottleneck.persistence.heads import describe_head
from bottleneck.persistence.params import describe_params
from bottleneck.persistence.parsing import plain


def save(classifier: TransferClassifier, path: str | Path, *, include_backbone: bool = False) -> Path:
    """Save a fitted classifier as a folder of JSON and safetensors.

    Parameters
    ----------
    classifier : TransferClassifier
        Fitted, with a LogisticHead or an SVMHead.
    path : path
        The folder to write. One that holds a saved classifier is replaced; anything else there is left alone.
    include_backbone : bool
        Write the backbone's weights too. Tuned weights are always written; otherwise the backbone is named, and
        ``load`` takes it from where it came.

    Returns
    -------
    Path

    Raises
    ------
    NotFittedError
    InvalidInputError
        The head or the classes cannot be saved, or there is something else at ``path``.
    ModelFileError
        The folder cannot be written.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from tempfile import TemporaryDirectory
    >>> from bottleneck import TransferClassifier, load, save
    >>> digits = load_digits(n_class=2)
    >>> X = (digits.images / 16).astype("float32")
    >>> with TemporaryDirectory() as folder:
    ...     clf = TransferClassifier(strategy="probe", cache_dir=f"{folder}/cache").fit(X[:40], digits.target[:40])
    ...     path = save(clf, f"{folder}/model")
    ...     bool((load(path).predict(X[40:60]) == clf.predict(X[40:60])).all())
    True
    """
    check_is_fitted(classifier)
    folder = check_target(path)
    files = _contents(classifier, include_backbone=include_backbone)
    try:
        _write_folder(folder, files)
    except OSError as exc:
        raise ModelFileError(f"The classifier cannot be saved in {folder}: {exc.strerror or exc}.") from exc
    return folder


def check_target(path: str | Path) -> Path:
    """Return the folder to save in, refusing to replace anything but a saved classifier or an empty folder.

    Raises
    ------
    InvalidInputError
        There is something else at ``path``.
    """
    folder = Path(path).expanduser().resolve()
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return folder
    others = [] if not folder.is_dir() else sorted({entry.name for entry in folder.iterdir()} - set(FILES))
    try:
        read_description(folder)
    except ModelFileError as exc:
        raise InvalidInputError(
            f"{folder} exists and is not a saved classifier. Name another folder, or remove it."
        ) from exc
    if others:
        raise InvalidInputError(
            f"{folder} is a saved classifier with other files in it ({', '.join(others)}), which would be lost. "
            "Name another folder, or move them."
        )
    return folder


def _contents(classifier: TransferClassifier, *, include_backbone: bool) -> dict[str, bytes]:
    backbone: Backbone = classifier.backbone_
    head, arrays = describe_head(classifier.head_)
    files = {HEAD: numpy_to_bytes(arrays)}
    if include_backbone or backbone.weights.endswith(", fine-tuned"):
        files[BACKBONE] = torch_to_bytes(tensors_of(backbone.network))
    description = {
        "format": FORMAT,
        "version": VERSION,
        "library": bottleneck.__version__,
        "head": head,
        "layers": list(classifier.layers_),
        "precision": classifier.precision_,
        "backbone": {
            "name": backbone.name,
            "weights": backbone.weights,
            "weights_digest": backbone.weights_digest,
            "reference": asdict(backbone.reference),
            "preprocess": asdict(backbone.preprocess),
        },
        "params": describe_params(classifier),
        "strategy": classifier.strategy_,
        "outcome": classifier.outcome_,
        "accuracy_cv": plain(classifier.accuracy_cv_),
        "plan": json.loads(classifier.plan_.to_json()),
        "history": [_as_json(record) for record in classifier.history_],
        "skipped": [asdict(failure) for failure in classifier.skipped_],
        "files": {name: checksum(content) for name, content in files.items()},
    }
    description["checksum"] = description_checksum(description)
    return {DESCRIPTION: json.dumps(description, indent=2, allow_nan=False).encode(), **files}


def _as_json(record: EpochRecord) -> dict[str, Any]:
    return {name: plain(value) for name, value in asdict(record).items()}


def _write_folder(folder: Path, files: dict[str, bytes]) -> None:
    """Write beside the target and rename, so that there is never half a classifier under its name."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = folder.with_name(f".{folder.name}-{os.getpid()}-{secrets.token_hex(4)}.partial")
    partial.mkdir()
    try:
        for name, content in files.items():
            with (partial / name).open("xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        _replace_folder(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _replace_folder(new: Path, folder: Path) -> None:
    """Put ``new`` in the place of ``folder``; a folder with content cannot be renamed over, so it steps aside."""
    if not folder.exists():
        new.rename(folder)
        return
    aside = folder.with_name(f"{new.name}.old")
    folder.rename(aside)
    try:
        new.rename(folder)
    except OSError:
        aside.rename(folder)
        raise
    shutil.rmtree(aside)
