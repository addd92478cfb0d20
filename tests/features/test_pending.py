"""What waits is what was added, in its order, shard after shard."""

import numpy as np

from bottleneck.extraction import FeatureBatch
from bottleneck.features.pending import PendingRows


def batch_of(start: int, stop: int) -> FeatureBatch:
    rows = np.arange(start, stop)
    return FeatureBatch(
        rows=rows,
        keys=np.repeat(rows[:, None], 16, axis=1).astype(np.uint8),
        layers={"penultimate": np.float32(rows[:, None] * np.ones(3))},
        failures=(),
    )


def test_rows_are_taken_as_they_were_added_and_then_gone():
    pending = PendingRows({"penultimate": 3}, 7)
    pending.add(batch_of(0, 2))
    pending.add(batch_of(2, 5))

    first = pending.take()
    taken = first.keys[:, 0].tolist(), first.layers["penultimate"][:, 2].tolist()
    left = len(pending)
    pending.add(batch_of(5, 7))
    second = pending.take()

    assert taken == ([0, 1, 2, 3, 4], [0, 1, 2, 3, 4])
    assert left == 0
    assert second.keys[:, 0].tolist() == [5, 6]
    assert len(pending) == 0
