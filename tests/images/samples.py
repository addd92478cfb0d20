"""Small pictures, files and sources for the tests of this unit."""

import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bottleneck.images import Content, FileStat, ImageReadError

Pixels = NDArray[np.uint8]


def picture(seed: int, height: int = 12, width: int = 17) -> Pixels:
    """Return reproducible noise (height, width, 3)."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def smooth(height: int, width: int) -> Pixels:
    """Return a colour gradient, which survives lossy compression."""
    y, x = np.mgrid[0:height, 0:width]
    channels = [255 * y / height, 255 * x / width, 255 * (x + y) / (height + width)]
    return np.stack(channels, axis=-1).astype(np.uint8)


def encode(image: Pixels | Image.Image, kind: str = "PNG", **options: object) -> bytes:
    """Return an image as the bytes of a file."""
    file = BytesIO()
    (Image.fromarray(image) if isinstance(image, np.ndarray) else image).save(file, kind, **options)
    return file.getvalue()


def write_pictures(folder: Path, names: list[str]) -> list[str]:
    """Write picture(0), picture(1), ... under these names and return the paths."""
    paths = []
    for seed, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode(picture(seed)))
        paths.append(str(path))
    return paths


def png_header(width: int, height: int) -> bytes:
    """Return the start of a PNG file that promises this many pixels."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    data = b"IDAT" + zlib.compress(b"")
    chunks = [struct.pack(">I", len(part) - 4) + part + struct.pack(">I", zlib.crc32(part)) for part in (header, data)]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def webp_header(width: int, height: int) -> bytes:
    """Return a small lossless WebP file that promises this many pixels."""
    data = bytearray(encode(picture(0), "WEBP", lossless=True))
    start = data.index(b"VP8L") + 9  # behind the size of the chunk and its signature: 14 bits each, less one
    flags = struct.unpack_from("<I", data, start)[0] & ~((1 << 28) - 1)
    struct.pack_into("<I", data, start, flags | (width - 1) | (height - 1) << 14)
    return bytes(data)


def jpeg_with_exif(image: Pixels, exif: bytes) -> bytes:
    """Return a JPEG file with these bytes where its EXIF metadata should be."""
    data = encode(image, "JPEG", quality=95)
    segment = b"Exif\0\0" + exif
    return data[:2] + b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment + data[2:]


TAG_BEYOND_THE_END = b"II*\0\x08\0\0\0" + struct.pack("<HHHII", 1, 0x010F, 2, 1000, 100) + b"\0\0\0\0"
"""EXIF about which Pillow warns: one tag that claims a thousand bytes and has none."""


def no_preprocess(image: Pixels) -> Pixels:
    """Return the pixels as they are, (3, h, w)."""
    return np.asarray(image).transpose(2, 0, 1)


@dataclass(eq=False)
class FakeSource:
    """A source whose contents come from a function; it counts what was read."""

    content: Callable[[int], Content]
    ids: list[str]
    seen: list[int] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.ids)

    def read(self, row: int) -> Content:
        self.seen.append(row)
        return self.content(row)

    def stat(self, row: int) -> FileStat | None:
        return None


def pictures_source(n: int, *, bad: frozenset[int] = frozenset()) -> FakeSource:
    """Return a source of picture(0), picture(1), ... in which some rows cannot be read."""

    def content(row: int) -> Content:
        if row in bad:
            raise ImageReadError(f"{row} is bad")
        return picture(row)

    return FakeSource(content, [f"picture {row}" for row in range(n)])
