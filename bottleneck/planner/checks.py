"""Numbers that records may hold."""

from math import inf

from bottleneck.errors import wrong_parameter


def check_number(owner: str, param: str, value: float, *, low: float, high: float = inf) -> None:
    """Raise unless ``value`` is a finite number within its bounds."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not (number and low <= value <= high and value < inf):
        raise wrong_parameter(owner, param, f"a number{_bounds(low, high)}", value)


def check_whole(owner: str, param: str, value: int, *, low: float, high: float = inf) -> None:
    """Raise unless ``value`` is an ``int`` within its bounds."""
    if not (type(value) is int and low <= value <= high):
        raise wrong_parameter(owner, param, f"an int{_bounds(low, high)}", value)


def _bounds(low: float, high: float) -> str:
    return f" of at least {low}" if high == inf else f" between {low} and {high}"
