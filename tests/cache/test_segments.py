import numpy as np
import pytest

from bottleneck.cache.segments import NOWHERE, Segments
from bottleneck.errors import InvalidInputError


def where(segments, positions):
    """Return (file, row) of each position."""
    found = [None] * len(positions)
    for part in segments.locate(np.array(positions)):
        assert (np.diff(part.rows) >= 0).all()
        for i, row in zip(part.wanted, part.rows, strict=True):
            found[i] = (part.file, int(row))
    return found


def test_positions_follow_each_other_in_the_order_shards_came():
    segments = Segments()
    segments.cover("a", 3)
    segments.cover("b", 2)

    assert where(segments, [4, 0, 3, 2, 2]) == [("b", 1), ("a", 0), ("b", 0), ("a", 2), ("a", 2)]
    assert segments.n_rows == 5


def test_moved_rows_keep_their_positions_and_only_unknown_rows_get_new_ones():
    segments = Segments()
    segments.cover("a", 3)
    segments.cover("c", 2)
    for file, offset in (("a", 0), ("b", 3), ("c", 7)):  # b was never known here
        segments.move(file, "whole", offset)
    segments.cover("whole", 9)

    assert where(segments, range(5)) == [("whole", 0), ("whole", 1), ("whole", 2), ("whole", 7), ("whole", 8)]
    assert where(segments, range(5, 9)) == [("whole", row) for row in (3, 4, 5, 6)]
    assert segments.n_rows == 9


def test_rows_moved_twice_are_where_the_last_move_put_them():
    segments = Segments()
    segments.cover("a", 2)
    segments.move("a", "b", 5)
    segments.move("b", "c", 10)

    assert where(segments, [0, 1]) == [("c", 15), ("c", 16)]


def test_positions_of_lost_rows_lead_nowhere_and_are_not_given_again():
    segments = Segments()
    segments.cover("a", 2)
    segments.lose(segments.of("a")[0])
    segments.cover("b", 1)

    assert [file for file, _ in where(segments, [0, 1, 2])] == [NOWHERE, NOWHERE, "b"]
    assert segments.files == ["b"]


@pytest.mark.parametrize("position", [-1, 2])
def test_position_that_was_never_given_is_refused(position):
    segments = Segments()
    segments.cover("a", 2)

    with pytest.raises(InvalidInputError, match=f"Got {position}"):
        segments.locate(np.array([0, position]))
