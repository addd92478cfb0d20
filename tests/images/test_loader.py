import gc
import os
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from bottleneck.images import Content, as_image_source, content_key, content_keys, load_batch, load_batches

from .samples import (
    FakeSource,
    encode,
    no_preprocess,
    picture,
    pictures_source,
    png_header,
    smooth,
    webp_header,
    write_pictures,
)

WORKERS = pytest.mark.parametrize("workers", [0, 1, 5])


def threads() -> set[str]:
    return {thread.name for thread in threading.enumerate() if thread.name.startswith("bottleneck-images")}


@WORKERS
@pytest.mark.parametrize("batch_size", [1, 4, 100])
def test_batches_hold_the_rows_in_order(workers: int, batch_size: int) -> None:
    rows = np.random.default_rng(0).permutation(23)

    batches = list(
        load_batches(pictures_source(23), rows, preprocess=no_preprocess, batch_size=batch_size, workers=workers)
    )

    assert [len(batch.rows) for batch in batches[:-1]] == [batch_size] * (len(batches) - 1)
    np.testing.assert_array_equal(np.concatenate([batch.rows for batch in batches]), rows)
    for batch in batches:
        for row, key, pixels in zip(batch.rows, batch.keys, batch.pixels, strict=True):
            np.testing.assert_array_equal(pixels, picture(row).transpose(2, 0, 1))
            assert key.tobytes() == content_key(picture(row))


@WORKERS
def test_a_failed_image_never_shifts_rows(workers: int) -> None:
    source = pictures_source(20, bad=frozenset({1, 4, 5, 6, 7, 19}))

    batches = list(load_batches(source, range(20), preprocess=no_preprocess, batch_size=4, workers=workers))

    assert [batch.rows.tolist() for batch in batches] == [[0, 2, 3], [], [8, 9, 10, 11], [12, 13, 14, 15], [16, 17, 18]]
    assert [[failure.row for failure in batch.failures] for batch in batches] == [[1], [4, 5, 6, 7], [], [], [19]]
    assert batches[0].failures[0].id == "picture 1"
    assert batches[0].failures[0].reason == "1 is bad"
    assert batches[1].pixels.shape == (0, 3, 0, 0)
    assert batches[1].keys.shape == (0, 16)
    for batch in batches:
        for row, pixels in zip(batch.rows, batch.pixels, strict=True):
            np.testing.assert_array_equal(pixels, picture(row).transpose(2, 0, 1))


def test_one_batch_is_what_the_batches_are() -> None:
    source = pictures_source(12, bad=frozenset({2, 3}))
    rows = [7, 2, 0, 3, 11]

    batch = load_batch(source, rows, preprocess=no_preprocess)

    (expected,) = load_batches(source, rows, preprocess=no_preprocess, batch_size=5, workers=1)
    assert batch.rows.tolist() == [7, 0, 11]
    assert batch.failures == expected.failures
    np.testing.assert_array_equal(batch.keys, expected.keys)
    np.testing.assert_array_equal(batch.pixels, expected.pixels)


def test_one_batch_is_loaded_in_the_calling_thread() -> None:
    seen = []

    def content(row: int) -> Content:
        seen.append(threading.current_thread())
        return picture(row)

    load_batch(FakeSource(content, ["a", "b"]), [0, 1], preprocess=no_preprocess)

    assert seen == [threading.current_thread()] * 2


def test_one_batch_of_bad_images_is_empty() -> None:
    batch = load_batch(pictures_source(2, bad=frozenset({0, 1})), [0, 1], preprocess=no_preprocess)

    assert batch.pixels.shape == (0, 3, 0, 0)
    assert [failure.row for failure in batch.failures] == [0, 1]


def test_one_batch_raises_what_is_not_about_one_image() -> None:
    def content(row: int) -> Content:
        raise MemoryError("stop")

    with pytest.raises(MemoryError):
        load_batch(FakeSource(content, ["a"]), [0], preprocess=no_preprocess)


@WORKERS
def test_batches_lie_in_memory_with_channels_last(workers: int) -> None:
    batches = load_batches(pictures_source(4), range(4), preprocess=no_preprocess, batch_size=3, workers=workers)

    for batch in batches:
        assert torch.from_numpy(batch.pixels).is_contiguous(memory_format=torch.channels_last)


def test_pixels_of_a_batch_may_be_written_to() -> None:
    batch = load_batch(pictures_source(1), [0], preprocess=no_preprocess)

    assert batch.pixels.flags.writeable


def test_images_of_several_sizes_are_an_error_of_the_preprocessing() -> None:
    source = FakeSource(lambda row: picture(row, 1 + row, 1), ["a", "b"])

    with pytest.raises(ValueError, match="same shape"):
        load_batch(source, [0, 1], preprocess=no_preprocess)


