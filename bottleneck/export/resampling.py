"""Resize and centre crop as tensor arithmetic, so that they can be part of an exported file.

``Preprocess`` resizes with torch's kernel for uint8, which computes in whole numbers: weights rounded to 16 bits, and
each pass rounded to a grey level, width first. No exchange format has that operator. Here it is two multiplications
by a matrix of the same rounded weights, in float64, where sums of whole numbers are exact: the same pixels to the last
bit, for images of any size.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bottleneck.backbones import Preprocess
from bottleneck.backbones.preprocess import MOST_RESIZED_PER_CROP, Interpolation
from bottleneck.errors import wrong_parameter

HALF_WIDTHS: dict[Interpolation, float] = {"bilinear": 1.0, "bicubic": 2.0}
"""Reach of a filter in pixels of the smaller image."""

BICUBIC_A = -0.5
"""Keys (1981); torch takes -0.75 without antialiasing, and this with it."""

LARGEST_WEIGHT = 2**15
MOST_BITS = 22
"""Torch takes as many bits as the largest weight leaves of 16; Pillow always takes 22."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Axis:
    """One direction of an image: how many pixels there are, after resizing, and of the crop."""

    given: int
    resized: int
    crop: int

    def seen(self) -> Tensor:
        """Return how many pixels of the crop lie on the resized image, as float64."""
        return torch.minimum(_number(self.resized), _number(self.crop))

    def positions(self) -> Tensor:
        """Return where in the resized image the pixels of the crop are, float64 (crop,); outside is black."""
        spare = _number(self.resized) - self.crop
        # An odd difference: padding has one pixel less on this side, and a cut half is rounded to even.
        start = torch.where(spare < 0, -torch.floor(-spare / 2), torch.round(spare / 2))
        return start + torch.arange(self.crop, dtype=torch.float64)


