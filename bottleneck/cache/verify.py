"""Check shards wholly: checksum, format, and what the manifest says."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

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

MISNAMED = "does not have the checksum in its name"


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


@dataclass(frozen=True, kw_only=True, slots=True)
class Listing:
    """The shards of a space that are to be checked, and what its manifest said before."""

    folder: Path
    space: FeatureSpace
    manifest: Manifest
    paths: tuple[Path, ...]
    latest: int
    """number of the latest shard"""


@dataclass(frozen=True, kw_only=True, slots=True)
class ShardCheck:
    """What one file turned out to be: what the manifest should say of it, or why it cannot be used, or newer.

    ``belies`` is the checksum of a file that has another in its name.
    """

    path: Path
    found: ShardRecord | None = None
    fault: str = ""
    is_newer: bool = False
    belies: str = ""


def inspect_shard(path: Path, space: FeatureSpace) -> ShardRecord:
    """Return what the manifest should say of a shard, or raise ``CorruptShardError``."""
    sha256 = _sha256(path)
    if not name_fits(path.name, sha256):
        raise CorruptShardError(MISNAMED)
    return _describe(path, space, sha256)


def check_shard(path: Path, space: FeatureSpace) -> ShardCheck:
    """Read a shard wholly and say what it is; knows no other shard and no list."""
    try:
        sha256 = _sha256(path)
        if not name_fits(path.name, sha256):
            return ShardCheck(path=path, fault=MISNAMED, belies=sha256)
        if shard_version(path) > SHARD_VERSION:
            return ShardCheck(path=path, is_newer=True)
        return ShardCheck(path=path, found=_describe(path, space, sha256))
    except CorruptShardError as exc:
        return ShardCheck(path=path, fault=str(exc))


def list_shards(folder: Path, space: FeatureSpace) -> Listing:
    """Return the shards of a space, listed in the manifest or not."""
    names = shard_names(folder)  # before the manifest: whatever is written meanwhile is not missed on the list
    manifest = read_manifest(folder / MANIFEST)
    return Listing(
        folder=folder,
        space=space,
        manifest=manifest,
        paths=tuple(folder / SHARDS / name for name in sorted(names - manifest.dropped | manifest.shards.keys())),
        latest=next_number({*names, *manifest.shards, *manifest.dropped}) - 1,
    )


def judge(listing: Listing, checks: Sequence[ShardCheck]) -> VerifyReport:
    """Compare what the shards of a listing turned out to be with its manifest."""
    list_path, manifest = listing.folder / MANIFEST, listing.manifest
    owners = {record.sha256: name for name, record in manifest.shards.items()}
    bad = [BadShard(path=list_path, reason=f"line {number} cannot be read") for number in unreadable_lines(list_path)]
    for check in checks:
        name = check.path.name
        if check.fault:
            # Files that were swapped are told from damaged ones.
            swapped = f": it is {owners[check.belies]}" if check.belies in owners else ""
            n_rows = manifest.shards[name].n_rows if name in manifest.shards else 0
            bad.append(BadShard(path=check.path, reason=check.fault + swapped, n_rows=n_rows))
        elif check.found is not None and (fault := _fault_of_list(manifest, check.found, listing.latest)) is not None:
            bad.append(BadShard(path=list_path, reason=fault, contradicted=name))
    return VerifyReport(
        n_good=sum(check.found is not None for check in checks),
        bad=tuple(bad),
        newer=tuple(check.path for check in checks if check.is_newer),
    )


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


def _describe(path: Path, space: FeatureSpace, sha256: str) -> ShardRecord:
    header = read_header(path, space)
    return ShardRecord(
        file=path.name,
        sha256=sha256,
        keys_sha256=keys_sha256(header.keys),
        n_rows=len(header.keys),
        n_bytes=path.stat().st_size,
    )


def _sha256(path: Path) -> str:
    try:
        with path.open("rb", buffering=0) as file:
            return fresh_sha256_of(file)
    except FileNotFoundError as exc:
        raise CorruptShardError("is missing") from exc
    except OSError as exc:
        raise CorruptShardError(f"cannot be read ({exc.strerror})") from exc
