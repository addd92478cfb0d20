"""Where things lie in the folder of a feature space: ``space.json``, ``manifest.jsonl`` and ``shards/``."""

from pathlib import Path

from bottleneck.cache.keys import FeatureSpace
from bottleneck.cache.manifest import is_shard_name
from bottleneck.errors import CacheError

SPACE_FILE = "space.json"
MANIFEST = "manifest.jsonl"
SHARDS = "shards"


def read_space(folder: Path) -> FeatureSpace | None:
    """Read the description in a folder; None if there is none.

    Raises
    ------
    CacheError
        It is damaged, from a newer version of the library, or describes a space that belongs in another folder.
    """
    path = folder / SPACE_FILE
    try:
        space = FeatureSpace.from_json(path.read_text(encoding="utf-8", errors="replace"))
    except FileNotFoundError:
        return None
    except CacheError as exc:
        raise CacheError(f"{path} cannot be used: {exc}.") from exc
    if space.digest != folder.name:
        raise CacheError(
            f"{path} describes the feature space {space.digest}, which belongs in a folder of that name: was the "
            "folder renamed? Move it away, or choose another cache_dir."
        )
    return space


def shard_names(folder: Path) -> set[str]:
    """Return the names of the shards in a folder; an absent folder has none."""
    shards = folder / SHARDS
    return {path.name for path in shards.iterdir() if is_shard_name(path.name)} if shards.exists() else set()
