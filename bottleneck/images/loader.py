"""Batches of preprocessed images and their keys: read, decoded and resized in threads, in the order of the rows."""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from bottleneck.errors import ImageFailure
from bottleneck.images.content import KEY_SIZE, ImageReadError, content_key
from bottleneck.images.decode import decode_pixels
from bottleneck.images.source import ImageSource

Result = TypeVar("Result")

Preprocessing = Callable[[NDArray[np.uint8]], NDArray[np.uint8]]
"""From RGB pixels (height, width, 3) to uint8 (3, h, w), the same h and w for every image."""

LOOK_AHEAD = 2
"""Batches that are prepared while the network works on one: enough to ride out a slow batch, and little memory."""

ROWS_PER_WORKER = 4
"""The least number of rows under way for each worker, so that small batches leave none idle."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class ImageBatch:
    """The images of consecutive rows that could be used, and those that could not.

    Attributes
    ----------
    rows : ndarray of int64 (n,)
        Their rows in the source.
    keys : ndarray of uint8 (n, 16)
        Their content keys.
    pixels : ndarray of uint8 (n, 3, h, w)
        Preprocessed images, a view of memory in the order (n, h, w, 3), which torch calls channels_last;
        (0, 3, 0, 0) when every image failed.
    failures : tuple of ImageFailure
        The images that are missing above.
    """

    rows: NDArray[np.int64]
    keys: NDArray[np.uint8]
    pixels: NDArray[np.uint8]
    failures: tuple[ImageFailure, ...]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Loaded:
    """One image that could be used."""

    row: int
    key: bytes
    pixels: NDArray[np.uint8]


def load_batches(
    source: ImageSource,
    rows: Sequence[int] | NDArray[np.integer],
    *,
    preprocess: Preprocessing,
    batch_size: int,
    workers: int,
    decode_min_side: int | None = None,
) -> Generator[ImageBatch]:
    """Yield one batch for every ``batch_size`` consecutive rows, in their order.

    Parameters
    ----------
    preprocess : callable
        From RGB pixels (height, width, 3) to uint8 (3, h, w), the same h and w for every image.
    workers : int
        Threads; 0 means in the calling thread. A few batches are loaded ahead. Closing the iterator stops them.
    decode_min_side : int, optional
        The shorter side that `preprocess` needs: see `decode`.

    Notes
    -----
    An image that cannot be read or decoded becomes one of the batch's failures. Any other exception is raised.
    """

    def load(row: int) -> _Loaded | ImageFailure:
        return _load_row(source, row, preprocess=preprocess, decode_min_side=decode_min_side)

    with closing(_map_in_order(load, rows, workers=workers, ahead=LOOK_AHEAD * batch_size)) as loaded:
        while batch := list(islice(loaded, batch_size)):
            yield _as_batch(batch)


def load_batch(
    source: ImageSource,
    rows: Sequence[int] | NDArray[np.integer],
    *,
    preprocess: Preprocessing,
    decode_min_side: int | None = None,
) -> ImageBatch:
    """Return one batch of these rows, loaded in the calling thread; failures and parameters as in `load_batches`."""
    return _as_batch(
        [_load_row(source, int(row), preprocess=preprocess, decode_min_side=decode_min_side) for row in rows]
    )


def content_keys(
    source: ImageSource, rows: Sequence[int] | NDArray[np.integer], *, workers: int
) -> tuple[NDArray[np.uint8], tuple[ImageFailure, ...]]:
    """Return the content keys (n, 16) of rows, without decoding; zeros for those that cannot be read, listed too."""

    def key_of(row: int) -> bytes | ImageFailure:
        try:
            return content_key(source.read(row))
        except ImageReadError as exc:
            return _failure(source, row, exc)

    keys = np.zeros((len(rows), KEY_SIZE), dtype=np.uint8)
    failures = []
    for i, found in enumerate(_map_in_order(key_of, rows, workers=workers, ahead=0)):
        if isinstance(found, ImageFailure):
            failures.append(found)
        else:
            keys[i] = np.frombuffer(found, dtype=np.uint8)
    return keys, tuple(failures)


def _map_in_order(
    function: Callable[[int], Result], rows: Iterable[int], *, workers: int, ahead: int
) -> Generator[Result]:
    """Yield the function of each row, computed in threads that run at most ``ahead`` rows (or a few each) ahead."""
    if workers == 0:
        yield from (function(int(row)) for row in rows)
        return
    ahead = max(ahead, ROWS_PER_WORKER * workers)
    pool = ThreadPoolExecutor(workers, thread_name_prefix="bottleneck-images")
    waiting: deque[Future[Result]] = deque()
    try:
        for row in rows:
            waiting.append(pool.submit(function, int(row)))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:  # also when the consumer stops early or is interrupted
        pool.shutdown(wait=True, cancel_futures=True)


def _load_row(
    source: ImageSource,
    row: int,
    *,
    preprocess: Preprocessing,
    decode_min_side: int | None,
) -> _Loaded | ImageFailure:
    try:
        content = source.read(row)
        image = decode_pixels(content, min_side=decode_min_side)
    except ImageReadError as exc:
        return _failure(source, row, exc)
    return _Loaded(row=row, key=content_key(content), pixels=preprocess(image))


def _failure(source: ImageSource, row: int, exc: ImageReadError) -> ImageFailure:
    return ImageFailure(row=row, id=_printable(source.ids[row]), reason=_printable(exc.reason))


def _printable(text: str) -> str:
    """Return a text that every stream can show; bytes of a file name that are no UTF-8 become escapes."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _as_batch(loaded: Sequence[_Loaded | ImageFailure]) -> ImageBatch:
    images = [item for item in loaded if isinstance(item, _Loaded)]
    return ImageBatch(
        rows=np.array([image.row for image in images], dtype=np.int64),
        keys=np.frombuffer(b"".join(image.key for image in images), dtype=np.uint8).reshape(-1, KEY_SIZE),
        pixels=_channels_last([image.pixels for image in images]),
        failures=tuple(item for item in loaded if isinstance(item, ImageFailure)),
    )


def _channels_last(images: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    if not images:
        return np.empty((0, 3, 0, 0), dtype=np.uint8)
    channels, height, width = images[0].shape
    together = np.empty((len(images), height, width, channels), dtype=np.uint8)
    return np.stack([image.transpose(1, 2, 0) for image in images], out=together).transpose(0, 3, 1, 2)
