"""Check shards wholly: checksum, format, and what the manifest says."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from bottleneck.cache.files import fresh_sha256_of
from bottleneck.cache.format import SHARD_VERSION, keys_sha256, read_header, shard_version
from bottleneck.cache.keys import FeatureSpace
from bottleneck.cache.layout import MANIFEST, SHARDS, shard_names
from bottleneck.cache.manifest import (
    Manifest,
    ShardRecord,
    append_dropped,
    name_fits,
    next_number,
    read_manifest,
    unreadable_lines,
    write_manifest,
)
from bottleneck.errors import CorruptShardError


@dataclass(frozen=True, kw_only=True, slots=True)
class BadShard:
    """A shard that cannot be used, why, and how many rows it had (0 where nothing says so).

    Or a fault in the list of the shards, where ``path`` is that of ``manifest.jsonl``: no row is lost by it, because
    intact shards are put on the list again. ``contradicted`` is the intact shard that a line of the list belies.
    """

    path: Path
    reason: str
    n_rows: int = 0
    contradicted: str = ""

    @property
    def is_list(self) -> bool:
        """Whether it is the list of the shards that is damaged."""
        return self.path.name == MANIFEST

    @property
    def folder(self) -> Path:
        """The folder of the feature space."""
        return self.path.parent if self.is_list else self.path.parents[1]


@dataclass(frozen=True, kw_only=True, slots=True)
class VerifyReport:
    """What a check of a cache found.

    Attributes
    ----------
    n_good
        Number of shards that hold what was written.
    bad
        Damaged and missing shards, and faults in the lists of shards.
    newer
        Intact shards that only a newer version of the library can read.
    """

    n_good: int
    bad: tuple[BadShard, ...]
    newer: tuple[Path, ...]

    @property
    def n_bad_rows(self) -> int:
        """How many rows the bad shards had."""
        return sum(shard.n_rows for shard in self.bad)


def inspect_shard(path: Path, space: FeatureSpace) -> ShardRecord:
    """Return what the manifest should say of a shard, or raise ``CorruptShardError``."""
    sha256 = _named_sha256(path)
    header = read_header(path, space)
    return ShardRecord(
        file=path.name,
        sha256=sha256,
        keys_sha256=keys_sha256(header.keys),
        n_rows=len(header.keys),
        n_bytes=path.stat().st_size,
    )


def verify_space(folder: Path, space: FeatureSpace) -> VerifyReport:
    """Check every shard of a space, listed in the manifest or not, and the manifest itself."""
    names = shard_names(folder)  # before the manifest: whatever is written meanwhile is not missed on the list
    path = folder / MANIFEST
    manifest = read_manifest(path)
    unreadable = [BadShard(path=path, reason=f"line {number} cannot be read") for number in unreadable_lines(path)]
    owners = {record.sha256: name for name, record in manifest.shards.items()}
    latest = next_number({*names, *manifest.shards, *manifest.dropped}) - 1
    n_good, bad, newer = 0, unreadable, []
    for name in sorted(names - manifest.dropped | manifest.shards.keys()):
        path = folder / SHARDS / name
        try:
            _named_sha256(path, owners)
            if shard_version(path) > SHARD_VERSION:
                newer.append(path)
                continue
            found = inspect_shard(path, space)
            n_good += 1
            if (fault := _fault_of_list(manifest, found, latest)) is not None:
                bad.append(BadShard(path=folder / MANIFEST, reason=fault, contradicted=name))
        except CorruptShardError as exc:
            listed = manifest.shards.get(name)
            bad.append(BadShard(path=path, reason=str(exc), n_rows=0 if listed is None else listed.n_rows))
    return VerifyReport(n_good=n_good, bad=tuple(bad), newer=tuple(newer))


def _fault_of_list(manifest: Manifest, found: ShardRecord, latest: int) -> str | None:
    """Return what is wrong in what the list says of an intact shard."""
    listed = manifest.shards.get(found.file)
    if listed is not None:
        return None if listed == found else f"says something else of {found.file} than what it holds"
    # The latest may have been left by a process that was killed before it could list it; later ones list it.
    return None if next_number({found.file}) > latest else f"does not list {found.file}"


def mend_manifest(folder: Path, contradicted: set[str]) -> None:
    """Write the list anew without what cannot be read and without wrong lines, under the write lock.

    The shards of those lines are unlisted then, and are put on the list again by whoever opens the space next.
    """
    manifest = read_manifest(folder / MANIFEST)
    shards = {name: record for name, record in manifest.shards.items() if name not in contradicted}
    dropped = manifest.dropped & shard_names(folder)
    write_manifest(folder / MANIFEST, Manifest(shards=shards, dropped=dropped))


def drop_shard(shard: BadShard) -> None:
    """Remove a shard and take it off the list, under the write lock; its rows are misses from then on."""
    if shard.path.is_dir():
        shard.path.rmdir()
    else:
        shard.path.unlink(missing_ok=True)
    append_dropped(shard.folder / MANIFEST, shard.path.name)


def _named_sha256(path: Path, owners: Mapping[str, str] = MappingProxyType({})) -> str:
    """Return the checksum of a shard that has the one in its name, or raise ``CorruptShardError``.

    ``owners`` are the names of shards by checksum, to tell files that were swapped from damaged ones.
    """
    try:
        with path.open("rb", buffering=0) as file:
            sha256 = fresh_sha256_of(file)
    except FileNotFoundError as exc:
        raise CorruptShardError("is missing") from exc
    except OSError as exc:
        raise CorruptShardError(f"cannot be read ({exc.strerror})") from exc
    if not name_fits(path.name, sha256):
        swapped = f": it is {owners[sha256]}" if sha256 in owners else ""
        raise CorruptShardError(f"does not have the checksum in its name{swapped}")
    return sha256