class ResizeAndCrop(nn.Module):
    """What calling a ``Preprocess`` does, on a batch of images of one size.

    uint8 (n, height, width, 3) to whole numbers from 0 to 255, float64 (n, 3, *crop). Equal to ``Preprocess`` but for
    images of which the crop is less than a sixteenth: those it leaves to Pillow, within one grey level of this.

    Raises
    ------
    InvalidInputError
        Resizing takes the nearest pixel: which one that is hangs on the last bit of a sum.
    """

    def __init__(self, preprocess: Preprocess) -> None:
        super().__init__()
        if preprocess.resize is not None and preprocess.interpolation not in HALF_WIDTHS:
            allowed = f"one of {list(HALF_WIDTHS)} to be exported"
            raise wrong_parameter("Preprocess", "interpolation", allowed, preprocess.interpolation)
        self.preprocess = preprocess

    def forward(self, images: Tensor) -> Tensor:
        """Return the resized and cropped images."""
        y, x = self._axes(images.shape[1], images.shape[2])
        channels_first = images.permute(0, 3, 1, 2)
        if self.preprocess.resize is None:
            return _pick(_pick(channels_first, y).transpose(2, 3), x).transpose(2, 3).to(torch.float64)
        # What is much larger than its crop goes through Pillow, which resizes no more than the crop.
        in_part = _number(y.resized) * x.resized > MOST_RESIZED_PER_CROP * y.seen() * x.seen()
        narrow = _resample(channels_first.to(torch.float64), x, self._weigh(x, y.crop, in_part))
        return _resample(narrow.transpose(2, 3), y, self._weigh(y, x.crop, in_part)).transpose(2, 3)

    def _axes(self, height: int, width: int) -> tuple[Axis, Axis]:
        match self.preprocess.resize:
            case None:
                resized = (height, width)
            case int(side):
                shorter = _smaller(height, width)
                resized = (side * height // shorter, side * width // shorter)
            case (rows, columns):
                resized = (rows, columns)
        crop = self.preprocess.crop
        return (
            Axis(given=height, resized=resized[0], crop=crop[0]),
            Axis(given=width, resized=resized[1], crop=crop[1]),
        )

    def _weigh(self, axis: Axis, other_crop: int, in_part: Tensor) -> "Weights":
        """Return the weights of a direction; ``other_crop`` bounds how long an image is that is resized whole."""
        interpolation = self.preprocess.interpolation
        # The largest weight may be any one of the whole image's, also outside the crop.
        n_whole = _smaller(axis.resized, MOST_RESIZED_PER_CROP * axis.crop * other_crop)
        whole = torch.arange(n_whole, dtype=torch.float64)
        bits = torch.where(in_part, MOST_BITS, _torch_bits(_filter(axis, whole, interpolation).max()))
        scaled = _filter(axis, axis.positions(), interpolation) * torch.exp2(bits)
        return Weights(rounded=torch.sign(scaled) * torch.floor(scaled.abs() + 0.5), bits=bits)


@dataclass(frozen=True, kw_only=True, slots=True)
class Weights:
    """Whole-numbered weights (crop, given) of one direction, that count as ``rounded / 2**bits``."""

    rounded: Tensor
    bits: Tensor


def _resample(maps: Tensor, axis: Axis, weights: Weights) -> Tensor:
    """Resample the last axis of maps (n, 3, other, given), rounded to grey levels."""
    summed = maps @ weights.rounded.transpose(0, 1)
    one = torch.exp2(weights.bits)
    grey = torch.floor((summed + one / 2) / one)
    return grey.clamp(0, 255)


def _filter(axis: Axis, positions: Tensor, interpolation: Interpolation) -> Tensor:
    """Return the weights (n_positions, given) that pixels have at positions of the resized image; rows sum to 1."""
    scale = _number(axis.given) / _number(axis.resized)
    stretch = scale.clamp(min=1)
    reach = HALF_WIDTHS[interpolation] * stretch
    centre = scale * (positions[:, None] + 0.5)
    first = torch.trunc(centre - reach + 0.5).clamp(min=0)
    stop = torch.trunc(centre + reach + 0.5)
    pixels = torch.arange(axis.given, dtype=torch.float64)
    distance = ((pixels - centre + 0.5) * (1 / stretch)).abs()
    values = _triangle(distance) if interpolation == "bilinear" else _cubic(distance)
    on_image = (positions >= 0) & (positions < _number(axis.resized))
    weights = torch.where((pixels >= first) & (pixels < stop) & on_image[:, None], values, 0.0)
    total = weights.sum(dim=1, keepdim=True)
    return weights / torch.where(total == 0, 1.0, total)


def _triangle(distance: Tensor) -> Tensor:
    return (1 - distance).clamp(min=0)


def _cubic(distance: Tensor) -> Tensor:
    near = ((BICUBIC_A + 2) * distance - (BICUBIC_A + 3)) * distance * distance + 1
    far = (((distance - 5) * distance + 8) * distance - 4) * BICUBIC_A
    return torch.where(distance < 1, near, torch.where(distance < 2, far, 0.0))


def _torch_bits(largest: Tensor) -> Tensor:
    """Return the most bits with which the largest weight still fits into 16."""
    candidates = torch.arange(1, MOST_BITS + 1, dtype=torch.float64)
    return (torch.floor(0.5 + largest * torch.exp2(candidates)) < LARGEST_WEIGHT).to(torch.float64).sum()


def _pick(maps: Tensor, axis: Axis) -> Tensor:
    """Return the pixels of maps (n, 3, given, other) that are in the crop, black outside."""
    positions = axis.positions()
    last = _number(axis.given) - 1
    picked = maps.index_select(2, torch.minimum(positions.clamp(min=0), last).to(torch.int64))
    on_image = (positions >= 0) & (positions <= last)
    return picked * on_image.to(picked.dtype)[:, None]


def _smaller(first: int, second: int) -> int:
    """Return the minimum of two sizes without asking which it is: that would fix the answer in the exported file."""
    smaller: int = torch.sym_min(first, second)  # type: ignore[no-untyped-call]
    return smaller


def _number(size: int) -> Tensor:
    """Return a size, which an exporter follows as a symbol, as a float64 tensor."""
    return torch.scalar_tensor(size, dtype=torch.float64)
