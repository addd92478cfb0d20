from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from bottleneck.images import ImageReadError, decode

from .samples import TAG_BEYOND_THE_END, encode, jpeg_with_exif, picture, png_header, smooth, webp_header

FIRST, SECOND = Image.fromarray(picture(0)), Image.fromarray(picture(1))
UNDO = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a.transpose(1, 0, 2)[::-1, ::-1],
    8: lambda a: np.rot90(a),
}


def with_orientation(pixels: np.ndarray, orientation: object, kind: str = "PNG") -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encode(pixels, kind, exif=exif)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", UNDO)
def test_every_exif_orientation_is_applied(orientation: int, kind: str) -> None:
    options = {"lossless": True} if kind == "WEBP" else {}
    exif = Image.Exif()
    exif[0x0112] = orientation

    decoded = decode(encode(FIRST, kind, exif=exif, **options))

    np.testing.assert_array_equal(np.asarray(decoded), UNDO[orientation](picture(0)))


def test_orientation_agrees_with_pillow(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    for orientation in UNDO:
        path.write_bytes(with_orientation(picture(0), orientation, "JPEG"))
        with Image.open(path) as image:
            expected = np.asarray(ImageOps.exif_transpose(image))

        np.testing.assert_array_equal(np.asarray(decode(path.read_bytes())), expected)


@pytest.mark.parametrize("exif", [b"", b"junk", b"II*\0\xff\xff\xff\x7f", b"MM\0*\0\0\0\x08\0\x05", TAG_BEYOND_THE_END])
def test_damaged_metadata_does_not_matter(exif: bytes) -> None:
    decoded = decode(jpeg_with_exif(picture(0), exif))

    np.testing.assert_array_equal(np.asarray(decoded), np.asarray(decode(encode(picture(0), "JPEG", quality=95))))


def test_impossible_orientations_mean_upright() -> None:
    assert decode(with_orientation(picture(0), 9)).size == FIRST.size
    assert decode(with_orientation(picture(0), 0)).size == FIRST.size


@pytest.mark.parametrize("kind", ["GIF", "PNG", "TIFF", "WEBP"])
def test_animations_and_pages_give_their_first_frame(kind: str) -> None:
    options = {"WEBP": {"lossless": True}}.get(kind, {})
    first = FIRST.quantize(200) if kind == "GIF" else FIRST

    decoded = decode(encode(first, kind, save_all=True, append_images=[SECOND], **options))

    np.testing.assert_array_equal(np.asarray(decoded), np.asarray(first.convert("RGB")))


def test_multi_picture_photographs_give_their_first_picture() -> None:
    mpo = encode(FIRST, "MPO", save_all=True, append_images=[SECOND])

    np.testing.assert_array_equal(np.asarray(decode(mpo)), np.asarray(decode(encode(FIRST, "JPEG"))))


def test_pixels_are_an_image_already() -> None:
    np.testing.assert_array_equal(np.asarray(decode(picture(0))), picture(0))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", r"the file is empty \(0 bytes\)"),
        (b"<!DOCTYPE html><html><body>404</body></html>", "an HTML page"),
        (b"\xef\xbb\xbf\n <HTML>", "an HTML page"),
        (b"%PDF-1.7 ...", "a PDF document"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "git lfs pull"),
        (b"\0\0\0\x18ftypheic\0\0\0\0", "HEIF"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n", "PostScript"),
        (b"hello world, I am text", r"does not know the format \(the first bytes are b'hello world,'\)"),
        (b"\x00" * 100, "not an image"),
        (png_header(20000, 20000), "too large to be decoded: .*400000000 pixels"),
        (png_header(10000, 10000), "too large to be decoded: 10000 x 10000 pixels"),
        (webp_header(16383, 16383), "too large to be decoded: .*268402689 pixels"),
        (webp_header(10000, 10000), "too large to be decoded: 10000 x 10000 pixels"),
        (png_header(10, 10), "damaged image"),
    ],
)
def test_what_cannot_be_decoded_says_why_in_words(data: bytes, reason: str) -> None:
    with pytest.raises(ImageReadError, match=reason):
        decode(data)


