from hashlib import blake2b
from pathlib import Path

import numpy as np

from bottleneck.errors import TransferError
from bottleneck.images import ImageReadError, as_image_source, content_key

from .samples import encode, picture


def test_key_of_a_file_is_the_hash_of_its_bytes() -> None:
    data = encode(picture(0))

    assert content_key(data) == blake2b(data, digest_size=16).digest()


def test_a_renamed_file_keeps_its_key(tmp_path: Path) -> None:
    first, second = tmp_path / "a.png", tmp_path / "b.jpg"
    first.write_bytes(encode(picture(0)))
    before = content_key(as_image_source(str(first)).read(0))

    first.rename(second)

    assert content_key(as_image_source(str(second)).read(0)) == before


def test_the_same_bytes_in_another_shape_have_another_key() -> None:
    values = np.arange(18, dtype=np.uint8)

    assert content_key(values.reshape(2, 3, 3)) != content_key(values.reshape(3, 2, 3))


def test_pixels_never_share_a_key_with_a_file() -> None:
    pixels = picture(0)
    shape = np.array(pixels.shape, dtype="<i8").tobytes()

    assert content_key(pixels) not in {content_key(pixels.tobytes()), content_key(shape + pixels.tobytes())}


def test_key_does_not_depend_on_the_memory_layout() -> None:
    pixels = picture(0)

    assert content_key(np.asfortranarray(pixels)) == content_key(pixels)


def test_read_error_carries_its_reason() -> None:
    error = ImageReadError("no such file")

    assert error.reason == str(error) == "no such file"
    assert isinstance(error, TransferError)
