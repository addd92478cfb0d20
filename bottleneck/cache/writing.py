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
from bottleneck.cache.keys import FeatureSpace
from bottleneck.cache.layout import MANIFEST, SHARDS, SPACE_FILE
from bottleneck.cache.locks import write_lock
from bottleneck.cache.manifest import OUTDATED_LINES, ShardRecord, append_shard, shard_name, write_manifest
from bottleneck.cache.verify import inspect_shard
from bottleneck.errors import CacheError, CorruptShardError

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
        """Write the rows of shards as one, list it instead of them, and only then remove them; under the lock."""
        parts: list[tuple[ShardRecord, FeatureRows]] = []
        for record in records:
            try:
                parts.append((record, self._read_shard(record)))
            except CorruptShardError as exc:
                self._catalog.lose(record.file, str(exc))
        if len(parts) < 2:
            return
        keys = np.concatenate([rows.keys for _, rows in parts])
        layers = {name: np.concatenate([rows.layers[name] for _, rows in parts]) for name, _ in self.space.layers}
        replaces = tuple((record.file, record.n_rows) for record, _ in parts)
        self.write_shard(FeatureRows(keys=keys, layers=layers), replaces)
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
        """List complete shards whose writer died between renaming and listing them."""
        try:
            with self.exclusively():  # whoever is writing one has listed it once the lock is free
                for name in self._catalog.unlisted():
                    if (record := self._inspect(name)) is not None:
                        append_shard(self.folder / MANIFEST, record)
                self._catalog.take_news()
        except CacheError as exc:  # a folder that may only be read: the next process checks the shard again
            logger.debug("shards stay unlisted: %s", exc)
            for name in self._catalog.unlisted():
                if (record := self._inspect(name)) is not None:
                    self._catalog.add(record)

    def _inspect(self, name: str) -> ShardRecord | None:
        try:
            return inspect_shard(self._catalog.reader.path(name), self.space)
        except CorruptShardError as exc:
            self._catalog.lose(name, str(exc))
            return None
