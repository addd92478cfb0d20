"""Which shards to write together as one: decided from their sizes alone.

Predicting image by image appends shards of one row each, and every open shard costs a fraction of a millisecond. As
in a log-structured merge tree (O'Neil et al. 1996) small shards are therefore merged as they pile up: ``FANOUT`` of
one size make one of the next, so that a row is written again a few times at most and few small shards ever exist.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import log

from bottleneck.cache.manifest import ShardRecord

FANOUT = 8
"""Sizes are powers of this, and so many shards of one size are merged."""
SMALL_ROWS = 4096
SMALL_BYTES = 4 * 1024 * 1024
"""Shards of fewer rows and bytes are small: the time of opening one is not lost in that of reading it."""
MOST_MERGED = 64
MERGED_BYTES = 32 * 1024 * 1024
"""The most shards and bytes that one append may write again: a fraction of a second."""
COMPACT_BYTES = 64 * 1024 * 1024
"""Size of the shards that ``compact`` writes: composed in memory, so not larger."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CompactReport:
    """What ``compact`` did: the number of shards before and after, and the bytes they have now."""

    shards_before: int
    shards_after: int
    n_bytes: int


def piled_up(records: Sequence[ShardRecord]) -> list[ShardRecord]:
    """Return small shards of one size that should be merged now, in their order; none if few enough have piled up."""
    tiers: dict[int, list[ShardRecord]] = {}
    for record in records:
        if record.n_rows < SMALL_ROWS and record.n_bytes < SMALL_BYTES:
            tiers.setdefault(_tier(record), []).append(record)
    return next(
        (_first_that_fit(tier, MERGED_BYTES)[:MOST_MERGED] for tier in tiers.values() if len(tier) >= FANOUT), []
    )


def worth_merging(records: Sequence[ShardRecord]) -> list[list[ShardRecord]]:
    """Cut small shards, in their order, into those to write as one of ``COMPACT_BYTES`` each; none if all is compact.

    What comes of it may be worth merging again, where copies of rows were left out.
    """
    small = [record for record in records if record.n_bytes < COMPACT_BYTES // 2]
    groups = []
    while group := _first_that_fit(small, COMPACT_BYTES):
        groups.append(group)
        small = small[len(group) :]
    return [group for group in groups if len(group) > 1]


def _tier(record: ShardRecord) -> int:
    return int(log(record.n_rows, FANOUT) + 1e-9)


def _first_that_fit(records: Sequence[ShardRecord], n_bytes: int) -> list[ShardRecord]:
    group: list[ShardRecord] = []
    for record in records:
        n_bytes -= record.n_bytes
        if n_bytes < 0:
            break
        group.append(record)
    return group
