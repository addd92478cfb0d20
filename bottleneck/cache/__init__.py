"""Features on disk: immutable, checksummed HDF5 shards, found by the content of images. The only door to h5py."""

from bottleneck.cache.compact import CompactReport
from bottleneck.cache.feature_cache import FeatureCache
from bottleneck.cache.format import FeatureRows, as_stored
from bottleneck.cache.keys import FeatureSpace
from bottleneck.cache.locks import Claim
from bottleneck.cache.store import SpaceStore
from bottleneck.cache.verify import BadShard, VerifyReport

__all__ = [
    "BadShard",
    "Claim",
    "CompactReport",
    "FeatureCache",
    "FeatureRows",
    "FeatureSpace",
    "SpaceStore",
    "VerifyReport",
    "as_stored",
]
