"""One shard: an immutable HDF5 file of features and the keys of the images they belong to.

A shard holds a dataset ``keys`` ``(rows, 16)`` uint8 and one dataset a layer ``(rows, n_features)``, float16 in
little-endian order, or float32 if a value of the layer overflows float16. Datasets are contiguous: a row is read by
its offset, tens of times faster than from chunks. Attributes of the file: ``format_version``, ``space``
(the digest of its feature space). There is no status a row, because only good rows are ever stored.

The file is composed in memory and then written as plain bytes: a full disk is an ordinary error rather than a broken
HDF5 handle, and the checksum is that of what was meant.
"""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import FileIO
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from bottleneck.cache.keys import KEY_BYTES, KEYS, FeatureSpace
from bottleneck.errors import MAX_LISTED, CorruptShardError, InvalidInputError

SHARD_VERSION = 1
LARGEST_FLOAT16 = float(np.finfo(np.float16).max)

GAP_BYTES = 32 * 1024
"""Rows closer than this are read in one go: measured, skipping less costs more than copying it."""

RUN_BYTES = 8 * 1024 * 1024
"""Most bytes read at once, which bounds memory."""

DAMAGED = (OSError, RuntimeError, KeyError, ValueError, TypeError, OverflowError)
"""What h5py raises on files that are not what they should be."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FeatureRows:
    """Features of some images: what is appended to the cache.

    Attributes
    ----------
    keys
        uint8, shape (n, 16): the content keys of the images.
    layers
        float32 arrays of shape (n, n_features), one for each layer of the feature space.
    """

    keys: NDArray[np.uint8]
    layers: dict[str, NDArray[np.float32]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Block:
    """Where the rows of one layer lie in a shard."""

    offset: int
    n_features: int
    dtype: str


@dataclass(frozen=True, kw_only=True, slots=True)
class ShardHeader:
    """What a shard holds, without the features."""

    keys: NDArray[np.uint8]
    blocks: dict[str, Block]


def as_stored(features: NDArray[np.float32]) -> NDArray[np.float32]:
    """Round features exactly as the cache does, so that cached and uncached features are equal bit for bit.

    Parameters
    ----------
    features
        float32, shape (n, n_features), all finite.

    Returns
    -------
    float32, same shape: each row rounded to float16, or unchanged if a value of the row overflows float16.
    What becomes of a row depends on that row only.

    Raises
    ------
    InvalidInputError
        Another dtype or shape, or values that are not finite (naming the rows).
    """
    if features.ndim != 2 or features.dtype != np.float32:
        raise InvalidInputError(f"features must be float32 in rows (n, d). Got {features.dtype} {features.shape}.")
    bad_rows = np.flatnonzero(~np.isfinite(features).all(axis=1))
    if len(bad_rows):
        named = ", ".join(map(str, bad_rows[:MAX_LISTED])) + (", ..." if len(bad_rows) > MAX_LISTED else "")
        raise InvalidInputError(
            f"features must be finite. Got NaN or infinite values in {len(bad_rows)} rows: {named}."
        )
    with np.errstate(over="ignore", under="ignore"):
        stored = features.astype(np.float16).astype(np.float32)
    overflowed = np.isinf(stored).any(axis=1)
    stored[overflowed] = features[overflowed]
    return stored


def parse_rows(rows: FeatureRows, space: FeatureSpace) -> FeatureRows:
    """Return the rows as they will be stored, or raise ``InvalidInputError`` if they do not belong to the space."""
    n = len(rows.keys)
    if rows.keys.dtype != np.uint8 or rows.keys.shape != (n, KEY_BYTES):
        raise InvalidInputError(f"keys must be uint8 (n, {KEY_BYTES}). Got {rows.keys.dtype} {rows.keys.shape}.")
    expected = {name: (n, n_features) for name, n_features in space.layers}
    got = {name: features.shape for name, features in rows.layers.items()}
    if got != expected:
        raise InvalidInputError(f"layers must have the shapes {expected} of their feature space. Got {got}.")
    layers = {}
    for name, features in rows.layers.items():
        try:
            layers[name] = as_stored(features)
        except InvalidInputError as exc:
            raise InvalidInputError(f"Layer {name!r}: {exc}") from exc
    return FeatureRows(keys=rows.keys, layers=layers)


def keys_sha256(keys: NDArray[np.uint8]) -> str:
    """Return the checksum of keys (n, 16)."""
    return hashlib.sha256(np.ascontiguousarray(keys).data).hexdigest()


def compose_shard(stored: FeatureRows, space: FeatureSpace) -> bytes:
    """Return the content of the file that holds the rows; the same rows give the same bytes."""
    with h5py.File.in_memory(block_size=1024 * 1024, libver="earliest") as file:
        file.attrs["format_version"] = SHARD_VERSION
        file.attrs["space"] = space.digest
        for name, features in stored.layers.items():
            fits = np.abs(features).max() <= LARGEST_FLOAT16
            file.create_dataset(name, data=features.astype("<f2" if fits else "<f4", copy=False))
        file.create_dataset(KEYS, data=stored.keys)
        file.flush()
        image: bytes = file.id.get_file_image()
    return image


def shard_version(path: Path) -> int:
    """Return the format version that a shard states, or raise ``CorruptShardError``."""
    with _open_shard(path) as file:
        return int(file.attrs["format_version"])


def read_header(path: Path, space: FeatureSpace, *, n_rows: int | None = None) -> ShardHeader:
    """Read keys and layout of a shard of ``n_rows`` rows (None: any number).

    Raises
    ------
    CorruptShardError
        The file is not such a shard; the message completes "shard x ...".
    """
    with _open_shard(path) as file:
        version = int(file.attrs["format_version"])
        if version > SHARD_VERSION:
            raise CorruptShardError(
                f"has format version {version}, and this version of bottleneck-features reads up to {SHARD_VERSION}"
            )
        if file.attrs["space"] != space.digest:
            raise CorruptShardError(f"belongs to the feature space {file.attrs['space']}")
        n = len(file[KEYS]) if n_rows is None else n_rows
        blocks = {name: _parse_block(file[name], (n, n_features), path) for name, n_features in space.layers}
        if file[KEYS].shape != (n, KEY_BYTES) or file[KEYS].dtype != np.uint8:
            raise CorruptShardError(f"has keys of shape {file[KEYS].shape} where {(n, KEY_BYTES)} is expected")
        return ShardHeader(keys=file[KEYS][:], blocks=blocks)


@contextmanager
def _open_shard(path: Path) -> Iterator[h5py.File]:
    try:
        # Shards never change, so no lock is needed, and some network file systems have none.
        with h5py.File(path, "r", locking=False) as file:
            yield file
    except CorruptShardError:
        raise
    except DAMAGED as exc:
        raise CorruptShardError(f"is not a readable shard ({exc})") from exc


def _parse_block(dataset: h5py.Dataset, shape: tuple[int, int], path: Path) -> Block:
    offset = dataset.id.get_offset()
    dtype = dataset.dtype.str
    if dataset.shape != shape or dtype not in ("<f2", "<f4") or offset is None:
        raise CorruptShardError(f"has a dataset {dataset.name} of {dtype} {dataset.shape} where {shape} is expected")
    if offset + dataset.nbytes > path.stat().st_size:
        raise CorruptShardError("is shorter than its datasets")
    return Block(offset=offset, n_features=shape[1], dtype=dtype)


def read_block(file: FileIO, block: Block, rows: NDArray[np.int64]) -> NDArray[np.float32]:
    """Read the given rows, in ascending order (repeats allowed), of one layer of a shard."""
    dtype = np.dtype(block.dtype)
    row_bytes = block.n_features * dtype.itemsize
    features = np.empty((len(rows), block.n_features), np.float32)
    for start, stop in _runs(rows, row_bytes):
        first, last = int(rows[start]), int(rows[stop - 1])
        run = np.empty((last - first + 1, block.n_features), dtype)
        file.seek(block.offset + first * row_bytes)
        if file.readinto(run.data) != run.nbytes:
            raise CorruptShardError("ends before its last row")
        features[start:stop] = run[rows[start:stop] - first]
    return features


def map_block(file: FileIO, block: Block, first: int, stop: int) -> NDArray[np.float16 | np.float32]:
    """Map the rows from ``first`` up to ``stop`` of one layer of a shard into memory, to be read only."""
    dtype = np.dtype(block.dtype)
    row_bytes = block.n_features * dtype.itemsize
    if block.offset + stop * row_bytes > os.fstat(file.fileno()).st_size:  # touching it would be a bus error
        raise CorruptShardError("ends before its last row")
    shape = (stop - first, block.n_features)
    return np.memmap(file, dtype=dtype, mode="r", offset=block.offset + first * row_bytes, shape=shape)


def _runs(rows: NDArray[np.int64], row_bytes: int) -> list[tuple[int, int]]:
    """Cut ascending rows into stretches to be read at once, as slices of ``rows``."""
    apart = np.diff(rows) > max(1, GAP_BYTES // row_bytes)
    full = np.diff(rows // max(1, RUN_BYTES // row_bytes)) > 0
    cuts = (np.flatnonzero(apart | full) + 1).tolist()
    return list(zip([0, *cuts], [*cuts, len(rows)], strict=True))