def test_the_limit_of_pillow_can_be_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    data = encode(picture(0))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 150)
    with pytest.raises(ImageReadError, match="17 x 12 pixels, the limit is 150"):
        decode(data)

    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    assert decode(data).size == (17, 12)


FORMATS = {
    "jpeg": ("JPEG", {}),
    "progressive": ("JPEG", {"progressive": True}),
    "png": ("PNG", {}),
    "gif": ("GIF", {}),
    "bmp": ("BMP", {}),
    "webp": ("WEBP", {}),
    "lossless webp": ("WEBP", {"lossless": True}),
    "tiff": ("TIFF", {}),
    "packed tiff": ("TIFF", {"compression": "tiff_deflate"}),
    "ppm": ("PPM", {}),
}


@pytest.mark.parametrize("name", FORMATS)
def test_a_file_cut_off_anywhere_is_an_error_or_whole(name: str) -> None:
    kind, options = FORMATS[name]
    data = encode(picture(0, 40, 50), kind, **options)
    whole = np.asarray(decode(data))
    cuts = [*range(1, 40, 7), *np.linspace(40, len(data) - 1, 12).astype(int), len(data) - 2, len(data) - 8]

    errors = 0
    for cut in cuts:
        try:
            decoded = decode(data[:cut])
        except ImageReadError:
            errors += 1
        else:
            np.testing.assert_array_equal(np.asarray(decoded), whole)

    assert errors >= 10


def test_damaged_files_never_raise_anything_else() -> None:
    rng = np.random.default_rng(0)
    for kind in ("JPEG", "PNG", "GIF", "BMP", "WEBP", "PPM", "MPO", "ICO", "TGA"):
        data = encode(picture(0, 40, 50), kind)
        for _ in range(60):
            damaged = bytearray(data)
            for position in rng.integers(0, min(len(data), 300), 5):
                damaged[position] = rng.integers(256)
            try:
                assert decode(bytes(damaged), min_side=8).mode == "RGB"
            except ImageReadError as exc:
                assert exc.reason  # noqa: PT017 (either outcome is right)


def test_large_jpegs_are_decoded_no_larger_than_the_margin_asks() -> None:
    pixels = smooth(1600, 2400)
    data = encode(pixels, "JPEG", quality=90)

    assert decode(data, min_side=80).size == (300, 200)
    assert decode(data, min_side=81).size == (600, 400)
    assert decode(data, min_side=161).size == (1200, 800)
    assert decode(data, min_side=267).size == decode(data).size == (2400, 1600)
    assert decode(encode(pixels[:160, :240]), min_side=10).size == (240, 160)


def test_rotated_and_multi_picture_jpegs_are_decoded_small_too() -> None:
    pixels = smooth(800, 1200)
    mpo = encode(Image.fromarray(pixels), "MPO", save_all=True, append_images=[FIRST])

    assert decode(with_orientation(pixels, 6, "JPEG"), min_side=40).size == (100, 150)
    assert decode(mpo, min_side=40).size == (150, 100)


@pytest.mark.shared
def test_small_decoding_stays_near_whole_decoding(shared: Path) -> None:
    paths = sorted((shared / "data" / "large_photos").glob("*.jpg"))
    assert paths
    for path in paths:
        data = path.read_bytes()
        whole, small = decode(data), decode(data, min_side=160)

        assert min(small.size) >= 2.5 * 160
        assert small.width < whole.width
        assert small.height < whole.height
        assert whole.width / whole.height == pytest.approx(small.width / small.height, rel=0.01)
        size = (160, 160)
        difference = np.asarray(whole.resize(size, Image.Resampling.BILINEAR), dtype=int) - np.asarray(
            small.resize(size, Image.Resampling.BILINEAR)
        )
        assert np.abs(difference).mean() < 2, path.name
