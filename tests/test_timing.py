"""What a moment of work takes, an image."""

import time

import numpy as np
import pytest

from bottleneck import timing
from bottleneck.timing import MOST_RUNS, Timed, largest_timed, next_size, seconds_per_image


def test_rate_is_that_of_batches_whatever_a_call_costs():
    pixels = np.zeros((32, 3, 8, 8), np.uint8)

    def work(part):
        time.sleep(0.1 + 0.0005 * len(part))  # one image alone takes 200 times its share

    assert 0.002 < seconds_per_image(work, pixels) < 0.03


def test_a_size_that_was_timed_already_is_not_timed_again():
    sizes = []

    known = Timed(n_images=8, seconds=0.05)
    largest = largest_timed(lambda part: sizes.append(len(part)), np.zeros((32, 1)), known=known)

    assert largest.n_images == 32
    assert min(sizes) > 8
    assert sizes[-MOST_RUNS:] == [32] * MOST_RUNS


def test_a_batch_that_takes_nearly_long_enough_is_not_doubled():
    sizes = []

    def work(part):
        sizes.append(len(part))
        time.sleep(0.02 * len(part))

    largest = largest_timed(work, np.zeros((32, 1)))

    assert 0.15 <= largest.seconds < 0.3
    assert largest.n_images == max(sizes) < 16


@pytest.mark.parametrize(("seconds", "following"), [(0.001, 16), (0.1, 8), (0.19, 8), (5.0, 8)])
def test_the_next_batch_is_two_to_four_times_as_large(seconds, following):
    assert next_size(4, seconds, most=32) == following
    assert next_size(4, seconds, most=5) == 5


def test_a_clock_that_stands_still_gives_no_error(monkeypatch):
    monkeypatch.setattr(timing.time, "perf_counter", lambda: 1.0)

    assert 0 < seconds_per_image(len, np.zeros((32, 1))) < 1e-6
