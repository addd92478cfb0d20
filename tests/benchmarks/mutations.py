"""How the damage benchmark damages things: encoded images, and the files of a feature cache. Seeded and pure."""

import json
import random
import struct
import zlib
from io import BytesIO
from pathlib import Path

import h5py
import numpy as np
from PIL import Image
from PIL.ExifTags import Base as ExifTag

HTML = b"<!DOCTYPE html>\n<html><head><title>404 Not Found</title></head><body>Not Found</body></html>\n"


def sound_images(n: int, *, seed: int = 0) -> dict[str, bytes]:
    """Return the content of n different images by file name, in turn of every kind that is met in the wild."""
    rng = np.random.RandomState(seed)
    found = {}
    for i in range(n):
        kind = list(KINDS)[i % len(KINDS)]
        extension, mode, options = KINDS[kind]
        height, width = rng.randint(40, 120, size=2)
        small = rng.randint(0, 256, size=(6, 6, 3)).astype(np.uint8)
        image = Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)
        noise = rng.randint(-12, 13, size=(height, width, 3))
        image = Image.fromarray(np.clip(np.asarray(image) + noise, 0, 255).astype(np.uint8)).convert(mode)
        encoded = BytesIO()
        image.save(encoded, **options)
        found[f"{i:05d}-{kind}{extension}"] = encoded.getvalue()
    return found


def _rotated() -> Image.Exif:
    exif = Image.Exif()
    exif[ExifTag.Orientation] = 6
    return exif


KINDS = {
    "jpeg": (".jpg", "RGB", {"format": "JPEG", "quality": 90}),
    "progressive": (".jpg", "RGB", {"format": "JPEG", "progressive": True}),
    "png": (".png", "RGB", {"format": "PNG"}),
    "grey": (".jpg", "L", {"format": "JPEG"}),
    "full-colour": (".jpeg", "RGB", {"format": "JPEG", "subsampling": 0}),
    "cmyk": (".jpg", "CMYK", {"format": "JPEG"}),
    "rotated": (".jpg", "RGB", {"format": "JPEG", "exif": _rotated()}),
    "palette": (".png", "P", {"format": "PNG"}),
    "restart": (".jpg", "RGB", {"format": "JPEG", "restart_marker_rows": 1}),
    "webp": (".webp", "RGB", {"format": "WEBP"}),
    "gif": (".gif", "P", {"format": "GIF"}),
    "tiff": (".tif", "RGB", {"format": "TIFF", "compression": "tiff_lzw"}),
    "bmp": (".bmp", "RGB", {"format": "BMP"}),
}


def truncated(content: bytes, other: bytes, draw: random.Random) -> bytes:
    return content[: draw.randrange(1, len(content))]


def flipped(content: bytes, other: bytes, draw: random.Random) -> bytes:
    damaged = bytearray(content)
    for _ in range(draw.choice((1, 3, 20))):
        damaged[draw.randrange(len(damaged))] ^= 1 << draw.randrange(8)
    return bytes(damaged)


def overwritten(content: bytes, other: bytes, draw: random.Random) -> bytes:
    damaged = bytearray(content)
    for _ in range(draw.choice((1, 8, 50))):
        damaged[draw.randrange(len(damaged))] = draw.randrange(256)
    return bytes(damaged)


def spliced(content: bytes, other: bytes, draw: random.Random) -> bytes:
    return content[: draw.randrange(len(content))] + other[draw.randrange(len(other)) :]


def zeroed_range(content: bytes, other: bytes, draw: random.Random) -> bytes:
    start = draw.randrange(len(content))
    n = min(draw.choice((4, 64, 512, len(content))), len(content) - start)
    return content[:start] + bytes(n) + content[start + n :]


def header_damaged(content: bytes, other: bytes, draw: random.Random) -> bytes:
    head = min(draw.choice((4, 32, 200)), len(content))
    return bytes(draw.randrange(256) if draw.random() < 0.2 else byte for byte in content[:head]) + content[head:]


def range_removed(content: bytes, other: bytes, draw: random.Random) -> bytes:
    start = draw.randrange(len(content))
    return content[:start] + content[start + draw.randrange(1, 200) :]


def nothing_left(content: bytes, other: bytes, draw: random.Random) -> bytes:
    return b""


def html_page(content: bytes, other: bytes, draw: random.Random) -> bytes:
    return HTML


def another_format(content: bytes, other: bytes, draw: random.Random) -> bytes:
    return other


def random_bytes(content: bytes, other: bytes, draw: random.Random) -> bytes:
    return draw.randbytes(draw.randrange(1, 3000))


def bomb(content: bytes, other: bytes, draw: random.Random) -> bytes:
    return draw.choice(BOMBS)()


MUTATIONS = {
    "truncated": truncated,
    "flipped": flipped,
    "overwritten": overwritten,
    "spliced": spliced,
    "zeroed": zeroed_range,
    "header": header_damaged,
    "removed": range_removed,
    "empty": nothing_left,
    "html": html_page,
    "renamed": another_format,
    "noise": random_bytes,
    "bomb": bomb,
}
NEVER_IMAGES = frozenset({"empty", "html", "bomb"})
"""Mutations after which nothing may be decoded."""


def mutated_images(n: int, *, seed: int) -> dict[str, bytes]:
    """Return the content of n damaged images by file name; the name says what was done to which kind."""
    draw = random.Random(seed)
    sound = list(sound_images(8 * len(KINDS), seed=seed).items())
    found = {}
    for i in range(n):
        name, content = draw.choice(sound)
        _, other = draw.choice(sound)
        what = list(MUTATIONS)[i % len(MUTATIONS)]
        found[f"{i:05d}-{what}-{name}"] = MUTATIONS[what](content, other, draw)
    return found


