"""Recognises what holds features and labels - NumPy arrays, torch tensors, half precision - and hands arrays on."""

import sys
from typing import Any

import numpy as np


def as_array(values: Any) -> Any:
    """Return a torch tensor as an array, without a copy where it is on the CPU; anything else as it is."""
    # Whoever passes a tensor has imported torch; nobody else waits for it.
    torch = sys.modules.get("torch")
    if torch is None or not isinstance(values, torch.Tensor):
        return values
    tensor = values.detach().cpu()
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()


def as_features(values: Any) -> Any:
    """Return features for scikit-learn's checks, half precision made single: they would make it double."""
    array = as_array(values)
    return array.astype(np.float32) if isinstance(array, np.ndarray) and array.dtype == np.float16 else array
