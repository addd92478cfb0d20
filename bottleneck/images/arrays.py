"""Images that are numbers: which axis is what, which range, and the source over a stack of them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bottleneck.errors import InvalidInputError, listed
from bottleneck.images.content import ImageReadError
from bottleneck.images.modes import to_rgb
from bottleneck.images.source import RowNames

CHANNELS = (1, 3, 4)
"""Grey, RGB, RGB with alpha."""

BLOCK_VALUES = 1 << 24
"""How many float values are checked at a time, so that the check of a memory-mapped array stays small."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class ArraySource:
    """A checked stack of images ``(n, ...)``, each of which has ``shape``."""

    array: NDArray[np.generic]
    shape: tuple[int, ...]

    @property
    def ids(self) -> Sequence[str]:
        """``image 0``, ``image 1``, ..."""
        return RowNames(range(len(self.array)))

    def __len__(self) -> int:
        return len(self.array)

    def read(self, row: int) -> NDArray[np.uint8]:
        """Return the RGB pixels of one image."""
        return pixels_of_array(self.array[row].reshape(self.shape))

    def stat(self, row: int) -> None:
        """Return None: no files here."""
        return None


def array_source(stack: NDArray[np.generic], *, image_shape: tuple[int, ...] | None = None) -> ArraySource:
    """Check a stack of images and return the source over it.

    Parameters
    ----------
    stack : ndarray (n, h, w), (n, h, w, c), (n, c, h, w), or (n, h * w * c) with ``image_shape``
        uint8, or floats within 0 to 1.
    image_shape : (h, w) or (h, w, c), optional
        The shape of one image of a flattened stack.

    Raises
    ------
    InvalidInputError
        The shape or the type cannot be images, or float values are not finite (their rows are named) or out of range.
    """
    shape = _image_shape(stack.shape, image_shape)
    try:
        _channel_axis(shape)
        _check_dtype(stack.dtype)
    except ImageReadError as exc:
        raise InvalidInputError(f"X of shape {stack.shape} cannot be used: {exc.reason}.") from exc
    if stack.dtype.kind == "f":
        _check_floats(stack)
    return ArraySource(array=stack, shape=shape)


def pixels_of_array(image: NDArray[np.generic]) -> NDArray[np.uint8]:
    """Return the RGB pixels (h, w, 3) of one image (h, w), (h, w, c) or (c, h, w); ImageReadError when it is none."""
    axis = _channel_axis(image.shape)
    _check_dtype(image.dtype)
    channels_last = image[:, :, None] if axis is None else np.moveaxis(image, axis, -1)
    pixels = _as_uint8(channels_last)
    match pixels.shape[-1]:
        case 1:
            return np.repeat(pixels, 3, axis=-1)
        case 4:
            return np.asarray(to_rgb(Image.fromarray(np.ascontiguousarray(pixels))))
        case _:
            return np.ascontiguousarray(pixels)


def _image_shape(stack: tuple[int, ...], given: tuple[int, ...] | None) -> tuple[int, ...]:
    """Return the shape of one image of a stack, or say which shape is missing or wrong."""
    if given is None:
        if len(stack) == 2:
            side = math.isqrt(stack[1])
            example = f"({side}, {side})" if side * side == stack[1] else "(height, width, channels)"
            raise InvalidInputError(
                f"X of shape {stack} has one row of numbers for each image. Pass image_shape={example} to say how "
                "the numbers make an image."
            )
        if len(stack) == 3 and stack[2] in CHANNELS and stack[1] > max(CHANNELS):
            raise InvalidInputError(
                f"X of shape {stack} looks like a single image; pass X[None]. Grey images have the shape (n, h, w)."
            )
        return stack[1:]
    if len(stack) != 2:
        raise InvalidInputError(f"image_shape is for flattened images, (n, h * w * c). X has the shape {stack}.")
    shape = tuple(int(side) for side in given)
    if len(shape) not in (2, 3) or (len(shape) == 3 and shape[-1] not in CHANNELS):
        raise InvalidInputError(f"image_shape must be (height, width) or (height, width, channels). Got {given!r}.")
    if math.prod(shape) != stack[1]:
        raise InvalidInputError(f"image_shape must have {stack[1]} values, as a row of X has. Got {given!r}.")
    return shape


def _channel_axis(shape: tuple[int, ...]) -> int | None:
    """Return which axis of one image holds its channels (0 or 2), or None when it is grey without such an axis."""
    if 0 in shape:
        raise ImageReadError(f"an image of shape {shape} has no pixels")
    if len(shape) == 2:
        return None
    if len(shape) != 3:
        raise ImageReadError(f"an image has the shape (h, w), (h, w, c) or (c, h, w), not {shape}")
    axes = [axis for axis in (0, 2) if shape[axis] in CHANNELS]
    if len(axes) == 1:
        return axes[0]
    which = "the first and the last axis can both" if axes else "neither the first nor the last axis can"
    raise ImageReadError(f"in an image of shape {shape} {which} hold 1, 3 or 4 channels")


def _check_dtype(dtype: np.dtype[np.generic]) -> None:
    if dtype != np.uint8 and dtype.kind != "f":
        raise ImageReadError(
            f"pixels must be uint8 (0 to 255) or floats (0 to 1), not {dtype}; convert them, "
            "for example with .astype('uint8')"
        )


def _as_uint8(image: NDArray[np.generic]) -> NDArray[np.uint8]:
    if image.dtype == np.uint8:
        return cast("NDArray[np.uint8]", image)
    values = image.astype(np.float64)
    low, high = values.min(), values.max()
    if not (low >= 0 and high <= 1):  # NaN fails both
        raise ImageReadError(f"float pixels from {low:g} to {high:g}; they must be within 0 to 1")
    return np.rint(values * 255).astype(np.uint8)


def _check_floats(stack: NDArray[np.generic]) -> None:
    """Name the rows that are not finite, and the range of the others when it is not within 0 to 1."""
    lows, highs = _extremes(stack)
    finite = np.isfinite(lows) & np.isfinite(highs)
    low, high = lows[finite].min(initial=0), highs[finite].max(initial=0)
    problems = [f"row {row}: NaN or infinite values" for row in np.flatnonzero(~finite)]
    if low < 0 or high > 1:
        problems.insert(
            0,
            f"the values range from {low:g} to {high:g}; floats must be within 0 to 1: "
            "divide by the largest possible value (X / 255 for 8-bit images), or pass uint8",
        )
    if problems:
        raise InvalidInputError(f"X of shape {stack.shape} cannot be used:\n{listed(problems)}")


def _extremes(stack: NDArray[np.generic]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the smallest and the largest value of each row (NaN where it has one), in bounded memory."""
    lows, highs = np.empty(len(stack)), np.empty(len(stack))
    step = max(1, BLOCK_VALUES // math.prod(stack.shape[1:]))
    for start in range(0, len(stack), step):
        rows = slice(start, start + step)
        values = stack[rows].astype(np.float64).reshape(len(stack[rows]), -1)
        lows[rows], highs[rows] = values.min(axis=1), values.max(axis=1)
    return lows, highs
