"""What a fitted head learned, as arrays and numbers."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from bottleneck.errors import InvalidInputError, ModelFileError
from bottleneck.heads import LogisticHead, RbfMachine, SVMHead

HEADS: dict[str, type[LogisticHead] | type[SVMHead]] = {"LogisticHead": LogisticHead, "SVMHead": SVMHead}

LEARNED_ARRAYS = ("coef_", "intercept_", "Cs_", "scores_")
LEARNED_NUMBERS = (
    "C_", "n_iter_", "n_features_in_", "accuracy_cv_", "accuracy_se_", "log_loss_cv_", "normalize_", "slope_"
)  # fmt: skip
"""A head from fine-tuning has only some of them; out-of-fold probabilities stay with the training data."""

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
    return {"kind": kind, "params": _json_params(head), "learned": numbers, "classes": describe_labels(head)}, arrays


def rebuild_head(described: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> LogisticHead | SVMHead:
    """Return the fitted head of a description and its arrays.

    Raises
    ------
    ModelFileError
        They do not fit together.
    """
    if described["kind"] not in HEADS:
        raise ModelFileError(f"The saved head is a {described['kind']!r}, which this version does not know.")
    head = HEADS[described["kind"]](**described["params"])
    head.classes_ = np.array(described["classes"]["values"], dtype=described["classes"]["dtype"])
    for name in LEARNED_NUMBERS:
        if name in described["learned"]:
            setattr(head, name, number(described["learned"][name]))
    for name in LEARNED_ARRAYS:
        if name in arrays:
            setattr(head, name, arrays[name])
    if isinstance(head, SVMHead) and head.kernel == "rbf":
        head.machine_ = _rebuild_machine(head, arrays)
    else:
        _check_coefficients(head)
    return head


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


def plain(value: Any) -> Any:
    """Return a parameter or a number as JSON can hold it: NaN, which JSON does not know, as a text."""
    if isinstance(value, tuple):
        return [plain(item) for item in value]
    native = value.item() if isinstance(value, np.generic) else value
    return "nan" if isinstance(native, float) and native != native else native


def number(value: Any) -> Any:
    """Return what ``plain`` made JSON of."""
    return float("nan") if value == "nan" else value
