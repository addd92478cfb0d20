"""Features of several processes that train together: each extracts its share, and all have the same numbers."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace

import numpy as np

from bottleneck.cache import FeatureCache
from bottleneck.estimators.frozen import FrozenFeatures
from bottleneck.extraction import Extractor, Precision
from bottleneck.features import Features, feature_chunks
from bottleneck.finetune.ranks import ALONE, Ranks, joined
from bottleneck.images import ImageSource, subset
from bottleneck.progress import ProgressCallback, progress_bars, silent


@contextmanager
def to_train_together(strategy: str, device: str, *, verbose: bool) -> Iterator[tuple[Ranks, ProgressCallback]]:
    """Join the processes that torch's launcher started, where they may have something to train; one shows progress."""
    alone = strategy in ("probe", "all_stages_probe")
    with (
        nullcontext(ALONE) if alone else joined(device) as ranks,
        progress_bars(enabled=verbose and ranks.is_first) as progress,
    ):
        yield ranks, progress


def extract_share(
    ranks: Ranks,
    source: ImageSource,
    extractor: Extractor,
    cache: FeatureCache,
    *,
    precision: Precision,
    layers: Sequence[str],
    progress: ProgressCallback = silent,
) -> int:
    """Put this rank's share of the images into the cache; return how many images all ranks extracted.

    Images that cannot be read are left to whoever reads all of them afterwards, and so are those of other ranks where
    the cache is not a folder that they share.
    """
    if ranks.count == 1:
        return 0
    own = subset(source, np.arange(len(source))[ranks.share(len(source))])
    chunks = feature_chunks(own, extractor, cache, precision=precision, layers=layers, progress=progress)
    return int(ranks.sum(np.array([sum(chunk.rows_extracted for chunk in chunks)]))[0])


def as_on_first(ranks: Ranks, features: FrozenFeatures, *, n_extracted: int) -> FrozenFeatures:
    """Return the features of the first rank, those on disk as they are, and count what all ranks extracted."""
    if ranks.count == 1:
        return features
    found, n_before = features.report, min(n_extracted, features.report.rows_cached)
    report = replace(found, rows_extracted=found.rows_extracted + n_before, rows_cached=found.rows_cached - n_before)
    if isinstance(features, Features):
        layers = {name: ranks.first_array(rows) for name, rows in features.layers.items()}
        return replace(features, layers=layers, report=report)
    return replace(features, report=report)
