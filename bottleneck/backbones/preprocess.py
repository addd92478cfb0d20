"""What is done to an image before the network sees it: resize, centre crop, normalise."""

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, overload

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from bottleneck.errors import WeightsError, wrong_parameter

Interpolation = Literal["nearest", "bilinear", "bicubic"]
Triple = tuple[float, float, float]

RESAMPLING = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
}

MOST_RESIZED_PER_CROP = 16
"""A picture whose resized area is more than this many crops (a banner of 10,000 x 100 pixels) is not resized whole."""

RESIZE_PER_CROP = 256 / 224
"""Shorter side per crop side where a file names the crop only: torchvision's ``ImageClassification`` defaults."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Preprocess:
    """The deterministic way from an image to the input of a network.

    Calling it does the part that works on pixels; ``normalise`` does the arithmetic, on whole batches and on the
    network's device. Together they do what torchvision's ``weights.transforms()`` do to PIL images. Resizing is
    torch's for uint8, several times faster than Pillow's and equal to it within one grey level (on noise, in one
    value of ten thousand, two); the rest is equal to the last bit.

    Parameters
    ----------
    resize : int, (height, width) or None
        Length in pixels that the shorter side is resized to, or the exact size, or no resizing.
    crop : (height, width)
        Centre crop in pixels; smaller images are padded with black.
    mean, std : three floats
        Of the red, green and blue channel, on a scale from 0 to 1.
    interpolation : {"nearest", "bilinear", "bicubic"}
        How pixels are resampled (always with antialiasing, as Pillow does).

    Raises
    ------
    InvalidInputError
        A value outside of the above.
    """

    resize: int | tuple[int, int] | None
    crop: tuple[int, int]
    mean: Triple
    std: Triple
    interpolation: Interpolation = "bilinear"

    def __post_init__(self) -> None:
        # JSON has lists where this record has tuples: Preprocess(**described) must give the same record back.
        for field in ("resize", "crop", "mean", "std"):
            if isinstance(value := getattr(self, field), list):
                object.__setattr__(self, field, tuple(value))
        for field, allowed, good in (
            ("resize", "pixels, (height, width) or None", self.resize is None or _sizes(self.resize)),
            ("crop", "(height, width) in pixels", isinstance(self.crop, tuple) and _sizes(self.crop)),
            ("mean", "three numbers", _triple(self.mean)),
            ("std", "three numbers above 0", _triple(self.std) and min(self.std) > 0),
            ("interpolation", f"one of {list(RESAMPLING)}", self.interpolation in RESAMPLING),
        ):
            if not good:
                raise wrong_parameter("Preprocess", field, allowed, getattr(self, field))

    def __call__(self, image: Image.Image | NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return the resized and cropped pixels of an image.

        Parameters
        ----------
        image : Pillow image, or uint8 (height, width, 3)

        Returns
        -------
        uint8 (3, height, width)
            A view of pixels that lie in memory as (height, width, 3), the order that convolutions are fastest in.
        """
        pixels = np.array(image.convert("RGB")) if isinstance(image, Image.Image) else image
        height, width = pixels.shape[:2]
        size = (height, width) if self.resize is None else _resized(self.resize, height, width)
        top, left = (_crop_start(have, want) for have, want in zip(size, self.crop, strict=True))
        seen = (_within(top, self.crop[0], size[0]), _within(left, self.crop[1], size[1]))
        # Copies: a view would hold the whole image for as long as the crop waits for its batch.
        same = size == (height, width)
        cropped = np.array(pixels[seen] if same else _resample(pixels, size, seen, self.interpolation))
        if cropped.shape[:2] != self.crop:
            cropped = _on_black(cropped, self.crop, top=max(0, -top), left=max(0, -left))
        return cropped.transpose(2, 0, 1)

    def normalise(self, pixels: Tensor) -> Tensor:
        """Return ``(pixels / 255 - mean) / std`` as float32, shape (n, 3, height, width), on the same device."""
        mean = torch.tensor(self.mean, device=pixels.device).view(3, 1, 1)
        std = torch.tensor(self.std, device=pixels.device).view(3, 1, 1)
        # In this order and in float32 the result equals torchvision's to the last bit.
        return pixels.to(torch.float32).div_(255).sub_(mean).div_(std)

    def describe(self) -> dict[str, object]:
        """Return everything here that changes a feature, ready for JSON; ``Preprocess(**it)`` gives it back."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}


@overload
def parse_preprocess(metadata: Mapping[str, str], *, base: Preprocess) -> Preprocess: ...
@overload
def parse_preprocess(metadata: Mapping[str, str], *, base: None = None) -> Preprocess | None: ...
def parse_preprocess(metadata: Mapping[str, str], *, base: Preprocess | None = None) -> Preprocess | None:
    """Read preprocessing from the metadata of a weights file.

    ``mean`` and ``std`` are three numbers; ``crop`` is a side in pixels (with ``resize`` for the shorter side before
    it); ``input_size`` or the "32x32" of ``input`` mean that whole images are resized to that size.

    Parameters
    ----------
    metadata : mapping of str to str
        As a safetensors file has it.
    base : Preprocess, optional
        What holds for everything that the metadata does not say. Without it, metadata that does not say all of
        mean, std and size gives None.

    Raises
    ------
    WeightsError
        Metadata that cannot be read, or an input that is not RGB from 0 to 1.
    """
    stated = metadata.get("input", "")
    if re.search(r"BGR|255", stated):
        raise WeightsError(f"The weights ask for the input {stated!r}; only RGB from 0 to 1 is known here.")
    fields: dict[str, Any] = {name: _numbers(metadata, name, count=3) for name in ("mean", "std") if name in metadata}
    fields |= _stated_sizes(metadata)
    if "interpolation" in metadata:
        fields["interpolation"] = metadata["interpolation"]
    if base is not None:
        return replace(base, **fields)
    if not fields.keys() >= {"mean", "std", "crop"}:
        return None
    return Preprocess(**fields)


def _stated_sizes(metadata: Mapping[str, str]) -> dict[str, Any]:
    if "crop" in metadata:
        (crop,) = _numbers(metadata, "crop", count=1)
        (resize,) = _numbers(metadata, "resize", count=1) if "resize" in metadata else (crop * RESIZE_PER_CROP,)
        return {"resize": round(resize), "crop": (int(crop), int(crop))}
    stated = re.search(r"\d+\s*x\s*\d+", metadata.get("input", ""))
    sides = re.findall(r"\d+", metadata.get("input_size", stated[0] if stated else ""))
    if not sides:
        return {}
    height, width = int(sides[-2:][0]), int(sides[-1])  # "32", "32x32" or "3,32,32"
    return {"resize": height if height == width else (height, width), "crop": (height, width)}


def _numbers(metadata: Mapping[str, str], name: str, *, count: int) -> tuple[float, ...]:
    found = tuple(float(number) for number in re.findall(r"[-+]?\d*\.?\d+(?:[eE][-+]?\d+)?", metadata[name]))
    if len(found) != count:
        raise WeightsError(
            f"The metadata of the weights must give {count} numbers for {name!r}. Got {metadata[name]!r} instead."
        )
    return found


def _resized(resize: int | tuple[int, int], height: int, width: int) -> tuple[int, int]:
    """Return (height, width) after resizing."""
    if isinstance(resize, tuple):
        return resize
    if width <= height:
        return int(resize * height / width), resize
    return resize, int(resize * width / height)


def _resample(
    pixels: NDArray[np.uint8], size: tuple[int, int], seen: tuple[slice, slice], interpolation: Interpolation
) -> NDArray[np.uint8]:
    """Return the part ``seen`` of the pixels (h, w, 3) resized to ``size``, antialiased."""
    rows, columns = seen
    n_seen = (rows.stop - rows.start) * (columns.stop - columns.start)
    if interpolation == "nearest" or size[0] * size[1] > MOST_RESIZED_PER_CROP * n_seen:
        return _resample_in_part(pixels, size, seen, RESAMPLING[interpolation])
    # Batch first and channels moved last: only so does torch see that nothing has to be transposed, and only then is
    # it fast. It refuses negative strides, and warns about read-only memory.
    batch = torch.from_numpy(np.require(pixels, requirements=["C", "W"]))[None].permute(0, 3, 1, 2)
    resized = interpolate(batch, size=size, mode=interpolation, antialias=True)
    whole: NDArray[np.uint8] = resized[0].permute(1, 2, 0).numpy()
    return whole[seen]


def _resample_in_part(
    pixels: NDArray[np.uint8], size: tuple[int, int], seen: tuple[slice, slice], resampling: Image.Resampling
) -> NDArray[np.uint8]:
    """Return the same part by Pillow, which is slower and need not resize the rest."""
    rows, columns = seen
    height, width = pixels.shape[:2]
    scale_y, scale_x = height / size[0], width / size[1]
    # One direction at a time: Pillow would choose which comes first by the size of the part.
    narrow = Image.fromarray(pixels).resize(
        (columns.stop - columns.start, height),
        resampling,
        box=(columns.start * scale_x, 0, columns.stop * scale_x, height),
    )
    part = narrow.resize(
        (narrow.width, rows.stop - rows.start),
        resampling,
        box=(0, rows.start * scale_y, narrow.width, rows.stop * scale_y),
    )
    return np.asarray(part)


def _within(start: int, length: int, size: int) -> slice:
    """Return the part of a crop that lies on the image."""
    return slice(max(0, start), min(start + length, size))


def _on_black(part: NDArray[np.uint8], size: tuple[int, int], *, top: int, left: int) -> NDArray[np.uint8]:
    whole = np.zeros((*size, 3), dtype=np.uint8)
    whole[top : top + part.shape[0], left : left + part.shape[1]] = part
    return whole


def _crop_start(have: int, want: int) -> int:
    # torchvision's center_crop pads an odd difference with one pixel less on this side, and rounds a cut half to even.
    return -((want - have) // 2) if want > have else round((have - want) / 2)


def _sizes(value: object) -> bool:
    sides = value if isinstance(value, tuple) else (value, value)
    return len(sides) == 2 and all(isinstance(side, int) and side > 0 for side in sides)


def _triple(value: object) -> bool:
    return isinstance(value, tuple) and len(value) == 3 and all(isinstance(number, int | float) for number in value)
