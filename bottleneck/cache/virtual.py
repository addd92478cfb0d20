"""One HDF5 file over all shards of a feature space, for tools that know nothing of caches.

An index for them, never the source of truth: nothing in this library reads it. It holds no features itself but says
in which shard each row is, so that h5py, MATLAB or HDFView see one dataset a layer. A shard that is gone later reads as
NaN, and rows that come later are not in it: write it again then.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from bottleneck.cache.files import write_whole
from bottleneck.cache.format import DAMAGED, keys_sha256, read_header
from bottleneck.cache.keys import KEY_BYTES, KEYS, FeatureSpace
from bottleneck.cache.layout import MANIFEST, SHARDS
from bottleneck.cache.manifest import ShardRecord, read_manifest
from bottleneck.errors import CacheError, CacheWarning, CorruptShardError

VIRTUAL_FILE = "features.h5"
STORED_AS = "<f4"
"""Half precision is converted on reading: MATLAB and older viewers cannot."""

ABOUT = (
    "One dataset a layer over all shards of this feature space, and the keys of their images: the 16-byte BLAKE2b hash "
    "of each file. Rows of NaN belong to a shard that is no longer there: write this file again."
)


@dataclass(frozen=True, kw_only=True, slots=True)
class VirtualFile:
    """What was written: the file, and how many rows of how many shards it shows."""

    path: Path
    n_rows: int
    n_shards: int


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Part:
    """One shard: its name, its keys (n, 16), and the stored dtype of each layer."""

    file: str
    keys: NDArray[np.uint8]
    dtypes: dict[str, str]


def write_virtual_file(folder: Path, space: FeatureSpace) -> VirtualFile:
    """Write ``features.h5`` in the folder of a space, in place of an older one, and read it back.

    Shards that cannot be used are left out with a ``CacheWarning``.

    Raises
    ------
    CacheError
        There are no rows, or what is read back is not what the shards hold: another process changed them meanwhile.
    """
    parts = _usable_parts(folder, space)
    if not parts:
        raise CacheError(f"There are no rows in {folder} to show.")
    path = folder / VIRTUAL_FILE
    write_whole(path, _compose(parts, space))
    _check(path, parts, space)
    return VirtualFile(path=path, n_rows=sum(len(part.keys) for part in parts), n_shards=len(parts))


def _usable_parts(folder: Path, space: FeatureSpace) -> list[_Part]:
    parts = []
    for record in read_manifest(folder / MANIFEST).shards.values():
        try:
            parts.append(_inspect(folder / SHARDS / record.file, record, space))
        except CorruptShardError as exc:
            warnings.warn(
                f"{folder / VIRTUAL_FILE} leaves out the shard {record.file}, which {exc}. "
                "`bottleneck verify --repair` drops it.",
                CacheWarning,
                stacklevel=4,
            )
    return parts


def _inspect(path: Path, record: ShardRecord, space: FeatureSpace) -> _Part:
    header = read_header(path, space, n_rows=record.n_rows)
    if keys_sha256(header.keys) != record.keys_sha256:
        raise CorruptShardError("does not have the keys it was written with")
    dtypes = {layer: block.dtype for layer, block in header.blocks.items()}
    return _Part(file=record.file, keys=header.keys, dtypes=dtypes)


def _compose(parts: Sequence[_Part], space: FeatureSpace) -> bytes:
    """Return the content of the file."""
    with h5py.File.in_memory(libver="earliest") as file:
        file.attrs["about"] = ABOUT
        file.attrs["space"] = space.digest
        for layer, n_features in space.layers:
            dtypes = [part.dtypes[layer] for part in parts]
            layout = _layout(parts, layer, width=n_features, dtype=STORED_AS, source_dtypes=dtypes)
            file.create_virtual_dataset(layer, layout, fillvalue=np.nan)
        layout = _layout(parts, KEYS, width=KEY_BYTES, dtype="u1", source_dtypes=["u1"] * len(parts))
        file.create_virtual_dataset(KEYS, layout, fillvalue=0)
        file.flush()
        image: bytes = file.id.get_file_image()
    return image


def _layout(
    parts: Sequence[_Part], name: str, *, width: int, dtype: str, source_dtypes: Sequence[str]
) -> h5py.VirtualLayout:
    layout = h5py.VirtualLayout((sum(len(part.keys) for part in parts), width), dtype)
    start = 0
    for part, source_dtype in zip(parts, source_dtypes, strict=True):
        shape = (len(part.keys), width)
        # Relative, so that the folder can be moved.
        source = h5py.VirtualSource(f"{SHARDS}/{part.file}", name, shape, dtype=source_dtype)
        layout[start : start + len(part.keys)] = source
        start += len(part.keys)
    return layout


def _check(path: Path, parts: Sequence[_Part], space: FeatureSpace) -> None:
    """Compare all keys, and see that the first row of each shard is there in every layer."""
    sizes = [len(part.keys) for part in parts]
    firsts = np.cumsum([0, *sizes[:-1]])
    try:
        with h5py.File(path, "r", locking=False) as file:
            same = np.array_equal(file[KEYS][:], np.concatenate([part.keys for part in parts]))
            present = all(np.isfinite(file[layer][first]).all() for layer, _ in space.layers for first in firsts)
    except DAMAGED as exc:
        raise CacheError(f"{path} cannot be read back: {exc}.") from exc
    if not (same and present):
        raise CacheError(f"{path} does not show what the shards hold: they changed meanwhile. Write it again.")
