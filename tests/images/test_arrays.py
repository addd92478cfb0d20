import numpy as np
import pytest

from bottleneck.errors import InvalidInputError
from bottleneck.images import ImageReadError, ImageSource, as_image_source, decode
from bottleneck.images import arrays as arrays_module

from .contract import SourceContract
from .samples import Pixels, picture


def pixels_of(stack: np.ndarray, **options: tuple[int, ...]) -> np.ndarray:
    source = as_image_source(stack, **options)
    return np.stack([np.asarray(decode(source.read(row))) for row in range(len(source))])


STACK = np.stack([picture(seed) for seed in range(3)])


class ArrayContract(SourceContract):
    @pytest.fixture
    def expected(self) -> list[Pixels]:
        return list(STACK)


class TestChannelsLast(ArrayContract):
    @pytest.fixture
    def source(self) -> ImageSource:
        return as_image_source(STACK)


class TestChannelsFirst(ArrayContract):
    @pytest.fixture
    def source(self) -> ImageSource:
        return as_image_source(STACK.transpose(0, 3, 1, 2))


class TestFloats(ArrayContract):
    @pytest.fixture
    def source(self) -> ImageSource:
        return as_image_source((STACK / 255).astype(np.float32))


class TestFlattened(ArrayContract):
    @pytest.fixture
    def source(self) -> ImageSource:
        return as_image_source(STACK.reshape(3, -1), image_shape=STACK.shape[1:])


class TestGrey(SourceContract):
    @pytest.fixture
    def expected(self) -> list[Pixels]:
        return list(STACK[..., :1].repeat(3, axis=-1))

    @pytest.fixture
    def source(self) -> ImageSource:
        return as_image_source(STACK[..., 0])


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_floats_are_rounded_to_the_nearest_level(dtype: type) -> None:
    levels = np.arange(256, dtype=np.uint8).reshape(1, 16, 16)

    np.testing.assert_array_equal(pixels_of((levels / 255).astype(dtype))[0, ..., 0], levels[0])


def test_grey_may_have_an_axis_of_its_own() -> None:
    grey = STACK[..., :1]

    np.testing.assert_array_equal(pixels_of(grey), pixels_of(grey[..., 0]))
    np.testing.assert_array_equal(pixels_of(grey.transpose(0, 3, 1, 2)), pixels_of(grey[..., 0]))


def test_flattened_rows_may_be_grey_or_in_any_memory_order() -> None:
    flat = np.asfortranarray(STACK[..., 0].reshape(3, -1))

    np.testing.assert_array_equal(pixels_of(flat, image_shape=(12, 17)), pixels_of(STACK[..., 0]))


def test_alpha_is_composited_on_white() -> None:
    rgba = np.zeros((1, 5, 6, 4), dtype=np.uint8)
    rgba[0, 0, 0] = (200, 100, 50, 255)

    pixels = pixels_of(rgba)

    np.testing.assert_array_equal(pixels[0, 0, 0], (200, 100, 50))
    assert (pixels[0, 1:] == 255).all()
    np.testing.assert_array_equal(pixels_of(rgba.transpose(0, 3, 1, 2)), pixels)


@pytest.mark.parametrize(
    "shape", [(2, 3, 8, 3), (2, 4, 8, 1), (2, 8, 8, 2), (2, 8, 8, 8), (2, 5, 5, 5, 5), (7,), (2, 0, 8, 3)]
)
def test_shapes_that_are_no_images_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(InvalidInputError, match="cannot be used"):
        as_image_source(np.zeros(shape, dtype=np.uint8))


def test_a_single_image_is_recognised_as_a_mistake() -> None:
    with pytest.raises(InvalidInputError, match=r"looks like a single image; pass X\[None\]"):
        as_image_source(picture(0))
    assert len(as_image_source(np.zeros((5, 4, 4), dtype=np.uint8))) == 5


def test_flattened_images_need_their_shape() -> None:
    with pytest.raises(InvalidInputError, match=r"image_shape=\(28, 28\)"):
        as_image_source(np.zeros((5, 784), dtype=np.uint8))
    with pytest.raises(InvalidInputError, match="must have 784 values"):
        as_image_source(np.zeros((5, 784), dtype=np.uint8), image_shape=(28, 27))
    with pytest.raises(InvalidInputError, match="height, width, channels"):
        as_image_source(np.zeros((5, 768), dtype=np.uint8), image_shape=(3, 16, 16))
    with pytest.raises(InvalidInputError, match="for flattened images"):
        as_image_source(STACK, image_shape=(12, 17, 3))


@pytest.mark.parametrize("dtype", [np.int64, np.uint16, np.bool_, np.complex64])
def test_other_types_of_numbers_say_what_to_do(dtype: type) -> None:
    with pytest.raises(InvalidInputError, match="must be uint8"):
        as_image_source(STACK.astype(dtype))


def test_floats_out_of_range_say_which_range() -> None:
    with pytest.raises(InvalidInputError, match=r"range from 0 to 255.*X / 255"):
        as_image_source(np.linspace(0, 255, 2 * 16).reshape(2, 4, 4))


def test_rows_with_nan_or_infinity_are_all_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrays_module, "BLOCK_VALUES", 64)
    stack = np.full((9, 5, 5), 0.5, dtype=np.float32)
    stack[2, 1, 1], stack[7, 0, 0], stack[8, 0, 0] = np.nan, np.inf, 2

    with pytest.raises(InvalidInputError) as error:
        as_image_source(stack)

    assert "row 2: NaN" in str(error.value)
    assert "row 7: NaN" in str(error.value)
    assert "from 0 to 2" in str(error.value)
    assert "row 3" not in str(error.value)


def test_an_array_that_changes_after_the_check_is_an_error_of_its_image() -> None:
    stack = np.full((2, 5, 5), 0.5)
    source = as_image_source(stack)
    stack[1] = np.nan

    with pytest.raises(ImageReadError, match="within 0 to 1"):
        source.read(1)