def png_bomb() -> bytes:
    """Return a small PNG that claims 60,000 x 60,000 pixels and has the data for some of them."""
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    parts = [(b"IHDR", header), (b"IDAT", zlib.compress(bytes(1_000_000), 9)), (b"IEND", b"")]
    chunks = [struct.pack(">I", len(b)) + t + b + struct.pack(">I", zlib.crc32(t + b)) for t, b in parts]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def jpeg_bomb() -> bytes:
    """Return a JPEG whose header claims 65,000 x 65,000 pixels."""
    encoded = BytesIO()
    Image.new("RGB", (16, 16)).save(encoded, "JPEG")
    content = bytearray(encoded.getvalue())
    size_at = content.index(b"\xff\xc0") + 5
    content[size_at : size_at + 4] = struct.pack(">HH", 65_000, 65_000)
    return bytes(content)


def bmp_bomb() -> bytes:
    """Return a BMP whose header claims 50,000 x 50,000 pixels."""
    encoded = BytesIO()
    Image.new("RGB", (16, 16)).save(encoded, "BMP")
    content = bytearray(encoded.getvalue())
    content[18:26] = struct.pack("<ii", 50_000, 50_000)
    return bytes(content)


def gif_bomb() -> bytes:
    """Return a GIF whose header claims 65,000 x 65,000 pixels."""
    encoded = BytesIO()
    Image.new("P", (16, 16)).save(encoded, "GIF")
    content = bytearray(encoded.getvalue())
    content[6:10] = struct.pack("<HH", 65_000, 65_000)
    return bytes(content)


BOMBS = (png_bomb, jpeg_bomb, bmp_bomb, gif_bomb)


def flip_a_bit(path: Path, draw: random.Random) -> None:
    content = bytearray(path.read_bytes())
    content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    path.write_bytes(content)


def truncate(path: Path, draw: random.Random) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: draw.randrange(len(content))])


def zero(path: Path, draw: random.Random) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def delete(path: Path, draw: random.Random) -> None:
    path.unlink()


def swap_with_another(path: Path, draw: random.Random) -> None:
    other = draw.choice([shard for shard in sorted(path.parent.glob("*.h5")) if shard != path])
    content, others = path.read_bytes(), other.read_bytes()
    path.write_bytes(others)
    other.write_bytes(content)


def put_text_there(path: Path, draw: random.Random) -> None:
    path.write_text("this is no shard\n" * 100)


def put_a_foreign_hdf5_there(path: Path, draw: random.Random) -> None:
    with h5py.File(path, "w") as file:
        file["keys"] = np.zeros((3, 16), np.uint8)


def change_a_feature(path: Path, draw: random.Random) -> None:
    """Change one value through HDF5: a file as sound as any, and wrong."""
    with h5py.File(path, "r+") as file:
        dataset = file[draw.choice([name for name in file if file[name].dtype.kind == "f"])]
        dataset[draw.randrange(len(dataset)), 0] += 1


def put_a_folder_there(path: Path, draw: random.Random) -> None:
    path.unlink()
    path.mkdir()


def swap_in_manifest(manifest: Path, draw: random.Random) -> None:
    """Exchange the checksums that two lines state."""
    lines = [json.loads(line) for line in manifest.read_text().splitlines() if line]
    one, two = draw.sample(lines, 2)
    one["sha256"], two["sha256"] = two["sha256"], one["sha256"]
    manifest.write_text("".join(json.dumps(line) + "\n" for line in lines))


def write_future_line(manifest: Path, draw: random.Random) -> None:
    with manifest.open("a") as file:
        file.write(json.dumps({"format_version": 99, "file": "from the future", "blake3": "?"}) + "\n")


SHARD_DAMAGES = {
    "shard: bit flipped": flip_a_bit,
    "shard: truncated": truncate,
    "shard: zeroed": zero,
    "shard: deleted": delete,
    "shard: swapped with another": swap_with_another,
    "shard: text in its place": put_text_there,
    "shard: foreign HDF5 in its place": put_a_foreign_hdf5_there,
    "shard: feature changed": change_a_feature,
    "shard: folder in its place": put_a_folder_there,
}
FILE_DAMAGES = {
    "manifest: bit flipped": ("manifest.jsonl", flip_a_bit),
    "manifest: truncated": ("manifest.jsonl", truncate),
    "manifest: zeroed": ("manifest.jsonl", zero),
    "manifest: deleted": ("manifest.jsonl", delete),
    "manifest: checksums swapped": ("manifest.jsonl", swap_in_manifest),
    "manifest: line from the future": ("manifest.jsonl", write_future_line),
    "space.json: bit flipped": ("space.json", flip_a_bit),
    "space.json: truncated": ("space.json", truncate),
    "index: bit flipped": ("../*.sqlite3", flip_a_bit),
    "index: truncated": ("../*.sqlite3", truncate),
    "index: zeroed": ("../*.sqlite3", zero),
    "index: text in its place": ("../*.sqlite3", put_text_there),
}
CACHE_DAMAGES = (*SHARD_DAMAGES, *FILE_DAMAGES)


def damage_cache(space: Path, what: str, *, seed: int) -> list[str]:
    """Do one kind of damage to the folder of a feature space; return the names of the files it was done to."""
    draw = random.Random(seed)
    if what in FILE_DAMAGES:
        name, damage = FILE_DAMAGES[what]
        parent, pattern = (space.parent, name[3:]) if name.startswith("../") else (space, name)
        path = next(parent.glob(pattern))
        damage(path, draw)
        return [path.name]
    before = {path: path.read_bytes() for path in sorted((space / "shards").glob("*.h5"))}
    SHARD_DAMAGES[what](draw.choice(list(before)), draw)
    return [path.name for path, content in before.items() if not path.is_file() or path.read_bytes() != content]
