"""What a fitted head learned, as arrays and numbers."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from bottleneck.errors import InvalidInputError, ModelFileError
from bottleneck.heads import LogisticHead, RbfMachine, SVMHead
from bottleneck.heads.normalize import NORMALIZATIONS
from bottleneck.heads.svm import KERNELS
from bottleneck.persistence.parsing import (
    parse_count,
    parse_labels,
    parse_number,
    parse_one_of,
    parse_tree,
    plain,
)

HEADS: dict[str, type[LogisticHead] | type[SVMHead]] = {"LogisticHead": LogisticHead, "SVMHead": SVMHead}

LEARNED_ARRAYS = ("coef_", "intercept_", "Cs_", "scores_")
LEARNED_NUMBERS = ("C_", "n_iter_", "accuracy_cv_", "accuracy_se_", "log_loss_cv_", "slope_")
"""A head from fine-tuning has only some of them; out-of-fold probabilities stay with the training data."""

MAY_BE_MISSING = ("Cs_", "scores_")

MACHINE = "machine_."
"""Before the names of the arrays of an RBF kernel."""


def describe_head(head: Any) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """Return the description and the arrays of a fitted head.

    Raises
    ------
    InvalidInputError
        The head is not one of ours, or was fitted to several labels a row.
    """
    kind = type(head).__name__
    if HEADS.get(kind) is not type(head) or getattr(head, "multilabel_", False):
        raise InvalidInputError(
            f"Only classifiers with a LogisticHead or an SVMHead for one class an image can be saved without pickle. "
            f"Got {head!r}. "
            "joblib.dump saves any; load such a file only if you trust whoever wrote it."
        )
    numbers = {name: plain(getattr(head, name)) for name in LEARNED_NUMBERS if hasattr(head, name)}
    arrays = {name: np.ascontiguousarray(getattr(head, name)) for name in LEARNED_ARRAYS if hasattr(head, name)}
    if hasattr(head, "machine_"):
        learned = head.machine_.as_arrays()
        arrays |= {MACHINE + name: np.ascontiguousarray(array).reshape(array.shape) for name, array in learned.items()}
    learned = numbers | {"n_features_in_": int(head.n_features_in_), "normalize_": head.normalize_}
    return {"kind": kind, "params": _json_params(head), "learned": learned, "classes": describe_labels(head)}, arrays


def rebuild_head(described: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> LogisticHead | SVMHead:
    """Return the fitted head of a description and its arrays.

    Raises
    ------
    ModelFileError
        They do not fit together.
    """
    kind = parse_one_of(described["kind"], tuple(HEADS), "kind")
    head = HEADS[kind](**parse_tree(described["params"], "params"))
    head.classes_ = parse_labels(parse_tree(described["classes"], "classes"))
    learned = parse_tree(described["learned"], "learned")
    for name in LEARNED_NUMBERS:
        if name in learned:
            setattr(head, name, parse_number(learned[name], name))
    head.n_features_in_ = parse_count(learned["n_features_in_"], "n_features_in_")
    head.normalize_ = parse_one_of(learned["normalize_"], NORMALIZATIONS, "normalize_")
    _check_arrays(arrays)
    for name in LEARNED_ARRAYS:
        if name in arrays:
            setattr(head, name, arrays[name])
    if isinstance(head, SVMHead) and parse_one_of(head.kernel, KERNELS, "kernel") == "rbf":
        head.machine_ = _rebuild_machine(head, arrays)
    else:
        _check_coefficients(head)
    return head


def _check_arrays(arrays: dict[str, NDArray[Any]]) -> None:
    """Refuse what no head learns: other numbers than float64, or, of what decisions are made of, NaN and infinity."""
    for name, array in arrays.items():
        counts = name == MACHINE + "n_support"
        wanted = np.dtype(np.int64 if counts else np.float64)
        if array.dtype != wanted or (counts and (array < 1).any()):
            raise ModelFileError(f"The array {name!r} of the saved head must be {wanted}. Got {array.dtype}.")
        if name not in MAY_BE_MISSING and not np.isfinite(array).all():
            raise ModelFileError(f"The array {name!r} of the saved head has values that are not finite.")


def _rebuild_machine(head: SVMHead, arrays: dict[str, NDArray[Any]]) -> RbfMachine:
    learned = {name.removeprefix(MACHINE): array for name, array in arrays.items() if name.startswith(MACHINE)}
    try:
        machine = RbfMachine.from_arrays(learned, kind=head.normalize_)
    except InvalidInputError as exc:
        raise ModelFileError(f"The saved head is damaged. {exc}") from exc
    if machine.support_vectors.shape[1] != head.n_features_in_ or len(machine.n_support) != len(head.classes_):
        raise ModelFileError(
            f"The saved head has support vectors {machine.support_vectors.shape} for {len(head.classes_)} classes."
        )
    return machine


def _check_coefficients(head: LogisticHead | SVMHead) -> None:
    n_rows = 1 if len(head.classes_) == 2 else len(head.classes_)
    if head.coef_.shape != (n_rows, head.n_features_in_) or head.intercept_.shape != (n_rows,):
        raise ModelFileError(f"The saved head has coefficients {head.coef_.shape} for {len(head.classes_)} classes.")


def describe_labels(head: Any) -> dict[str, Any]:
    """Return the classes as JSON, with the dtype that makes them what they were.

    Raises
    ------
    InvalidInputError
        Classes are objects that JSON cannot hold.
    """
    values = head.classes_.tolist()
    if not all(isinstance(value, str | int | float | bool) for value in values):
        raise InvalidInputError(f"Classes must be texts or numbers to be saved. Got {values[:5]!r}.")
    return {"dtype": head.classes_.dtype.str if head.classes_.dtype != object else "object", "values": values}


def _json_params(head: Any) -> dict[str, Any]:
    """Return the parameters that JSON can hold; the others (a splitter, a RandomState) do not matter once fitted."""
    given = head.get_params(deep=False)
    return {name: value for name, value in given.items() if isinstance(value, str | int | float | bool | None)}
