"""Keys and features out of shards, checked against what the manifest says of them."""

from collections.abc import Iterator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bottleneck.cache.files import sha256_of
from bottleneck.cache.format import Block, keys_sha256, map_block, read_block, read_header
from bottleneck.cache.keys import FeatureSpace
from bottleneck.cache.manifest import ShardRecord
from bottleneck.errors import CorruptShardError


class ShardReader:
    """The shards in a folder. Every method raises ``CorruptShardError`` if a shard is not what its record says.

    The checksum of a file is compared before its first feature is read in this process, that of its keys before they
    are used; what a file then says is trusted as long as its size and times stay the same.
    """

    def __init__(self, folder: Path, space: FeatureSpace) -> None:
        self.folder = folder
        self.space = space
        self._blocks: dict[str, dict[str, Block]] = {}

    def path(self, name: str) -> Path:
        """Return where a shard is."""
        return self.folder / name

    def read_keys(self, record: ShardRecord) -> NDArray[np.uint8]:
        """Return the keys (n, 16) of a shard."""
        path = self.path(record.file)
        try:
            n_bytes = path.stat().st_size
        except OSError as exc:
            raise CorruptShardError(f"cannot be found ({exc.strerror})") from exc
        if n_bytes != record.n_bytes:
            raise CorruptShardError(f"has {n_bytes} bytes where {record.n_bytes} were written")
        header = read_header(path, self.space, n_rows=record.n_rows)
        if keys_sha256(header.keys) != record.keys_sha256:
            raise CorruptShardError("does not have the keys it was written with")
        self._blocks[record.file] = header.blocks
        return header.keys

    def read_rows(self, record: ShardRecord, layer: str, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Read ascending rows of one layer."""
        with self._opened(record) as file:
            return read_block(file, self._blocks[record.file][layer], rows)

    def map_rows(self, record: ShardRecord, layer: str, first: int, stop: int) -> NDArray[np.float16 | np.float32]:
        """Map consecutive rows of one layer into memory, as they are stored; nothing is read yet."""
        with self._opened(record) as file:
            return map_block(file, self._blocks[record.file][layer], first, stop)

    def forget(self, name: str) -> None:
        """Forget what is known of a shard."""
        self._blocks.pop(name, None)

    @contextmanager
    def _opened(self, record: ShardRecord) -> Iterator[FileIO]:
        """Open a shard whose content is what was written."""
        try:
            with self.path(record.file).open("rb", buffering=0) as file:
                if sha256_of(file) != record.sha256:
                    raise CorruptShardError("does not have the checksum it was written with")
                if record.file not in self._blocks:
                    self.read_keys(record)
                yield file
        except CorruptShardError:
            raise
        except FileNotFoundError as exc:
            raise CorruptShardError("is missing") from exc
        except OSError as exc:
            raise CorruptShardError(f"cannot be read ({exc.strerror})") from exc
