"""Write to the folder of a feature space as the only one: new shards, merged shards, the manifest."""

import hashlib
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from bottleneck.cache.catalog import Catalog
from bottleneck.cache.files import cache_errors, remove_stale_partials, sync_folder, write_whole
from bottleneck.cache.format import FeatureRows, compose_shard, keys_sha256
from bottleneck.cache.index import first_of_each
from bottleneck.cache.keys import FeatureSpace
from bottleneck.cache.layout import MANIFEST, SHARDS, SPACE_FILE
from bottleneck.cache.locks import write_lock
from bottleneck.cache.manifest import (
    OUTDATED_LINES,
    ShardRecord,
    append_dropped,
    append_shard,
    shard_name,
    write_manifest,
)
from bottleneck.cache.verify import inspect_shard
from bottleneck.errors import CacheError, CorruptShardError

Part = tuple[ShardRecord, FeatureRows]
"""A shard to be merged and what it holds."""

logger = logging.getLogger(__name__)


class SpaceWriter:
    """All that changes the folder of a feature space, and keeps what a store knows of it up to date."""

    def __init__(self, folder: Path, space: FeatureSpace, catalog: Catalog) -> None:
        self.folder = folder
        self.space = space
        self.was_there = False
        self._catalog = catalog
        self._is_swept = False

    @contextmanager
    def exclusively(self) -> Iterator[None]:
        """Write as the only one, knowing all that others have written."""
        with cache_errors(self.folder):
            self.create_folder()
            with write_lock(self.folder):
                self._catalog.take_news()
                yield

    def create_folder(self) -> None:
        """Make the folder and its description, and clear once what dead processes left there."""
        is_there = (self.folder / SPACE_FILE).exists()
        if self.was_there and not is_there:
            # An unmounted disk, for example: writing on would fill the folder it was mounted at.
            raise CacheError(
                f"The cache folder {self.folder} has disappeared while it was used. Run again once it is back: rows "
                "that were stored there are found again. Without it, the next run starts a new one."
            )
        (self.folder / SHARDS).mkdir(parents=True, exist_ok=True)
        if not is_there:
            write_whole(self.folder / SPACE_FILE, self.space.to_json().encode())
            sync_folder(self.folder.parent)
            self.was_there = True
        if not self._is_swept:
            remove_stale_partials(self.folder)
            remove_stale_partials(self.folder / SHARDS)
            self._is_swept = True

    def write_shard(self, rows: FeatureRows, replaces: tuple[tuple[str, int], ...] = ()) -> None:
        """Write rows as a shard and list it; to be called under the lock."""
        content = compose_shard(rows, self.space)
        sha256 = hashlib.sha256(content).hexdigest()
        record = ShardRecord(
            file=shard_name(self._catalog.next_number, sha256),
            sha256=sha256,
            keys_sha256=keys_sha256(rows.keys),
            n_rows=len(rows.keys),
            n_bytes=len(content),
            replaces=replaces,
        )
        write_whole(self._catalog.reader.path(record.file), content)
        append_shard(self.folder / MANIFEST, record)
        self._catalog.take_news()

    def merge(self, records: list[ShardRecord]) -> None:
        """Write the rows of shards as one, list it instead of them, and only then remove them; under the lock.

        Of rows with the same key the first is kept. Positions lead to where rows are now, except those of shards
        that had such copies: these rows must be found again.
        """
        parts: list[tuple[ShardRecord, FeatureRows]] = []
        for record in records:
            try:
                parts.append((record, self._read_shard(record)))
            except CorruptShardError as exc:
                self._catalog.lose(record.file, str(exc))
        if len(parts) < 2:
            return
        whole, reduced = _without_copies(parts)
        merged = [rows for _, rows in (*whole, *reduced)]
        layers = {name: np.concatenate([rows.layers[name] for rows in merged]) for name, _ in self.space.layers}
        replaces = tuple((record.file, record.n_rows) for record, _ in whole)
        self.write_shard(FeatureRows(keys=np.concatenate([rows.keys for rows in merged]), layers=layers), replaces)
        for record, _ in reduced:
            append_dropped(self.folder / MANIFEST, record.file)
        if reduced:
            self._catalog.take_news()
        for record, _ in parts:
            self._remove(record.file)

    def _read_shard(self, record: ShardRecord) -> FeatureRows:
        reader, all_rows = self._catalog.reader, np.arange(record.n_rows)
        layers = {name: reader.read_rows(record, name, all_rows) for name, _ in self.space.layers}
        return FeatureRows(keys=reader.read_keys(record), layers=layers)

    def _remove(self, name: str) -> None:
        try:
            self._catalog.reader.path(name).unlink(missing_ok=True)
        except OSError as exc:  # Windows keeps a file that is open; the next compaction removes it
            logger.debug("%s stays: %s", name, exc)

    def remove_dropped(self) -> None:
        """Remove what compactions that were killed have left; under the lock."""
        for name in self._catalog.as_manifest().dropped:
            self._remove(name)

    def shorten_manifest(self) -> None:
        """Write the manifest anew if most of its lines are void; under the lock."""
        if self._catalog.n_outdated_lines > OUTDATED_LINES + 3 * len(self._catalog.records):
            write_manifest(self.folder / MANIFEST, self._catalog.as_manifest())

    def adopt_unlisted(self) -> None:
        """List complete shards whose writer died between renaming and listing them.

        One that holds nothing new is removed: its writer died while it merged shards that are all still on the list.
        """
        try:
            with self.exclusively():  # whoever is writing one has listed it once the lock is free
                for name in self._catalog.unlisted():
                    if (record := self._inspect(name)) is None:
                        continue
                    if self._has_news(record):
                        append_shard(self.folder / MANIFEST, record)
                        self._catalog.take_news()
                    else:
                        self._remove(name)
        except CacheError as exc:  # a folder that may only be read: the next process checks the shard again
            logger.debug("shards stay unlisted: %s", exc)
            for name in self._catalog.unlisted():
                if (record := self._inspect(name)) is not None and self._has_news(record):
                    self._catalog.add(record)

    def _has_news(self, record: ShardRecord) -> bool:
        """Say whether an unlisted shard holds a key that no listed one has."""
        try:
            keys = self._catalog.reader.read_keys(record)
        except CorruptShardError as exc:  # it changed just now; whoever reads it will say so
            logger.debug("%s %s", record.file, exc)
            return True
        return bool((self._catalog.find(keys) < 0).any())

    def _inspect(self, name: str) -> ShardRecord | None:
        try:
            return inspect_shard(self._catalog.reader.path(name), self.space)
        except CorruptShardError as exc:
            self._catalog.lose(name, str(exc))
            return None


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
