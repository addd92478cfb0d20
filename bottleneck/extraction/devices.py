"""Which device computes, and in which arithmetic."""

from typing import Literal

import torch

from bottleneck.errors import wrong_parameter

Precision = Literal["float32", "bfloat16"]

MIN_COSINE = 0.9999
"""A faster arithmetic is used only while every checked row keeps at least this cosine with its float32 features."""


def resolve_device(device: str) -> torch.device:
    """Return the device that a ``device`` parameter names; "auto" is the first accelerator, else the processor.

    Raises
    ------
    InvalidInputError
        The device does not exist, here or at all.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        resolved = torch.device(device)
        torch.empty(1, device=resolved)
    except (RuntimeError, AssertionError, NotImplementedError) as exc:
        hint = str(exc).splitlines()[0]
        raise wrong_parameter(
            "feature extraction", "device", "'auto' or a device that torch can use", device, hint
        ) from exc
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
