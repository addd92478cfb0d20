"""Labels as one array, none of them missing, of at least two classes."""

import numpy as np
import torch
from numpy.typing import NDArray

from bottleneck.errors import InvalidInputError, listed


def as_labels(y: object, *, min_classes: int = 2) -> NDArray[np.generic]:
    """Return labels as an array (n,): integers, floats, booleans or text, as they are.

    Raises
    ------
    InvalidInputError
        There is not one label for each image, labels are missing (their rows are named), text and numbers are mixed,
        or there are fewer classes than ``min_classes``.
    """
    labels = _as_array(y)
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1 or any(_has_parts(label) for label in _objects(labels)):
        raise InvalidInputError(
            f"y must hold one label for each image. Got labels of shape {labels.shape}"
            f"{' with several values in one label' if labels.ndim == 1 else ''}. "
            "One-hot labels become classes with y.argmax(axis=1)."
        )
    missing = np.flatnonzero(_missing(labels))
    if missing.size:
        rows = [f"row {row}: {labels[row]}" for row in missing]
        raise InvalidInputError(f"{missing.size} of {len(labels)} labels are missing:\n{listed(rows)}")
    labels = _in_one_type(labels)
    _check_classes(labels, min_classes)
    return labels


def _as_array(y: object) -> NDArray[np.generic]:
    """Return any array-like; lists become objects first, because numpy would turn None and NaN among text into text."""
    if isinstance(y, torch.Tensor):
        y = y.detach().cpu().numpy()
    elif hasattr(y, "to_numpy"):  # pandas and its relatives
        y = y.to_numpy()
    if isinstance(y, np.ndarray):
        return y
    if isinstance(y, (str, bytes, dict)) or not hasattr(y, "__iter__"):
        raise InvalidInputError(f"y must be a list or an array with one label for each image. Got {y!r} instead.")
    return np.array([label.tolist() if isinstance(label, torch.Tensor) else label for label in y], dtype=object)


def _objects(labels: NDArray[np.generic]) -> NDArray[np.generic]:
    """Return the labels when they are Python objects of any type, else nothing."""
    return labels if labels.dtype == object else labels[:0]


def _has_parts(label: object) -> bool:
    return hasattr(label, "__len__") and not isinstance(label, (str, bytes))


def _missing(labels: NDArray[np.generic]) -> NDArray[np.bool_]:
    if labels.dtype.kind == "f":
        return np.isnan(labels.astype(np.float64))
    missing = np.zeros(len(labels), dtype=bool)
    for row, label in enumerate(_objects(labels)):
        # pandas.NA answers no comparison; NaN and NaT differ from themselves.
        missing[row] = label is None or type(label).__name__ == "NAType" or bool(label != label)
    return missing


def _in_one_type(labels: NDArray[np.generic]) -> NDArray[np.generic]:
    """Return Python objects as an array of the type that all of them have."""
    if labels.dtype != object:
        return labels
    is_text = {isinstance(label, str) for label in labels}
    if len(is_text) == 2:
        kinds = sorted({type(label).__name__ for label in labels})
        raise InvalidInputError(f"y mixes text with other labels ({', '.join(kinds)}). Use one type for all labels.")
    labels = np.array(labels.tolist())
    if labels.dtype == object:
        raise InvalidInputError(f"Labels must be text or numbers. Got {labels[0]!r} in y.")
    return labels


def _check_classes(labels: NDArray[np.generic], min_classes: int) -> None:
    classes = np.unique(labels)
    if len(classes) == 1 < min_classes:
        raise InvalidInputError(f"All labels are {classes[0].item()!r}. A classifier needs at least two classes.")
