"""A user's limits on memory and disk, as the parts of a run want them."""

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from bottleneck.backbones import Backbone
from bottleneck.cache import FeatureCache
from bottleneck.errors import CacheWarning
from bottleneck.estimators.bounded import BoundedCache
from bottleneck.estimators.frozen import memory_for_fit
from bottleneck.extraction import image_bytes
from bottleneck.finetune.pixels import MEMORY_SHARE as PIXELS_SHARE
from bottleneck.memory import available_memory
from bottleneck.planner import (
    Budget,
    MemoryShares,
    Profile,
    Request,
    RunSizes,
    checkpoints_disk_bytes,
    features_disk_bytes,
    keeps_checkpoints,
    keeps_features,
    network_share,
    share_out,
    size,
    sizes_of,
)

if TYPE_CHECKING:
    from bottleneck.estimators.run import Run

CHUNK_SHARE = 0.25
"""Share of the memory for features that those of one chunk may take on their way to the cache ..."""
CHUNK_COPIES = 3
"""... which are there as extracted, as composed for the disk, and as read back; all in single precision at most."""
LEAST_CHUNK, MOST_CHUNK = 64, 4096


def sizes_before_profile(backbone: Backbone, *, n_samples: int, n_classes: int) -> RunSizes:
    """Return what is known of the sizes of a run before anything is measured."""
    widths = backbone.layer_widths
    return RunSizes(
        n_samples=n_samples,
        n_classes=max(n_classes, 2),
        n_features=widths["penultimate"],
        n_features_all_stages=sum(widths.values()),
        n_parameters=sum(parameter.numel() for parameter in backbone.network.parameters()),
        image_bytes=image_bytes(backbone.preprocess.crop),
    )


def room_in_network(sizes: RunSizes, budget: Budget) -> int | None:
    """Return the bytes that images in the network may take, None without a limit of the user's own."""
    limit = budget.memory_bytes
    return None if limit is None else network_share(sizes, limit, on_disk=budget.disk_bytes is None)


def bound_cache(cache: FeatureCache, disk_limit: int | None, backbone: Backbone, *, n_rows: int) -> FeatureCache:
    """Return the cache as it is, or one that adds no more than the limit to its folder."""
    if disk_limit is None:
        return cache
    row_bytes = 2 * sum(backbone.layer_widths.values())
    return BoundedCache(cache.cache_dir, limit=disk_limit, n_rows=n_rows, row_bytes=row_bytes)


def memory_shares(profile: Profile, budget: Budget) -> MemoryShares | None:
    """Return what the parts of a run may take, None without a limit of the user's own."""
    if budget.memory_bytes is None:
        return None
    on_disk = budget.disk_bytes is None or features_disk_bytes(profile) <= budget.disk_bytes
    return share_out(sizes_of(profile), budget.memory_bytes, on_disk=on_disk)


def limit_head(head: Any, shares: MemoryShares | None) -> Any:
    """Give a head that is to be fitted no more memory than it may take; its own limit holds if it is smaller."""
    if shares is not None and shares.features < memory_for_fit(head.memory_limit):
        head.set_params(memory_limit=shares.features)
    return head


def chunk_rows(run: "Run") -> int | None:
    """Return how many rows may be on their way to the cache at once, None for as many as usual."""
    if run.shares is None:
        return None
    row_bytes = CHUNK_COPIES * 4 * sum(run.extractor.backbone.layer_widths.values())
    return int(np.clip(CHUNK_SHARE * run.shares.features / row_bytes, LEAST_CHUNK, MOST_CHUNK))


def pixels_limit(run: "Run") -> int | None:
    """Return the bytes that images decoded for training may take, None for a share of what is available."""
    return None if run.shares is None else min(run.shares.pixels, int(PIXELS_SHARE * available_memory()))


def images_at_once(run: "Run") -> int | None:
    """Return the most images of a training batch that are computed together, None for all until memory is short.

    Several processes find that out by themselves: all must cut their batches alike.
    """
    return None if run.shares is None or run.ranks.count > 1 else run.shares.images_at_once


def settle_disk(run: "Run") -> None:
    """Keep features in memory, with a warning, if the cache may not take them."""
    limit, cache = run.budget.disk_bytes, run.cache
    request = Request(profile=run.profile, budget=run.budget, evidence=None, strategy=run.strategy, seed=run.seed)
    if limit is None or not isinstance(cache, BoundedCache) or run.ranks.first(keeps_features(request)):
        return
    cache.keep_in_memory()
    needed = features_disk_bytes(run.profile)
    warnings.warn(
        f"The features need {size(needed)} of disk and disk_limit allows {size(limit)}: they are kept for this fit "
        f"only, and extracted again by the next one (disk_limit={needed} would keep them).",
        CacheWarning,
        stacklevel=4,
    )


def may_keep_checkpoints(run: "Run", request: Request) -> bool:
    """Say whether checkpoints of a training fit on the disk, and warn if not."""
    if run.budget.disk_bytes is None or run.ranks.first(keeps_checkpoints(request)):
        return True
    warnings.warn(
        f"Checkpoints of this training need up to {size(checkpoints_disk_bytes(run.profile))} of disk beside the "
        f"features, and disk_limit allows {size(run.budget.disk_bytes)}: none are written. Stopped, the training would "
        "begin anew.",
        CacheWarning,
        stacklevel=6,
    )
    return False
