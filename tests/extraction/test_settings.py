"""What "auto" stands for."""

import pytest
import torch

from bottleneck.extraction.settings import (
    LANE_PIXELS,
    MAX_LANE_BATCH,
    image_bytes,
    most_images,
    most_lanes,
    parse_batch_size,
)


@pytest.mark.parametrize(
    ("side", "batch_size"), [(224, 8), (600, 1), (2000, 1), (112, 32), (16, MAX_LANE_BATCH)], ids=str
)
def test_large_images_go_through_in_small_batches(side, batch_size):
    assert parse_batch_size("auto", torch.device("cpu"), (side, side)) == batch_size
    assert batch_size == 1 or batch_size * side**2 <= LANE_PIXELS


def test_lanes_are_no_more_than_memory_has_room_for():
    assert most_lanes(8, (224, 224), 64 * 2**30) > 64
    assert most_lanes(8, (224, 224), 2 * 2**30) == 2
    assert most_lanes(1, (4000, 4000), 2**30) == 1


def test_memory_limit_counts_the_images_in_all_lanes_together():
    assert most_images(None, (224, 224)) is None
    assert most_images(10 * image_bytes((224, 224)), (224, 224)) == 10
    assert most_images(1, (224, 224)) == 1
