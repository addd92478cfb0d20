"""Recognises what holds features and labels - NumPy arrays, torch tensors, half precision - and hands arrays on.

A head is solved wherever its features are: by NumPy, or by torch on the device that holds them. Both have most names
in common, so that the same code serves both with :func:`namespace`; here are the few things they name differently.
"""

import sys
from typing import Any

import numpy as np
import scipy.linalg
import scipy.special

BLOCK_ELEMENTS = 2**25
"""Numbers that a device works on at once: products of a few milliseconds, and 256 MiB in double precision."""


def as_array(values: Any) -> Any:
    """Return a torch tensor as an array, without a copy where it is on the CPU; anything else as it is."""
    if not is_tensor(values):
        return values
    tensor = values.detach().cpu()
    torch = sys.modules["torch"]
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()


def as_features(values: Any) -> Any:
    """Return features for scikit-learn's checks, half precision made single: they would make it double."""
    array = as_array(values)
    return array.astype(np.float32) if isinstance(array, np.ndarray) and array.dtype == np.float16 else array


def is_tensor(values: Any) -> bool:
    """Say whether something is a torch tensor."""
    # Whoever passes a tensor has imported torch; nobody else waits for it.
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(values, torch.Tensor)


def namespace(array: Any) -> Any:
    """Return the module that computes with an array: ``numpy`` or ``torch``."""
    return sys.modules["torch"] if is_tensor(array) else np


def special(array: Any) -> Any:
    """Return the module of ``expit``, ``softmax`` and ``log_softmax`` for an array."""
    return scipy.special if isinstance(array, np.ndarray) else sys.modules["torch"].special


def log_expit(array: Any) -> Any:
    """Return the logarithm of the logistic function of each number."""
    if isinstance(array, np.ndarray):
        return scipy.special.log_expit(array)
    return sys.modules["torch"].nn.functional.logsigmoid(array)


def cast(array: Any, dtype: Any) -> Any:
    """Return the array in another precision, or as it is."""
    return array.astype(dtype, copy=False) if isinstance(array, np.ndarray) else array.to(dtype)


def beside(array: Any, values: Any) -> Any:
    """Return values where ``array`` is, to compute with both."""
    if isinstance(array, np.ndarray):
        return values
    return sys.modules["torch"].as_tensor(values, device=array.device)


def turned(array: Any) -> Any:
    """Return the transpose of a matrix with its rows in contiguous memory."""
    return np.ascontiguousarray(array.T) if isinstance(array, np.ndarray) else array.T.contiguous()


def eigh(symmetric: Any) -> tuple[Any, Any]:
    """Return eigenvalues (n,), upwards, and eigenvectors (n, n) of a symmetric matrix, which is overwritten."""
    if isinstance(symmetric, np.ndarray):
        values, vectors = scipy.linalg.eigh(symmetric, driver="evd", overwrite_a=True, check_finite=False)
        return values, vectors
    values, vectors = sys.modules["torch"].linalg.eigh(symmetric)
    return values, vectors


def rows_at_once(array: Any, *, width: int, on_processor: int) -> int:
    """Return how many rows of ``width`` numbers to work on at once: few for the caches of a processor."""
    if isinstance(array, np.ndarray) or array.device.type == "cpu":
        return on_processor
    return max(on_processor, BLOCK_ELEMENTS // width)


class HostRows:
    """Rows of a tensor by their number, as arrays, brought to the processor when they are asked for."""

    def __init__(self, tensor: Any) -> None:
        self.tensor = tensor
        self.shape = tuple(tensor.shape)

    def __len__(self) -> int:
        return len(self.tensor)

    def __getitem__(self, rows: Any) -> Any:
        return as_features(self.tensor[rows if isinstance(rows, slice) else beside(self.tensor, rows)])


def on_host(features: Any) -> Any:
    """Return features as something of which arrays of rows can be taken."""
    return HostRows(features) if is_tensor(features) else features
