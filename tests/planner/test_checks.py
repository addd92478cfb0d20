from math import inf, nan

import pytest

from bottleneck.errors import InvalidInputError
from bottleneck.planner.checks import check_number, check_whole


@pytest.mark.parametrize("value", [-0.1, 1.1, nan, inf, True, "1", None])
def test_what_is_no_finite_number_within_its_bounds_is_refused(value):
    with pytest.raises(InvalidInputError, match="'share' parameter of Owner must be a number between 0 and 1"):
        check_number("Owner", "share", value, low=0, high=1)


@pytest.mark.parametrize("value", [0, 1.0, True, "1", None])
def test_what_is_no_int_within_its_bounds_is_refused(value):
    with pytest.raises(InvalidInputError, match="'count' parameter of Owner must be an int of at least 1"):
        check_whole("Owner", "count", value, low=1)


def test_bounds_are_allowed():
    check_number("Owner", "share", 1, low=0, high=1)
    check_whole("Owner", "count", 1, low=1)
