"""The public functions: trace, convert, compare, write."""

import io
import json
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.utils.validation import check_is_fitted
from torch.export import Dim, ExportedProgram

import bottleneck
from bottleneck.cache.files import write_whole
from bottleneck.errors import InvalidInputError, ModelFileError, did_you_mean, wrong_parameter
from bottleneck.estimators import TransferClassifier
from bottleneck.export.check import PER_SIZE, SIDES, largest_difference
from bottleneck.export.network import ExportedClassifier
from bottleneck.optional import require

INPUT, OUTPUT = "images", "probabilities"
METADATA_FILE = "classifier.json"
"""Where the classes are in a file of ``export_torch``."""

EXAMPLE_SHAPE = (2, 37, 53, 3)
"""Of the images that are traced; all of these but the channels stay free."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ExportReport:
    """What was written, and how well it agrees with the classifier.

    Attributes
    ----------
    path : Path
    format : {"onnx", "torch"}
    n_bytes : int
    n_checked : int
        Pictures, of several sizes, that the file and the classifier were compared on.
    largest_difference : float
        Of a probability, from ``predict_proba`` in float32.
    classes : tuple
        Labels, in the order of the probabilities.
    """

    path: Path
    format: Literal["onnx", "torch"]
    n_bytes: int
    n_checked: int
    largest_difference: float
    classes: tuple[Any, ...]


def export_onnx(classifier: TransferClassifier, path: str | Path) -> ExportReport:
    """Write a fitted classifier as one ONNX file, from images to probabilities, with all preprocessing inside.

    Input ``images``: uint8 (n, height, width, 3), RGB, upright, any n and any size; a batch has one size.
    Output ``probabilities``: float32 (n, n_classes). The metadata of the file hold the class labels, in this order, as
    JSON under ``classes``. Resizing, cropping, the network, the head and its calibration are those of
    ``predict_proba`` in float32 arithmetic; a classifier fitted in bfloat16 differs from its own predictions by what
    bfloat16 rounds. Before it is written, the file is run through onnxruntime and compared, to 1e-4.

    Parameters
    ----------
    classifier : TransferClassifier
        Fitted, with a LogisticHead or an SVMHead.
    path : path
        The file to write, ending in .onnx. It appears whole or not at all, and replaces an older one.

    Returns
    -------
    ExportReport

    Raises
    ------
    InvalidInputError
        The ending, the head or the network cannot be exported, or the result is not what the classifier says.
    ModelFileError
        The file cannot be written.
    MissingDependencyError
        The extra ``onnx`` is not installed.
    NotFittedError
    """
    check_is_fitted(classifier)
    target = check_export_target(path, ending=".onnx")
    program = trace(classifier)
    # What the exporter warns about is its own business; the comparison below is what counts.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            converted = torch.onnx.export(program, input_names=[INPUT], output_names=[OUTPUT], verbose=False)
        except torch.onnx.OnnxExporterError as exc:
            raise _cannot_follow(classifier, exc) from exc
    assert converted is not None
    for node in converted.model.graph:
        node.metadata_props.clear()  # how each came about, several times its size
    converted.model.metadata_props.update(metadata_of(classifier))
    content = converted.model_proto.SerializeToString()
    session = require("onnxruntime", extra="onnx").InferenceSession(content, providers=["CPUExecutionProvider"])

    def predict(images: NDArray[np.uint8]) -> NDArray[Any]:
        probabilities: NDArray[Any] = session.run([OUTPUT], {INPUT: images})[0]
        return probabilities

    return _write(classifier, target, content, "onnx", predict)


def export_torch(classifier: TransferClassifier, path: str | Path) -> ExportReport:
    """Write a fitted classifier as one file of ``torch.export``, from images to probabilities.

    ``torch.export.load(path).module()`` takes and gives what the file of :func:`export_onnx` does, needs torch but not
    this library, and its ``extra_files`` have the class labels in ``classifier.json``. Nothing but torch is needed to
    write it.

    Parameters
    ----------
    classifier, path
        As for ``export_onnx``; the file ends in .pt2.

    Returns
    -------
    ExportReport

    Raises
    ------
    InvalidInputError, ModelFileError, NotFittedError
        As for ``export_onnx``.
    """
    check_is_fitted(classifier)
    target = check_export_target(path, ending=".pt2")
    written = io.BytesIO()
    torch.export.save(trace(classifier), written, extra_files={METADATA_FILE: json.dumps(metadata_of(classifier))})
    written.seek(0)
    module = torch.export.load(written).module()

    def predict(images: NDArray[np.uint8]) -> NDArray[Any]:
        with torch.inference_mode():
            probabilities: NDArray[Any] = module(torch.from_numpy(images)).numpy()
        return probabilities

    return _write(classifier, target, written.getvalue(), "torch", predict)


EXPORTS: dict[str, Callable[[TransferClassifier, str | Path], ExportReport]] = {
    ".onnx": export_onnx,
    ".pt2": export_torch,
}


def export_model(classifier: TransferClassifier, path: str | Path) -> ExportReport:
    """Write a fitted classifier as the kind of file that the ending of ``path`` names: .onnx or .pt2."""
    return EXPORTS[check_export_target(path).suffix](classifier, path)


def check_export_target(path: str | Path, *, ending: str | None = None) -> Path:
    """Return the file to write, before anything long is begun.

    Raises
    ------
    InvalidInputError
        Another ending than ``ending`` (None: than there are exports for), or a file that cannot be there.
    MissingDependencyError
        What this kind of file needs is not installed.
    """
    target = Path(path).expanduser()
    endings = [ending] if ending else list(EXPORTS)
    if target.suffix not in endings:
        allowed = f"a file ending in {' or '.join(endings)}"
        raise wrong_parameter("the export", "path", allowed, str(path), did_you_mean(target.suffix, endings))
    if target.is_dir():
        raise wrong_parameter("the export", "path", "a file", str(path), "That is a folder.")
    if not target.parent.is_dir():
        hint = f"Create {str(target.parent)!r} first."
        raise wrong_parameter("the export", "path", "a file in an existing folder", str(path), hint)
    if target.suffix == ".onnx":
        for package in ("onnx", "onnxscript", "onnxruntime"):
            require(package, extra="onnx")
    return target


def trace(classifier: TransferClassifier) -> ExportedProgram:
    """Return the classifier as a graph in which number, height and width of the images are free.

    Raises
    ------
    InvalidInputError
        The head cannot be exported, or torch cannot follow the network.
    """
    network = ExportedClassifier(classifier).eval()
    free = {axis: Dim(name, min=1) for axis, name in enumerate(("n", "height", "width"))}
    example = torch.zeros(EXAMPLE_SHAPE, dtype=torch.uint8)
    try:
        program = torch.export.export(network, (example,), dynamic_shapes=(free,))
    except Exception as exc:  # runs the user's forward, which may raise anything
        raise _cannot_follow(classifier, exc) from exc
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # names folders of this machine
    return program


def metadata_of(classifier: TransferClassifier) -> dict[str, str]:
    """Return what a file says of itself.

    Raises
    ------
    InvalidInputError
        Classes are objects that JSON cannot hold.
    """
    classes = classifier.classes_.tolist()
    if not all(isinstance(label, str | int | float | bool) for label in classes):
        raise InvalidInputError(f"Classes must be texts or numbers to be exported. Got {classes[:5]!r}.")
    backbone = classifier.backbone_
    return {
        "classes": json.dumps(classes, ensure_ascii=False),
        "input": "uint8 (n, height, width, 3), RGB, upright",
        "backbone": backbone.name,
        "weights": backbone.weights,
        "weights_digest": backbone.weights_digest,
        "accuracy_cv": repr(float(classifier.accuracy_cv_)),
        "library": f"bottleneck-features {bottleneck.__version__}",
    }


def _write(
    classifier: TransferClassifier,
    target: Path,
    content: bytes,
    kind: Literal["onnx", "torch"],
    predict: Callable[[NDArray[np.uint8]], NDArray[Any]],
) -> ExportReport:
    difference = largest_difference(classifier, predict)
    try:
        write_whole(target, content)
    except OSError as exc:
        raise ModelFileError(f"{target} cannot be written: {exc.strerror or exc}.") from exc
    return ExportReport(
        path=target,
        format=kind,
        n_bytes=len(content),
        n_checked=PER_SIZE * len(SIDES),
        largest_difference=difference,
        classes=tuple(classifier.classes_.tolist()),
    )


def _cannot_follow(classifier: TransferClassifier, exc: Exception) -> InvalidInputError:
    said = str(exc).strip().splitlines()
    return InvalidInputError(
        f"The network {classifier.backbone_.name} cannot be exported, because torch cannot follow it: "
        f"{said[0] if said else type(exc).__name__}"
    )
