import numpy as np
import pytest
from PIL import Image

from bottleneck.images.upright import orientation_in, upright

from .samples import TAG_BEYOND_THE_END, picture

TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@pytest.mark.parametrize("orientation", TRANSPOSE)
@pytest.mark.parametrize("size", [(3, 5), (128, 2), (300, 257)])
def test_each_orientation_is_undone_as_pillow_does(orientation: int, size: tuple[int, int]) -> None:
    pixels = picture(0, *size)

    turned = upright(pixels, orientation)

    np.testing.assert_array_equal(turned, np.asarray(Image.fromarray(pixels).transpose(TRANSPOSE[orientation])))
    assert turned.flags.c_contiguous


@pytest.mark.parametrize("orientation", [-1, 0, 1, 9])
def test_upright_pixels_are_not_copied(orientation: int) -> None:
    pixels = picture(0)

    assert upright(pixels, orientation) is pixels


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_read_from_metadata(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x010F] = "maker"
    exif[0x0112] = orientation

    assert orientation_in(exif.tobytes()) == orientation


@pytest.mark.parametrize("exif", [b"", b"Exif\0\0", b"Exif\0\0junk", b"MM\0*\0\0\0\x08\0\x05", TAG_BEYOND_THE_END])
def test_damaged_metadata_means_upright(exif: bytes) -> None:
    assert orientation_in(exif) == 1
