"""The classifier's own parameters: those that also matter to predicting, or say how it was fitted."""

from typing import Any

from bottleneck.errors import InvalidInputError
from bottleneck.estimators import TransferClassifier
from bottleneck.estimators.parse import parse_budget
from bottleneck.extraction.devices import parse_precision
from bottleneck.features import parse_on_error
from bottleneck.persistence.parsing import misfit, parse_count, parse_list, parse_text, parse_tree, plain

KEPT_PARAMS = ("strategy", "time_budget", "image_shape", "on_error", "risk", "precision")


def describe_params(classifier: TransferClassifier) -> dict[str, Any]:
    """Return the parameters that are kept, as JSON holds them."""
    return {name: plain(value) for name, value in classifier.get_params(deep=False).items() if name in KEPT_PARAMS}


def parse_params(value: object) -> dict[str, Any]:
    """Return arguments of the constructor; they are checked here, because ``fit`` will not.

    Raises
    ------
    ModelFileError
        One of them is outside its values.
    """
    tree = parse_tree(value, "params")
    kept = {name: tree[name] for name in KEPT_PARAMS if name in tree}
    try:
        parse_text(kept["strategy"], "strategy")
        parse_budget(kept["time_budget"], kept["risk"])
        parse_on_error(kept["on_error"], "TransferClassifier")
        parse_precision(kept["precision"])
    except InvalidInputError as exc:
        raise misfit("params", "those of a TransferClassifier", tree) from exc
    if kept["image_shape"] is not None:
        sides = parse_list(kept["image_shape"], "image_shape")
        kept["image_shape"] = tuple(parse_count(side, "image_shape") for side in sides)
    return kept
