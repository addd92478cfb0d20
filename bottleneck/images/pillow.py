"""How this unit calls Pillow: from many threads, silently, strictly, and with failures in plain words."""

import re
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock
from typing import cast

from PIL import Image, ImageFile

from bottleneck.images.content import ImageReadError

# Here and not on first use: plugins that are imported from several threads at once are not seen by all of them.
Image.init()

_WORDED = (OSError, SyntaxError, ValueError, RuntimeError, Warning)
_DAMAGE = (
    *_WORDED,
    TypeError,
    LookupError,
    AttributeError,
    ArithmeticError,
    AssertionError,
    EOFError,
    struct.error,
    zlib.error,
)
"""What Pillow's decoders raise on damaged files, with a sentence or without; only calls into Pillow run under it.

Warnings are among them for the moment at which another thread changes the filters back, where they are errors.
"""

_SILENCE = ("ignore", None, Warning, re.compile(r"PIL\b"), 0)
"""An entry of ``warnings.filters`` for every warning that comes from inside Pillow."""


@contextmanager
def strict_pillow() -> Iterator[None]:
    """Turn every complaint of Pillow inside the block into ImageReadError, and every warning into silence.

    Pillow warns about damaged metadata, which does not matter here, and about sizes, which `decode` checks itself.
    Truncated files are errors even where ``ImageFile.LOAD_TRUNCATED_IMAGES`` is set: their features would be
    those of a half-grey image.
    """
    _enter()
    try:
        yield
    except Image.DecompressionBombError as exc:
        raise ImageReadError(f"too large to be decoded: {exc}") from exc
    except _DAMAGE as exc:
        raise ImageReadError(f"damaged image: {_in_words(exc)}") from exc
    finally:
        _leave()


def _in_words(exc: Exception) -> str:
    if str(exc) and isinstance(exc, _WORDED):
        return str(exc)
    return f"the decoder stopped with {type(exc).__name__} ({exc})"


# Filters and Pillow's switch belong to the whole process, and warnings.catch_warnings in one thread undoes those of
# another. So the first thread in sets them, the last one out restores them, and a counter says who that is.
_lock = Lock()
_threads_inside = 0
_truncated_allowed = False
_silenced: list[list[object]] = []


def _enter() -> None:
    global _threads_inside, _truncated_allowed
    with _lock:
        if _threads_inside == 0:
            _truncated_allowed = ImageFile.LOAD_TRUNCATED_IMAGES
            ImageFile.LOAD_TRUNCATED_IMAGES = False
        _threads_inside += 1
        filters = _filters()
        if not filters or filters[0] is not _SILENCE:
            filters.insert(0, _SILENCE)
            _silenced.append(filters)


def _leave() -> None:
    global _threads_inside
    with _lock:
        _threads_inside -= 1
        if _threads_inside == 0:
            ImageFile.LOAD_TRUNCATED_IMAGES = _truncated_allowed
            for filters in (*_silenced, _filters()):
                while _SILENCE in filters:
                    filters.remove(_SILENCE)
            _silenced.clear()


def _filters() -> list[object]:
    """Return the filters in force: every ``warnings.catch_warnings`` works on a copy, and undoes it."""
    return cast("list[object]", warnings.filters)
