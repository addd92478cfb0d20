"""Which device a head is solved on, how features get there, and what torch is told meanwhile.

torch is imported only if a device was asked for; tensors on a device bring it along.
"""

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from bottleneck.errors import InvalidInputError, wrong_parameter
from bottleneck.heads.arrays import is_tensor
from bottleneck.heads.blocks import ArrayBlocks, BlockReader, MemoryLimit, is_blocks
from bottleneck.heads.normalize import row_blocks
from bottleneck.memory import available_memory

WITH_DOUBLES = ("cuda", "xpu")
"""Accelerators that compute in double precision, which the end of a fit needs."""

BYTES_PER_NUMBER = 4
"""What each number of the features takes once as features, and once more as scores along their axes."""


def parse_device(device: Any, X: Any, *, owner: str, only_numpy: str | None = None) -> Any:
    """Return the torch device to solve on, or None for NumPy on the processor.

    ``only_numpy`` names what was asked for if torch cannot do it.

    Raises
    ------
    InvalidInputError
        The device does not exist, here or at all, or has no double precision, or was given for what only NumPy does.
    """
    if only_numpy is not None:
        if device is not None:
            raise wrong_parameter(owner, "device", f"None for {only_numpy}", device, "NumPy solves that.")
        return None
    if device is None:
        return X.device if is_tensor(X) and X.device.type in WITH_DOUBLES else None
    import torch

    allowed = "None, 'cpu', 'cuda', 'cuda:1' or another device on which torch computes in double precision"
    if not isinstance(device, str | torch.device):
        raise wrong_parameter(owner, "device", allowed, device)
    try:
        resolved = torch.device(device)
    except RuntimeError as exc:  # a name that is none: torch lists a score of them
        raise wrong_parameter(owner, "device", allowed, device) from exc
    try:
        probe = torch.zeros(1, dtype=torch.float64, device=resolved)
        probe.item()
    except (RuntimeError, AssertionError, NotImplementedError, TypeError) as exc:
        raise wrong_parameter(owner, "device", allowed, device, str(exc).splitlines()[0]) from exc
    return probe.device


@contextmanager
def computing_on(device: Any, *, owner: str) -> Iterator[None]:
    """Compute on a device inside the context: what torch makes there, it makes on it; None changes nothing.

    Products of float32 are exact to float32, whatever the program allows elsewhere: with TensorFloat-32 L-BFGS would
    search in gradients of three digits. The setting is one for all threads, and what it was again afterwards.

    Raises
    ------
    InvalidInputError
        The memory of the device is too small.
    """
    if device is None:
        yield
        return
    import torch

    products = [getattr(torch.backends, library).matmul for library in ("cuda", "mkldnn")]
    before = [product.fp32_precision for product in products]
    try:
        for product in products:
            product.fp32_precision = "ieee"
        with device, torch.inference_mode():
            yield
    except torch.OutOfMemoryError as exc:
        # What the functions that failed had made would stay on the device as long as the error is looked at.
        traceback.clear_frames(exc.__traceback__)
        raise _too_large(f"{owner} ran out of memory on {device}.") from exc
    finally:
        for product, precision in zip(products, before, strict=True):
            product.fp32_precision = precision


def load_features(X: Any, device: Any, *, memory_limit: MemoryLimit, owner: str) -> Any:
    """Return features as a float32 or float64 tensor (n, d) on a device: of an array, a tensor or blocks of rows.

    A tensor that is there is not copied; of an array or blocks no more than a block is held here beside.

    Raises
    ------
    InvalidInputError
        They are no matrix, some are missing, or the device has too little memory for them.
    """
    if is_tensor(X):
        return _load_tensor(X, device, memory_limit=memory_limit, owner=owner)
    reader = BlockReader(X if is_blocks(X) else ArrayBlocks(X))
    n_samples, n_features = reader.n_samples, reader.n_features
    _check_memory(n_samples, n_features, device, copies=2, memory_limit=memory_limit, owner=owner)
    import torch

    features: Any = None
    for at, rows in reader.read():
        block = torch.tensor(rows, device=device)
        if features is None:
            features = torch.empty((n_samples, n_features), dtype=block.dtype, device=device)
        features[at] = block
    return features


def _load_tensor(X: Any, device: Any, *, memory_limit: MemoryLimit, owner: str) -> Any:
    import torch

    if X.ndim != 2 or 0 in X.shape:
        raise InvalidInputError(f"Features must be a matrix (n_samples, n_features). Got the shape {tuple(X.shape)}.")
    dtype = torch.float32 if X.dtype in (torch.float16, torch.bfloat16, torch.float32) else torch.float64
    copies = 1 if X.device == device and X.dtype == dtype else 2
    _check_memory(len(X), X.shape[1], device, copies=copies, memory_limit=memory_limit, owner=owner)
    features = X.detach().to(device, dtype)
    if not all(bool(torch.isfinite(features[block]).all()) for block in row_blocks(features)):
        raise InvalidInputError("Features must not be missing or infinite. Some are NaN or infinity.")
    return features


def _check_memory(
    n_samples: int, n_features: int, device: Any, *, copies: int, memory_limit: MemoryLimit, owner: str
) -> None:
    needed = BYTES_PER_NUMBER * copies * n_samples * n_features
    limit = _free_memory(device) if isinstance(memory_limit, str) else memory_limit
    if needed > limit:
        raise _too_large(
            f"{n_samples} rows of {n_features} features need {needed / 2**30:.2g} GiB on {device}, where {owner} may "
            f"take {limit / 2**30:.2g} GiB."
        )


def _free_memory(device: Any) -> float:
    """Return the bytes that can be had on a device; infinity where the failure to get them has to tell."""
    if device.type == "cpu":
        return available_memory()
    if device.type != "cuda":
        return float("inf")
    import torch

    unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return float(torch.cuda.mem_get_info(device)[0] + unused)


def _too_large(sentence: str) -> InvalidInputError:
    return InvalidInputError(
        f"{sentence} Free memory there, raise memory_limit if there is one, fit fewer rows or features, or pass "
        "arrays and device=None, which goes through features on disk where they do not fit in memory."
    )
