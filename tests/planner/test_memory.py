"""What a limit on memory is shared out into."""

from itertools import pairwise

import pytest

from bottleneck.heads.blocks import BYTES_PER_NUMBER
from bottleneck.planner.memory import (
    HEAD_BYTES,
    LEAST_SCREENED,
    MOST_SCREENED,
    RunSizes,
    in_memory_bytes,
    network_share,
    probe_bytes,
    share_out,
    sizes_of,
    streamed_bytes,
    training_bytes,
)

SMALL = RunSizes(
    n_samples=500,
    n_classes=10,
    n_features=512,
    n_features_all_stages=1_440,
    n_parameters=1_350_000,
    image_bytes=4_000_000,
    train_image_bytes=6_000_000,
)
LARGE = RunSizes(
    n_samples=200_000,
    n_classes=100,
    n_features=2_048,
    n_features_all_stages=5_888,
    n_parameters=25_000_000,
    image_bytes=50_000_000,
    train_image_bytes=90_000_000,
)


def test_a_head_is_taken_to_need_what_heads_say_they_need():
    assert HEAD_BYTES == BYTES_PER_NUMBER


def test_sizes_are_those_of_the_profile(profile_of):
    sizes = sizes_of(profile_of(forward_bytes_per_image=70_000_000))

    assert (sizes.image_bytes, sizes.train_image_bytes) == (70_000_000, 70_000_000)
    assert sizes_of(profile_of(forward_bytes_per_image=1)).train_image_bytes == 60_000_000


@pytest.mark.parametrize("sizes", [SMALL, LARGE])
@pytest.mark.parametrize("on_disk", [True, False])
def test_shares_of_any_limit_that_is_enough_stay_within_it(sizes, on_disk):
    least = probe_bytes(sizes, on_disk=on_disk)
    for limit in [least, least + 1, *(round(least * factor) for factor in (1.1, 1.5, 2, 4, 30))]:
        shares = share_out(sizes, limit, on_disk=on_disk)

        held = 0 if on_disk else sizes.features_bytes
        in_memory = in_memory_bytes(sizes) <= limit - sizes.network_bytes - shares.network - held
        features = in_memory_bytes(sizes) if in_memory else streamed_bytes(sizes)
        kept = held + (sizes.features_bytes if in_memory else 0)
        assert in_memory or on_disk
        assert shares.network >= sizes.image_bytes
        assert sizes.network_bytes + shares.network + held + features <= limit
        assert sizes.network_bytes + held + features + shares.pixels <= limit
        if limit >= training_bytes(sizes, on_disk=on_disk):
            batch = min(shares.images_at_once, 32) * sizes.train_image_bytes
            assert sizes.training_bytes + batch + shares.pixels + kept <= limit


@pytest.mark.parametrize("sizes", [SMALL, LARGE])
def test_head_and_features_come_to_the_same_conclusion(sizes):
    whole = HEAD_BYTES * sizes.n_samples * sizes.n_features_all_stages
    for limit in (probe_bytes(sizes, on_disk=True), 2 * in_memory_bytes(sizes) + 4 * sizes.network_bytes):
        shares = share_out(sizes, limit, on_disk=True)

        room = limit - sizes.network_bytes - shares.network
        assert (whole <= shares.features) == (in_memory_bytes(sizes) <= room)


def test_more_memory_never_gives_a_part_less():
    limits = [round(probe_bytes(LARGE, on_disk=True) * 1.2**i) for i in range(25)]
    shares = [share_out(LARGE, limit, on_disk=True) for limit in limits]

    for smaller, larger in pairwise(shares):
        assert smaller.network <= larger.network
        assert smaller.features <= larger.features
        assert smaller.images_at_once <= larger.images_at_once


def test_few_rows_are_screened_where_memory_is_short():
    least = probe_bytes(LARGE, on_disk=True)

    assert LEAST_SCREENED <= share_out(LARGE, least, on_disk=True).screened_rows < MOST_SCREENED // 2
    assert share_out(LARGE, 10 * least, on_disk=True).screened_rows == MOST_SCREENED


def test_an_image_goes_through_the_network_however_small_the_limit():
    assert network_share(LARGE, 1, on_disk=True) == LARGE.image_bytes
    assert share_out(LARGE, 1, on_disk=True).images_at_once == 1
