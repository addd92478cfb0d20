import numpy as np
import pytest
from PIL import Image

from bottleneck.images import ImageReadError, decode
from bottleneck.images.modes import to_rgb

from .samples import encode, picture, smooth


def rgb(image: Image.Image) -> np.ndarray:
    converted = to_rgb(image)
    assert converted.mode == "RGB"
    return np.asarray(converted)


EVERY_MODE = (
    *("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX"),
    *("CMYK", "YCbCr", "LAB", "HSV", "I", "I;16", "I;16L", "I;16B", "I;16N", "F"),
)


@pytest.mark.parametrize("mode", EVERY_MODE)
def test_every_mode_of_pillow_becomes_rgb(mode: str) -> None:
    assert rgb(Image.new(mode, (3, 2))).shape == (2, 3, 3)


def test_rgb_stays_as_it_is() -> None:
    np.testing.assert_array_equal(rgb(Image.fromarray(picture(0))), picture(0))


@pytest.mark.parametrize("mode", ["L", "1", "LA"])
def test_grey_fills_all_channels(mode: str) -> None:
    image = Image.fromarray(picture(0)[..., 0]).convert(mode)

    np.testing.assert_array_equal(rgb(image), np.asarray(image.convert("L"))[..., None].repeat(3, axis=-1))


def test_palettes_are_looked_up() -> None:
    image = Image.fromarray(picture(0)).quantize(7)

    np.testing.assert_array_equal(rgb(image), np.asarray(image.convert("RGB")))


def composite(pixels: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    share = alpha[..., None] / 255
    return share * pixels + (1 - share) * 255


@pytest.mark.parametrize("mode", ["RGBA", "LA", "RGBa", "La"])
def test_alpha_is_composited_on_white(mode: str) -> None:
    pixels, alpha = picture(0)[..., :1].repeat(3, axis=-1), picture(1)[..., 0]
    straight = Image.fromarray(np.dstack([pixels, alpha])).convert({"La": "LA"}.get(mode, "RGBA"))
    premultiplied = mode in ("RGBa", "La")
    image = straight.convert(mode)

    # Premultiplied values are rounded to whole levels, and so is what they are turned back into.
    np.testing.assert_allclose(rgb(image), composite(pixels, alpha), atol=2 if premultiplied else 1)


def test_a_palette_with_alpha_is_composited_on_white() -> None:
    image = Image.fromarray(picture(0)).quantize(4)
    image.info["transparency"] = bytes([0, 100, 200, 255])
    index = np.asarray(image)
    colours = np.array(image.getpalette()).reshape(-1, 3)[index]

    alpha = np.array([0, 100, 200, 255])[index]

    np.testing.assert_allclose(rgb(image), composite(colours, alpha), atol=1)


@pytest.mark.parametrize("kind", ["PNG", "GIF"])
def test_a_transparent_palette_entry_is_white(kind: str) -> None:
    image = Image.new("P", (4, 4), 0)
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.putpixel((1, 2), 1)

    pixels = np.asarray(decode(encode(image, kind, transparency=0)))

    np.testing.assert_array_equal(pixels[2, 1], (200, 100, 50))
    assert (np.delete(pixels.reshape(-1, 3), 9, axis=0) == 255).all()


@pytest.mark.parametrize(("mode", "key"), [("L", 7), ("RGB", (1, 2, 3)), ("1", 0), ("I;16", 700)])
def test_a_transparent_colour_is_white(mode: str, key: object) -> None:
    if mode == "I;16":
        image = Image.fromarray(np.full((3, 3), 700, dtype=np.uint16))
        image.putpixel((0, 0), 65535 // 3)
    else:
        image = Image.new(mode, (3, 3), key)
        image.putpixel((0, 0), {"L": 85, "RGB": (85, 85, 85), "1": 255}[mode])

    pixels = np.asarray(decode(encode(image, transparency=key)))

    assert (pixels[0, 0] == (255 if mode == "1" else 85)).all()
    assert (pixels[1:] == 255).all()


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_16_bit_grey_is_scaled_to_8_bits(kind: str) -> None:
    values = np.linspace(0, 65535, 48).astype(np.uint16).reshape(6, 8)

    pixels = np.asarray(decode(encode(Image.fromarray(values), kind)))

    np.testing.assert_array_equal(pixels[..., 0], np.rint(values / 257))


def test_integers_beyond_16_bits_are_an_error() -> None:
    for values in ([[0, 70000]], [[-1, 5]]):
        with pytest.raises(ImageReadError, match=f"from {min(values[0])} to {max(values[0])}"):
            to_rgb(Image.fromarray(np.array(values, dtype=np.int32)))


def test_floats_are_scaled_from_0_to_1() -> None:
    values = np.linspace(0, 1, 256, dtype=np.float32).reshape(16, 16)

    pixels = np.asarray(decode(encode(Image.fromarray(values), "TIFF")))

    np.testing.assert_array_equal(pixels[..., 0].ravel(), np.arange(256))


@pytest.mark.parametrize("extreme", [-0.5, 255.0, np.nan, np.inf])
def test_floats_beyond_0_to_1_are_an_error(extreme: float) -> None:
    with pytest.raises(ImageReadError, match="within 0 to 1"):
        to_rgb(Image.fromarray(np.array([[0.5, extreme]], dtype=np.float32)))


def test_inverted_cmyk_of_jpeg_files_is_set_right() -> None:
    pixels = smooth(40, 56)

    decoded = np.asarray(decode(encode(Image.fromarray(pixels).convert("CMYK"), "JPEG", quality=95)))

    assert np.abs(decoded.astype(int) - pixels).mean() < 3


def test_cmyk_of_tiff_files_is_converted() -> None:
    image = Image.fromarray(picture(0)).convert("CMYK")

    np.testing.assert_array_equal(np.asarray(decode(encode(image, "TIFF"))), picture(0))
