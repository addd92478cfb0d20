import struct
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bottleneck.images import ImageReadError, decode
from bottleneck.images.jpeg import decode_plain_jpeg, parse_plain_jpeg, scale_for

from .samples import Pixels, encode, picture, smooth

PLAIN = {
    "4:4:4": {"subsampling": 0},
    "4:2:2": {"subsampling": 1},
    "4:2:0": {"subsampling": 2},
    "progressive": {"progressive": True},
    "optimised": {"optimize": True, "quality": 30},
    "with restarts": {"restart_marker_blocks": 3},
    "with a comment and a profile": {"comment": b"a" * 300, "icc_profile": b"b" * 70_000},
}
SCALED = {(203, 152): (None, 7, 15, 30), (1000, 770): (None, 38, 77, 96, 97, 200), (33, 1025): (None, 1, 2, 4)}


def by_pillow(data: bytes, min_side: int | None) -> Pixels:
    with Image.open(BytesIO(data)) as image:
        scale = scale_for(*image.size, min_side=min_side)
        image.draft(None, (image.width // scale, image.height // scale))
        return np.asarray(image.convert("RGB"))


def by_us(data: bytes, min_side: int | None) -> Pixels | None:
    header = parse_plain_jpeg(data)
    assert header is not None
    return decode_plain_jpeg(data, header, min_side=min_side)


@pytest.mark.parametrize(
    ("shorter", "scale"), [(30, 1), (299, 1), (300, 2), (499, 2), (500, 4), (999, 4), (1000, 8), (9000, 8)]
)
def test_sides_are_divided_as_far_as_the_margin_allows(shorter: int, scale: int) -> None:
    assert scale_for(shorter, 9999, min_side=50) == scale
    assert scale_for(9999, shorter, min_side=50) == scale
    assert scale_for(9999, shorter, min_side=None) == 1


@pytest.mark.parametrize("grey", [False, True])
@pytest.mark.parametrize("name", PLAIN)
@pytest.mark.parametrize("size", SCALED, ids=str)
def test_pixels_equal_pillows_bit_for_bit(size: tuple[int, int], name: str, grey: bool) -> None:
    image = Image.fromarray(picture(0, *size) // 4 + smooth(*size) // 2)
    data = encode(image.convert("L") if grey else image, "JPEG", **PLAIN[name])

    for min_side in SCALED[size]:
        np.testing.assert_array_equal(by_us(data, min_side), by_pillow(data, min_side), strict=True)


@pytest.mark.shared
@pytest.mark.parametrize("folder", ["clothing", "dtd10", "hymenoptera", "large_photos"])
def test_pixels_of_photographs_equal_pillows_bit_for_bit(shared: Path, folder: str) -> None:
    paths = sorted((shared / "data" / folder).rglob("*.jpg"))
    sizes = (256,) if folder == "large_photos" else (None, 15)

    n_plain = 0
    for path in paths[:: max(1, len(paths) // 200)]:
        data = path.read_bytes()
        if parse_plain_jpeg(data) is not None:
            n_plain += 1
            for min_side in sizes:
                np.testing.assert_array_equal(by_us(data, min_side), by_pillow(data, min_side), err_msg=str(path))

    assert n_plain >= 9


def test_header_says_size_and_metadata() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encode(picture(0, 30, 40), "JPEG", exif=exif)

    header = parse_plain_jpeg(data)

    assert header is not None
    assert (header.width, header.height) == (40, 30)
    assert header.exif == exif.tobytes()


def insert(data: bytes, marker: int, payload: bytes) -> bytes:
    return data[:2] + struct.pack(">HH", marker, len(payload) + 2) + payload + data[2:]


EXIF = b"Exif\0\0II*\0\x08\0\0\0\0\0\0\0\0\0"
PHOTO = encode(smooth(40, 50), "JPEG")
OTHERWISE = {
    "a PNG file": encode(picture(0)),
    "CMYK": encode(Image.fromarray(smooth(40, 50)).convert("CMYK"), "JPEG"),
    "RGB without transform": encode(smooth(40, 50), "JPEG", keep_rgb=True),
    "several pictures": encode(
        Image.fromarray(smooth(40, 50)), "MPO", save_all=True, append_images=[Image.fromarray(smooth(40, 50))]
    ),
    "an Adobe transform": insert(PHOTO, 0xFFEE, b"Adobe\0\x64\0\0\0\0\x01"),
    "EXIF in two pieces": insert(insert(PHOTO, 0xFFE1, EXIF), 0xFFE1, EXIF),
    "orientation in XMP": insert(
        PHOTO, 0xFFE1, b'http://ns.adobe.com/xap/1.0/\0<x tiff:Orientation="6">'
    ),
    "an unknown marker": insert(PHOTO, 0xFFF5, b"x"),
    "junk between segments": PHOTO[:2] + b"junk" + PHOTO[2:],
    "12 bits": PHOTO.replace(b"\xff\xc0\0\x11\x08", b"\xff\xc0\0\x11\x0c"),
    "no rows yet": PHOTO.replace(b"\xff\xc0\0\x11\x08\0\x28", b"\xff\xc0\0\x11\x08\0\0"),
    "lossless": PHOTO.replace(b"\xff\xc0\0\x11", b"\xff\xc3\0\x11"),
    "no scan": PHOTO[: PHOTO.index(b"\xff\xda")],
    "nothing": b"",
}  # fmt: skip


@pytest.mark.parametrize("name", OTHERWISE)
def test_what_is_not_plain_is_left_to_pillow(name: str) -> None:
    assert OTHERWISE[name] != PHOTO
    assert parse_plain_jpeg(OTHERWISE[name]) is None


def test_orientation_in_xmp_is_applied() -> None:
    assert decode(OTHERWISE["orientation in XMP"]).size == (40, 50)


@pytest.mark.parametrize("cut", [1, 2, 20, 50])
def test_what_libjpeg_only_warns_about_is_left_to_pillow(cut: int) -> None:
    data = PHOTO[:-cut]
    header = parse_plain_jpeg(data)

    assert header is not None
    assert decode_plain_jpeg(data, header, min_side=None) is None


@pytest.mark.parametrize("side", [1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17])
def test_tiny_pictures_keep_their_size(side: int) -> None:
    data = encode(picture(0, side, side + 1), "JPEG")

    np.testing.assert_array_equal(np.asarray(decode(data, min_side=1)), by_pillow(data, 1), strict=True)
    np.testing.assert_array_equal(np.asarray(decode(data)), by_pillow(data, None), strict=True)


def test_a_size_bomb_is_refused_before_anything_is_allocated() -> None:
    bomb = PHOTO.replace(b"\xff\xc0\0\x11\x08\0\x28\0\x32", b"\xff\xc0\0\x11\x08\xea\x60\xea\x60")

    with pytest.raises(ImageReadError, match=r"too large to be decoded: .*3600000000 pixels"):
        decode(bomb, min_side=224)
