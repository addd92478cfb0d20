"""What stands in ``model.json``, value by value: of the right type and size, or one clear error.

A checksum says that a file is what somebody wrote, not that it was this library. Nothing here is looked up, imported
or allocated by what a file says before that has been checked.
"""

from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from bottleneck.backbones import Backbone, BackboneReference, Preprocess
from bottleneck.errors import ImageFailure, ModelFileError
from bottleneck.finetune import EpochRecord

MOST_PIXELS = 8192**2
"""Of the images that a network takes: four hundred times the largest in use."""

MOST_GREY = 1e6

MOST_LABEL_BYTES = 64 * 1024**2
LABEL_KINDS = "UiufbO"

Name = TypeVar("Name", bound=str)


def misfit(name: str, allowed: str, value: object) -> ModelFileError:
    """Return the error for a value that cannot stand there."""
    return ModelFileError(f"{name!r} of model.json must be {allowed}. Got {value!r:.80} instead.")


def parse_tree(value: object, name: str) -> dict[str, Any]:
    """Return a JSON object."""
    if not isinstance(value, dict):
        raise misfit(name, "an object", value)
    return value


def parse_list(value: object, name: str) -> list[Any]:
    """Return a JSON array."""
    if not isinstance(value, list):
        raise misfit(name, "an array", value)
    return value


def parse_text(value: object, name: str) -> str:
    """Return a text."""
    if not isinstance(value, str):
        raise misfit(name, "a text", value)
    return value


def parse_one_of(value: object, allowed: tuple[Name, ...], name: str) -> Name:
    """Return one of a few texts."""
    for known in allowed:
        if value == known:
            return known
    raise misfit(name, f"one of {list(allowed)}", value)


def parse_count(value: object, name: str) -> int:
    """Return a whole number of at least 0 that an array may be long."""
    if type(value) is not int or not 0 <= value < 2**63:
        raise misfit(name, "a whole number of at least 0", value)
    return value


def plain(value: Any) -> Any:
    """Return a parameter or a number as JSON can hold it: NaN, which JSON does not know, as a text."""
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    native = value.item() if isinstance(value, np.generic) else value
    return "nan" if isinstance(native, float) and native != native else native


def parse_number(value: object, name: str) -> float | int:
    """Return what ``plain`` made of a number."""
    if value == "nan":
        return float("nan")
    if type(value) not in (int, float) or not abs(value) < 1e300:  # type: ignore[arg-type]
        raise misfit(name, "a number", value)
    return value  # type: ignore[return-value]


def parse_labels(described: dict[str, Any]) -> NDArray[Any]:
    """Return the classes (n_classes,) with the dtype that they had."""
    values, written = parse_list(described["values"], "classes"), parse_text(described["dtype"], "dtype")
    if len(values) < 2 or not all(isinstance(value, str | int | float) for value in values):
        raise misfit("classes", "two texts or numbers, or more", values)
    dtype = np.dtype(written)  # TypeError for what is none
    if dtype.kind not in LABEL_KINDS or dtype.itemsize * len(values) > MOST_LABEL_BYTES:
        raise misfit("dtype", "that of texts or numbers", written)
    return np.array(values, dtype=dtype)


def parse_preprocess(described: dict[str, Any]) -> Preprocess:
    """Return how images are prepared, with sides and numbers that a network can be run on."""
    preprocess = Preprocess(**parse_tree(described, "preprocess"))
    numbers = [*preprocess.mean, *(1 / std for std in preprocess.std), *preprocess.std]
    if not all(abs(number) < MOST_GREY for number in numbers):
        raise misfit("preprocess", "with a mean and a std of pixels from 0 to 1", described)
    resize = preprocess.resize if isinstance(preprocess.resize, tuple) else (preprocess.resize or 1,) * 2
    if max(resize[0] * resize[1], preprocess.crop[0] * preprocess.crop[1]) > MOST_PIXELS:
        raise misfit("preprocess", f"about images of up to {MOST_PIXELS} pixels", described)
    return preprocess


def parse_reference(described: dict[str, Any]) -> BackboneReference:
    """Return how the backbone is built again."""
    tree = parse_tree(described, "reference")
    if type(tree["rebuildable"]) is not bool:
        raise misfit("rebuildable", "true or false", tree["rebuildable"])
    if tree["weights"] is not None:
        parse_text(tree["weights"], "weights")
    parse_text(tree["backbone"], "backbone")
    return BackboneReference(**tree)


def parse_layers(value: object, backbone: Backbone, n_features: int) -> tuple[str, ...]:
    """Return the layers that the head sees, which the backbone has, as wide as the head is."""
    layers = tuple(parse_text(layer, "layers") for layer in parse_list(value, "layers"))
    widths = backbone.layer_widths
    if not layers or not set(layers) <= set(widths) or sum(widths[layer] for layer in layers) != n_features:
        raise misfit("layers", f"some of {widths}, {n_features} features in all", value)
    return layers


def parse_history(value: object) -> tuple[EpochRecord, ...]:
    """Return what each epoch did."""
    return tuple(_parse_epoch(parse_tree(record, "history")) for record in parse_list(value, "history"))


def _parse_epoch(record: dict[str, Any]) -> EpochRecord:
    rates = parse_list(record["learning_rates"], "learning_rates")
    return EpochRecord(
        stage=parse_text(record["stage"], "stage"),
        epoch=parse_count(record["epoch"], "epoch"),
        step=parse_count(record["step"], "step"),
        loss=parse_number(record["loss"], "loss"),
        accuracy=parse_number(record["accuracy"], "accuracy"),
        learning_rates=tuple(parse_number(rate, "learning_rates") for rate in rates),
    )


def parse_skipped(value: object) -> tuple[ImageFailure, ...]:
    """Return the images that ``fit`` left out."""
    return tuple(
        ImageFailure(
            row=parse_count(failure["row"], "row"),
            id=parse_text(failure["id"], "id"),
            reason=parse_text(failure["reason"], "reason"),
        )
        for failure in (parse_tree(failure, "skipped") for failure in parse_list(value, "skipped"))
    )
