"""Images that are Python objects: what each kind of object becomes, and the source over a list of them."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from threading import RLock
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from bottleneck.errors import InvalidInputError, listed
from bottleneck.images.arrays import pixels_of_array
from bottleneck.images.content import Content, FileStat, ImageReadError
from bottleneck.images.decode import pixels_of_image
from bottleneck.images.files import FileSource, read_file, stat_file
from bottleneck.images.source import ImageSource

ITEM_TYPES = (str, os.PathLike, bytes, bytearray, Image.Image, np.ndarray, torch.Tensor, dict)

ONE_AT_A_TIME = RLock()
"""Held around objects of the user that may not bear two threads: a lazily opened image, a data set."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class ItemSource:
    """Images in a list: Pillow images, encoded bytes, arrays, tensors, paths, or records of bytes and path."""

    items: Sequence[object]
    ids: Sequence[str]

    def __len__(self) -> int:
        return len(self.items)

    def read(self, row: int) -> Content:
        """Return the content of one object."""
        return content_of(self.items[row])

    def stat(self, row: int) -> FileStat | None:
        """Return what identifies the file where the item is a path."""
        item = self.items[row]
        return stat_file(os.fspath(item)) if isinstance(item, (str, os.PathLike)) else None


def list_source(items: Sequence[object]) -> ImageSource:
    """Return the source over a list of images; InvalidInputError names the items that are none.

    A list of nothing but paths stays a list of strings: ten million rows cost one pass over their types.
    """
    kinds = set(map(type, items))
    if all(issubclass(kind, (str, os.PathLike)) for kind in kinds):
        return FileSource(ids=[os.fspath(path) for path in cast("Sequence[str | os.PathLike[str]]", items)])
    if not all(issubclass(kind, ITEM_TYPES) for kind in kinds):
        wrong = [f"row {i}: {describe(item)}" for i, item in enumerate(items) if not isinstance(item, ITEM_TYPES)]
        raise InvalidInputError(
            f"Every item of X must be a path, encoded bytes, a Pillow image, an array or a tensor:\n{listed(wrong)}"
        )
    return ItemSource(items=items, ids=[_name(row, item) for row, item in enumerate(items)])


def content_of(item: object) -> Content:
    """Return the content of one object, or raise ImageReadError."""
    match item:
        case bytes():
            return item
        case bytearray():
            return bytes(item)
        case str() | os.PathLike():
            return read_file(os.fspath(item))
        case Image.Image():
            with ONE_AT_A_TIME:
                return pixels_of_image(item)
        case np.ndarray():
            return pixels_of_array(item)
        case torch.Tensor():
            return pixels_of_array(array_of_tensor(item))
        case {"bytes": bytes(data)}:  # an undecoded image of Hugging Face datasets
            return data
        case {"bytes": None, "path": str(path)}:
            return read_file(path)
    raise ImageReadError(f"not an image: {describe(item)}")


def array_of_tensor(tensor: torch.Tensor) -> NDArray[np.generic]:
    """Return the values of a tensor, wherever it lives, as an array."""
    if tensor.dtype is torch.bfloat16:  # numpy has no such type
        tensor = tensor.float()
    array: NDArray[np.generic] = tensor.detach().cpu().numpy()
    return array


def describe(item: object) -> str:
    """Return what an object is, in few words."""
    match item:
        case None | float():
            return f"{item} (a missing value?)"
        case dict():
            return f"a dict with the keys {', '.join(map(repr, item))}"
        case _:
            return f"an object of type {type(item).__name__}"


def _name(row: int, item: object) -> str:
    return os.fspath(item) if isinstance(item, (str, os.PathLike)) else f"image {row}"
