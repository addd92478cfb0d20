import warnings
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO

import pytest
from PIL import Image, ImageFile

from bottleneck.images import ImageReadError, decode
from bottleneck.images.pillow import strict_pillow

from .samples import TAG_BEYOND_THE_END, encode, jpeg_with_exif, picture

WARNED_ABOUT = jpeg_with_exif(picture(0), TAG_BEYOND_THE_END)


def test_pillow_does_warn_about_the_file_of_these_tests() -> None:
    with pytest.warns(UserWarning, match="Skipping tag 271"):
        Image.open(BytesIO(WARNED_ABOUT)).getexif()


def test_warnings_of_pillow_are_silent_in_every_thread() -> None:
    before = list(warnings.filters)

    with ThreadPoolExecutor(8) as pool:
        sizes = set(pool.map(lambda data: decode(data).size, [WARNED_ABOUT] * 400))

    assert sizes == {(17, 12)}
    assert list(warnings.filters) == before


def test_warnings_of_others_are_not_silenced() -> None:
    with strict_pillow(), pytest.warns(UserWarning, match="mine"):
        warnings.warn("mine", stacklevel=1)


def test_no_filter_is_left_behind_when_others_change_filters_meanwhile() -> None:
    before = list(warnings.filters)

    first, second, theirs = strict_pillow(), strict_pillow(), warnings.catch_warnings()
    first.__enter__()
    theirs.__enter__()
    warnings.simplefilter("error")
    second.__enter__()
    Image.open(BytesIO(WARNED_ABOUT)).getexif()
    first.__exit__(None, None, None)
    second.__exit__(None, None, None)
    theirs.__exit__(None, None, None)

    assert list(warnings.filters) == before


def test_filters_set_inside_the_block_survive_it() -> None:
    with warnings.catch_warnings():
        with strict_pillow():
            warnings.filterwarnings("ignore", message="theirs")
        assert "theirs" in str(warnings.filters[0][1])
        assert not any("PIL" in str(entry[3]) for entry in warnings.filters)


def test_truncated_files_are_errors_even_where_pillow_is_told_to_allow_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    data = encode(picture(0, 200, 200), "JPEG")

    with pytest.raises(ImageReadError, match="truncated"):
        decode(data[: len(data) // 2])

    assert ImageFile.LOAD_TRUNCATED_IMAGES


@pytest.mark.parametrize(
    ("complaint", "reason"),
    [
        (OSError("cannot read"), "damaged image: cannot read"),
        (SyntaxError("broken PNG"), "damaged image: broken PNG"),
        (KeyError("x"), r"damaged image: the decoder stopped with KeyError \('x'\)"),
        (UserWarning("odd"), "damaged image: odd"),
        (OSError(), "the decoder stopped with OSError"),
        (Image.DecompressionBombError("1000 pixels"), "too large to be decoded: 1000 pixels"),
    ],
)
def test_complaints_become_reasons_in_words(complaint: Exception, reason: str) -> None:
    with pytest.raises(ImageReadError, match=reason), strict_pillow():
        raise complaint


@pytest.mark.parametrize("other", [MemoryError, KeyboardInterrupt])
def test_what_is_not_about_the_image_passes_through(other: type[BaseException]) -> None:
    with pytest.raises(other), strict_pillow():
        raise other
