"""Caches that stay open from one call to the next: reading every shard's keys again would cost more than an image."""

import os
import threading
from collections import OrderedDict
from pathlib import Path

from bottleneck.cache import FeatureCache, FeatureSpace, SpaceStore

MOST_KEPT = 4
"""Caches, and spaces of each, that a thread keeps open."""


class KeptCache(FeatureCache):
    """A cache that gives the same store whenever it is asked for a space, with what others wrote since."""

    def __init__(self, cache_dir: Path) -> None:
        super().__init__(cache_dir)
        self._stores: OrderedDict[str, SpaceStore] = OrderedDict()

    def space(self, space: FeatureSpace) -> SpaceStore:
        """Return the store of one feature space, a new one if its folder has been removed."""
        store = self._stores.pop(space.digest, None)
        if store is None or not store.folder.exists():
            store = super().space(space)
        else:
            store.refresh()
        self._stores[space.digest] = store
        if len(self._stores) > MOST_KEPT:
            self._stores.popitem(last=False)
        return store


class _Kept(threading.local):
    """A store may be used by one thread at a time, so that each has its own."""

    def __init__(self) -> None:
        self.caches: OrderedDict[Path, KeptCache] = OrderedDict()


_kept = _Kept()


def keep_cache(folder: Path) -> KeptCache:
    """Return this thread's cache in that folder."""
    cache = _kept.caches.pop(folder, None) or KeptCache(folder)
    _kept.caches[folder] = cache
    if len(_kept.caches) > MOST_KEPT:
        _kept.caches.popitem(last=False)
    return cache


# A forked process must not share open files with its parent.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=lambda: _kept.caches.clear())
