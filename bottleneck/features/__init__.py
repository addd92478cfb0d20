"""The one place where cache and extraction meet: features of a source, each image computed at most once."""

from bottleneck.features.chunks import MADE_BY, FeatureChunk, count_cached, feature_chunks
from bottleneck.features.compute import Features, compute_features
from bottleneck.features.job import CacheReport, cache_features, parse_on_error, raise_or_warn
from bottleneck.features.on_disk import FeatureBlocks, FeaturesOnDisk, features_on_disk
from bottleneck.features.space import default_cache_dir, feature_space, settle_precision

__all__ = [
    "MADE_BY",
    "CacheReport",
    "FeatureBlocks",
    "FeatureChunk",
    "Features",
    "FeaturesOnDisk",
    "cache_features",
    "compute_features",
    "count_cached",
    "default_cache_dir",
    "feature_chunks",
    "feature_space",
    "features_on_disk",
    "parse_on_error",
    "raise_or_warn",
    "settle_precision",
]
