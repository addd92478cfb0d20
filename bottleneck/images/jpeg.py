"""Plain JPEG files, decoded by libjpeg-turbo straight into an array, beside other threads.

Pillow has the same library inside, and its pixels are the same; what is saved here is the copying around it. So only
what is plain is decoded here, and for everything else (other colour spaces, several pictures in one file, anything
that libjpeg complains about) the answer is None: Pillow then has the say, and finds the words.
"""

import struct
from dataclasses import dataclass

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image

START = b"\xff\xd8\xff"
START_OF_SCAN = 0xFFDA
APP1, APP2, APP14 = 0xFFE1, 0xFFE2, 0xFFEE

PLAIN_FRAMES = frozenset({0xFFC0, 0xFFC1, 0xFFC2})
"""Start-of-frame markers of Huffman-coded baseline, extended and progressive files (ITU-T T.81, table B.1)."""

PASSED_OVER = frozenset({0xFFC4, 0xFFDB, 0xFFDD, 0xFFFE, *range(0xFFE0, 0xFFF0)})
"""Tables, restart interval, comment and application data."""

PLAIN_COMPONENTS = (b"\x01", b"\x01\x02\x03")
"""Identifiers of the components of grey and YCbCr files (JFIF 1.02, page 3)."""

MARGINS = {8: 2.5, 4: 2.5, 2: 3.0}
"""Sides may be divided by each of these where so many times the side that is needed remains.

Measured on the features of photographs of 4 to 24 megapixels: with these margins they keep a cosine of 0.9994 with
those of the whole image, with a margin of 2 one falls to 0.998. Photographs that were scaled down to be as sharp as
they can come to 0.997. Halving saves little time (the whole size has the faster code), and smaller photographs are
sharper, so it is asked to be more careful. Other fractions are slower than the whole, and displace the colours of
4:2:2 files.
"""

LEAST_SIDE = 16
"""Below this, rounding up makes several scales of libjpeg-turbo give one size, and simplejpeg chooses by size."""

EXIF, XMP_ORIENTATION = b"Exif\0\0", b"tiff:Orientation"

_segment_start = struct.Struct(">HH")
_frame_header = struct.Struct(">BHHB")


@dataclass(frozen=True, kw_only=True, slots=True)
class PlainJpeg:
    """What the header of a plain JPEG file says: its size in pixels, and its EXIF metadata (empty if it has none)."""

    width: int
    height: int
    exif: bytes


def parse_plain_jpeg(data: bytes) -> PlainJpeg | None:
    """Read the segments before the first scan; None when any of them is out of the ordinary or cut off."""
    if not data.startswith(START):
        return None
    frame: tuple[int, int] | None = None
    exif = b""
    at = 2
    while True:
        try:
            marker, length = _segment_start.unpack_from(data, at)
        except struct.error:
            return None
        begin, at = at + 4, at + 2 + length
        if marker in PLAIN_FRAMES and frame is None:
            if (frame := _plain_frame(data[begin:at])) is None:
                return None
        elif marker == APP1:
            if data.startswith(EXIF, begin) and not exif:
                exif = data[begin:at]
            elif data.startswith(EXIF, begin) or data.find(XMP_ORIENTATION, begin, at) >= 0:
                return None  # metadata in pieces, or in a second language
        elif marker == START_OF_SCAN:
            return frame and PlainJpeg(width=frame[0], height=frame[1], exif=exif)
        elif marker not in PASSED_OVER or marker == APP14 or (marker == APP2 and data.startswith(b"MPF\0", begin)):
            return None  # Adobe's colour transforms, several pictures, or anything unknown


def scale_for(width: int, height: int, *, min_side: int | None) -> int:
    """Return what to divide the sides of a JPEG image by when ``min_side`` pixels are needed of the shorter one."""
    if min_side is None:
        return 1
    return next((scale for scale, margin in MARGINS.items() if min(width, height) >= scale * margin * min_side), 1)


def decode_plain_jpeg(data: bytes, header: PlainJpeg, *, min_side: int | None) -> NDArray[np.uint8] | None:
    """Return the pixels (height, width, 3), not yet upright, at the scale that `scale_for` allows.

    None when libjpeg has anything to complain about, when the image is too large for Pillow, or too small for this.
    """
    limit = Image.MAX_IMAGE_PIXELS
    if min(header.width, header.height) < LEAST_SIDE or (limit is not None and header.width * header.height > limit):
        return None
    scale = scale_for(header.width, header.height, min_side=min_side)
    height, width = -(-header.height // scale), -(-header.width // scale)
    try:
        pixels: NDArray[np.uint8] = simplejpeg.decode_jpeg(data, "RGB", min_height=height, min_width=width)
    except (ValueError, RuntimeError):  # warnings too: its parameter strict is on
        return None
    return pixels if pixels.shape == (height, width, 3) else None


def _plain_frame(header: bytes) -> tuple[int, int] | None:
    """Return width and height of a frame of 8-bit grey or YCbCr."""
    if len(header) < _frame_header.size:
        return None
    bits, height, width, n_components = _frame_header.unpack_from(header)
    components = header[_frame_header.size :]
    if bits != 8 or len(components) != 3 * n_components or components[::3] not in PLAIN_COMPONENTS:
        return None
    return (width, height) if width and height else None