def test_every_kind_of_bad_file_is_a_failure_with_a_clear_reason(tmp_path: Path) -> None:
    photograph = encode(smooth(40, 50), "JPEG")
    (tmp_path / "folder.jpg").mkdir()
    contents = {
        "good.jpg": photograph,
        "truncated.jpg": photograph[:-200],
        "page.jpg": b"<!DOCTYPE html><html><body>404</body></html>",
        "empty.jpg": b"",
        "bomb.png": png_header(20000, 20000),
        "bomb.webp": webp_header(16383, 16383),
        os.fsdecode(b"caf\xe9.jpg"): b"nothing",
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    names = [*contents, "folder.jpg", "gone.jpg"]
    source = as_image_source([str(tmp_path / name) for name in names])

    batch = load_batch(source, range(len(names)), preprocess=no_preprocess)

    reasons = {Path(failure.id).name: failure.reason for failure in batch.failures}
    assert batch.rows.tolist() == [0]
    assert "truncated" in reasons["truncated.jpg"]
    assert "HTML page" in reasons["page.jpg"]
    assert "0 bytes" in reasons["empty.jpg"]
    assert "too large" in reasons["bomb.png"]
    assert "too large" in reasons["bomb.webp"]
    assert "not an image" in reasons["caf\\udce9.jpg"]
    assert "a folder" in reasons["folder.jpg"]
    assert "no such file" in reasons["gone.jpg"]


@WORKERS
def test_a_file_that_vanishes_during_the_run_is_a_failure_of_its_row(workers: int, tmp_path: Path) -> None:
    paths = write_pictures(tmp_path, [f"{i:03d}.png" for i in range(60)])
    batches = load_batches(as_image_source(paths), range(60), preprocess=no_preprocess, batch_size=4, workers=workers)

    first = next(batches)
    Path(paths[59]).unlink()
    rest = list(batches)

    assert first.rows.tolist() == [0, 1, 2, 3]
    assert np.concatenate([batch.rows for batch in rest]).tolist() == list(range(4, 59))
    assert [(failure.row, failure.reason) for failure in rest[-1].failures] == [(59, "no such file")]


def test_an_image_that_does_not_decode_is_a_failure_of_its_row() -> None:
    source = FakeSource(lambda row: encode(picture(row)) if row != 1 else b"<html>", ["a", "b", "c"])

    (batch,) = load_batches(source, [0, 1, 2], preprocess=no_preprocess, batch_size=8, workers=2)

    assert batch.rows.tolist() == [0, 2]
    assert "HTML" in batch.failures[0].reason


def test_keys_are_of_the_bytes_that_were_decoded() -> None:
    contents = [encode(picture(0)), encode(picture(1))]
    reads = iter(contents)
    source = FakeSource(lambda row: next(reads), ["a"])  # the file changes between two reads

    (batch,) = load_batches(source, [0], preprocess=no_preprocess, batch_size=1, workers=0)

    assert batch.keys[0].tobytes() == content_key(contents[0])
    np.testing.assert_array_equal(batch.pixels[0], picture(0).transpose(2, 0, 1))


def test_large_jpegs_are_decoded_small_when_that_is_enough() -> None:
    data = encode(np.zeros((800, 1200, 3), dtype=np.uint8), "JPEG")
    source = FakeSource(lambda row: data, ["a"])

    (batch,) = load_batches(source, [0], preprocess=no_preprocess, batch_size=1, workers=0, decode_min_side=40)

    assert batch.pixels.shape == (1, 3, 100, 150)


def test_look_ahead_is_bounded() -> None:
    source = pictures_source(1000)
    batches = load_batches(source, range(1000), preprocess=no_preprocess, batch_size=10, workers=2)

    next(batches)
    time.sleep(0.2)

    assert 10 < len(source.seen) <= 31
    batches.close()


def test_nothing_is_read_before_the_first_batch_is_asked_for() -> None:
    source = pictures_source(10)

    load_batches(source, range(10), preprocess=no_preprocess, batch_size=2, workers=2)

    assert source.seen == []
    assert not threads()


def test_closing_early_stops_the_threads() -> None:
    source = pictures_source(1000)
    batches = load_batches(source, range(1000), preprocess=no_preprocess, batch_size=10, workers=3)
    next(batches)
    assert threads()

    batches.close()

    assert not threads()
    assert len(source.seen) < 100


def test_leaving_the_loop_stops_the_threads() -> None:
    for _ in load_batches(pictures_source(1000), range(1000), preprocess=no_preprocess, batch_size=10, workers=3):
        break
    gc.collect()

    assert not threads()


@WORKERS
@pytest.mark.parametrize("error", [MemoryError, KeyError, KeyboardInterrupt])
def test_an_exception_that_is_not_about_one_image_is_raised(workers: int, error: type[BaseException]) -> None:
    def content(row: int) -> Content:
        if row == 7:
            raise error("stop")
        return picture(row)

    source = FakeSource(content, [str(row) for row in range(50)])

    batches = load_batches(source, range(50), preprocess=no_preprocess, batch_size=4, workers=workers)

    assert next(batches).rows.tolist() == [0, 1, 2, 3]
    with pytest.raises(error):
        next(batches)
    assert not threads()


@WORKERS
def test_an_error_of_the_preprocessing_is_raised(workers: int) -> None:
    def preprocess(image: np.ndarray) -> np.ndarray:
        raise ValueError("no such size")

    with pytest.raises(ValueError, match="no such size"):
        list(load_batches(pictures_source(5), range(5), preprocess=preprocess, batch_size=2, workers=workers))


def test_names_that_are_no_utf8_can_be_shown() -> None:
    source = FakeSource(lambda row: b"", ["caf\udce9.jpg"])

    (batch,) = load_batches(source, [0], preprocess=no_preprocess, batch_size=1, workers=0)

    assert batch.failures[0].id == "caf\\udce9.jpg"


@WORKERS
def test_content_keys_are_those_of_the_batches(workers: int) -> None:
    source = pictures_source(9, bad=frozenset({3}))
    rows = [5, 3, 8, 0]

    keys, failures = content_keys(source, rows, workers=workers)

    expected = [bytes(16) if row == 3 else content_key(picture(row)) for row in rows]
    assert [key.tobytes() for key in keys] == expected
    assert [failure.row for failure in failures] == [3]
    assert content_keys(source, [], workers=workers)[0].shape == (0, 16)
