"""Write to the folder of a feature space as the only one: new shards, merged shards, the manifest."""

import hashlib
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bottleneck.cache.catalog import Catalog
from bottleneck.cache.files import cache_errors, publish, remove_stale_partials, sync_folder, write_whole
from bottleneck.cache.format import FeatureRows, compose_shard, keys_sha256
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
from bottleneck.cache.merging import Merge
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

    def write_shard(self, rows: FeatureRows) -> None:
        """Write rows as a shard and list it; to be called under the lock."""
        content = compose_shard(rows, self.space)
        sha256 = hashlib.sha256(content).hexdigest()
        record = ShardRecord(
            file=shard_name(self._catalog.next_number, sha256),
            sha256=sha256,
            keys_sha256=keys_sha256(rows.keys),
            n_rows=len(rows.keys),
            n_bytes=len(content),
        )
        write_whole(self._catalog.reader.path(record.file), content)
        append_shard(self.folder / MANIFEST, record)
        self._catalog.take_news()

    def take_in(self, merge: Merge) -> None:
        """List a merged file instead of the shards it was made of, and only then remove them; under the lock.

        Positions lead to where rows are now, except those of shards that had copies: these rows must be found again.
        The file is given up if one of the shards has gone meanwhile.
        """
        for name, fault in merge.damaged:
            if name in self._catalog.records:
                self._catalog.lose(name, fault)
        if (file := merge.file) is None:
            return
        if not file.sources <= {record.file for record in self._catalog.live()}:
            file.path.unlink(missing_ok=True)
            return
        record = file.as_record(self._catalog.next_number)
        publish(file.path, self._catalog.reader.path(record.file))
        append_shard(self.folder / MANIFEST, record)
        for name in file.reduced:
            append_dropped(self.folder / MANIFEST, name)
        self._catalog.take_news()
        for name in sorted(file.sources):
            self._remove(name)

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
