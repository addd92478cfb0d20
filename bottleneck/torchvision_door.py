"""The only door to torchvision, which also opens beside a CPU-only torch.

The registry's torchvision wheel is built for CUDA. Beside a CPU-only torch its C++ operators do not load, and
``import torchvision`` then fails because it registers shape functions for ``torchvision::nms`` and
``torchvision::qnms``, which have no schema. Declaring the two schemas is enough: models, weights metadata and
``transforms.v2`` need no operator. ``torchvision.io`` and detection operators stay out of reach.
"""

from functools import cache
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch.library import Library

MISSING_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)

# The declarations live as long as this object does.
_declared: "list[Library]" = []


@cache
def torchvision() -> ModuleType:
    """Import torchvision, declaring its missing operator schemas first when its extension cannot load."""
    try:
        return import_module("torchvision")
    except RuntimeError as exc:
        if "torchvision::" not in str(exc):
            raise
        _forget_half_imported()
        _declare_missing_schemas()
    return import_module("torchvision")


def has_operators() -> bool:
    """Say whether torchvision's C++ operators loaded (decoding, nms)."""
    return bool(torchvision().extension._has_ops())


def transforms_functional() -> ModuleType:
    """Return ``torchvision.transforms.v2.functional``, which torchvision does not import by itself."""
    torchvision()
    return import_module("torchvision.transforms.v2.functional")


def _forget_half_imported() -> None:
    import sys

    for name in [name for name in sys.modules if name == "torchvision" or name.startswith("torchvision.")]:
        del sys.modules[name]


def _declare_missing_schemas() -> None:
    library = torch.library.Library("torchvision", "DEF")  # type: ignore[no-untyped-call]  # torch leaves it untyped
    for schema in MISSING_SCHEMAS:
        library.define(schema)  # type: ignore[no-untyped-call]
    _declared.append(library)
