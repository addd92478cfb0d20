"""Write the rows of several shards as one file, which is on no list yet: wherever, and as many at once as there are.

Nothing is locked meanwhile and nothing is taken away. The file keeps a temporary name until whoever writes the list
sees, under the lock, that all it was made of is still there.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bottleneck.cache.files import write_partial
from bottleneck.cache.format import FeatureRows, compose_shard, keys_sha256
from bottleneck.cache.index import first_of_each
from bottleneck.cache.keys import FeatureSpace
from bottleneck.cache.layout import SHARDS
from bottleneck.cache.manifest import ShardRecord, shard_name
from bottleneck.cache.reading import ShardReader
from bottleneck.errors import CorruptShardError

Part = tuple[ShardRecord, FeatureRows]
"""A shard to be merged and what it holds."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MergedFile:
    """The rows of several shards in a file under a temporary name.

    ``whole`` are the shards all of whose rows are in it, one after the other and in this order; then come what is left
    of ``reduced`` without rows that others of them have too.
    """

    path: Path
    sha256: str
    keys_sha256: str
    n_rows: int
    n_bytes: int
    whole: tuple[tuple[str, int], ...]
    reduced: tuple[str, ...]

    @property
    def sources(self) -> set[str]:
        """The shards that it holds the rows of."""
        return {name for name, _ in self.whole} | {*self.reduced}

    def as_record(self, number: int) -> ShardRecord:
        """Return the line of the list."""
        return ShardRecord(
            file=shard_name(number, self.sha256),
            sha256=self.sha256,
            keys_sha256=self.keys_sha256,
            n_rows=self.n_rows,
            n_bytes=self.n_bytes,
            replaces=self.whole,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Merge:
    """What became of merging shards: a file, None if fewer than two could be read; names and faults of the others."""

    file: MergedFile | None
    damaged: tuple[tuple[str, str], ...]


def merge_elsewhere(folder: Path, space: FeatureSpace, records: Sequence[ShardRecord], token: str) -> Merge:
    """Merge shards of a feature space in any process that sees its folder; ``token`` is in the temporary name."""
    return merge_shards(ShardReader(folder / SHARDS, space), records, token=token)


def merge_shards(reader: ShardReader, records: Sequence[ShardRecord], *, token: str = "") -> Merge:
    """Write the rows of shards as one file; of rows with the same key the first is kept."""
    parts: list[Part] = []
    damaged: list[tuple[str, str]] = []
    for record in records:
        try:
            parts.append((record, _read_shard(reader, record)))
        except CorruptShardError as exc:
            damaged.append((record.file, str(exc)))
    file = _write_file(parts, reader, token) if len(parts) > 1 else None
    return Merge(file=file, damaged=tuple(damaged))


def _write_file(parts: list[Part], reader: ShardReader, token: str) -> MergedFile:
    whole, reduced = _without_copies(parts)
    merged = [rows for _, rows in (*whole, *reduced)]
    keys = np.concatenate([rows.keys for rows in merged])
    layers = {name: np.concatenate([rows.layers[name] for rows in merged]) for name, _ in reader.space.layers}
    content = compose_shard(FeatureRows(keys=keys, layers=layers), reader.space)
    return MergedFile(
        path=write_partial(reader.folder, content, token=token),
        sha256=hashlib.sha256(content).hexdigest(),
        keys_sha256=keys_sha256(keys),
        n_rows=len(keys),
        n_bytes=len(content),
        whole=tuple((record.file, record.n_rows) for record, _ in whole),
        reduced=tuple(record.file for record, _ in reduced),
    )


def _read_shard(reader: ShardReader, record: ShardRecord) -> FeatureRows:
    all_rows = np.arange(record.n_rows)
    layers = {name: reader.read_rows(record, name, all_rows) for name, _ in reader.space.layers}
    return FeatureRows(keys=reader.read_keys(record), layers=layers)


def _without_copies(parts: list[Part]) -> tuple[list[Part], list[Part]]:
    """Return the parts that hold no copy of an earlier row, and what is left of the others without theirs."""
    is_first = np.zeros(sum(len(rows.keys) for _, rows in parts), bool)
    is_first[first_of_each(np.concatenate([rows.keys for _, rows in parts]))] = True
    whole: list[Part] = []
    reduced: list[Part] = []
    start = 0
    for record, rows in parts:
        kept = is_first[start : start + len(rows.keys)]
        start += len(rows.keys)
        if kept.all():
            whole.append((record, rows))
        else:
            layers = {name: features[kept] for name, features in rows.layers.items()}
            reduced.append((record, FeatureRows(keys=rows.keys[kept], layers=layers)))
    return whole, reduced
