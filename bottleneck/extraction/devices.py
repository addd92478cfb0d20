"""Which device computes, and in which arithmetic."""

import os
from typing import Literal

import torch

from bottleneck.errors import wrong_parameter
from bottleneck.memory import available_memory

Precision = Literal["float32", "bfloat16"]

OUT_OF_MEMORY = ("DefaultCPUAllocator", "can't allocate memory", "not enough memory", "bad_alloc")
"""What torch and the libraries under it say when the memory of the processor is short."""


def resolve_device(device: str) -> torch.device:
    """Return the device that a ``device`` parameter names; "auto" is the first accelerator, else the processor.

    Raises
    ------
    InvalidInputError
        The device does not exist, here or at all.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    allowed = "'auto', 'cpu', 'cuda', 'cuda:1' or another device that torch can use"
    try:
        resolved = torch.device(device)
    except RuntimeError as exc:  # a name that is none: torch lists a score of them
        raise wrong_parameter("feature extraction", "device", allowed, device) from exc
    try:
        torch.empty(1, device=resolved)
    except (RuntimeError, AssertionError, NotImplementedError) as exc:
        raise wrong_parameter("feature extraction", "device", allowed, device, str(exc).splitlines()[0]) from exc
    return resolved


def parse_precision(precision: str) -> Precision | None:
    """Return the arithmetic that a ``precision`` parameter insists on, or None for "auto"."""
    match precision:
        case "auto":
            return None
        case "float32" | "bfloat16":
            return precision
    raise wrong_parameter("feature extraction", "precision", "'auto', 'float32' or 'bfloat16'", precision)


def fastest_precision(device: torch.device) -> Precision:
    """Return bfloat16 where the hardware multiplies in it, float32 elsewhere."""
    if device.type == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    if device.type == "cpu":
        can = torch.cpu.get_capabilities()
        return "bfloat16" if can.get("amx_bf16") or can.get("avx512_bf16") else "float32"
    return "float32"


def in_precision(precision: Precision, device: torch.device) -> torch.autocast:
    """Return the context that computes in an arithmetic; it holds for the thread that enters it only."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bfloat16")


def usable_cores() -> int:
    """Return how many cores this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def device_memory(device: torch.device) -> int:
    """Return the bytes of a device that are free; of the processor, those that this process may still take."""
    return int(torch.cuda.mem_get_info(device)[0]) if device.type == "cuda" else available_memory()


def has_matrix_units(device: torch.device) -> bool:
    """Say whether the processor multiplies matrices of bfloat16 in hardware (AMX)."""
    return device.type == "cpu" and bool(torch.cpu.get_capabilities().get("amx_bf16"))


def is_out_of_memory(exc: RuntimeError) -> bool:
    """Say whether torch ran out of memory; on the processor it has no exception of its own for that."""
    return isinstance(exc, torch.OutOfMemoryError) or any(words in str(exc) for words in OUT_OF_MEMORY)
