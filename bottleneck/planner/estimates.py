"""Arithmetic on predictions and their bounds."""

from bottleneck.planner.records import Estimate


def within(value: float, factor: float) -> Estimate:
    """Return an estimate that may be off by a factor."""
    return Estimate(value=value, low=value / factor, high=value * factor)


def plus(a: Estimate, b: Estimate) -> Estimate:
    """Add two estimates, bound by bound."""
    return Estimate(value=a.value + b.value, low=a.low + b.low, high=a.high + b.high)


def times(a: Estimate, factor: float) -> Estimate:
    """Multiply an estimate."""
    return Estimate(value=a.value * factor, low=a.low * factor, high=a.high * factor)


def at_most(a: Estimate, limit: float | None) -> Estimate:
    """Return an estimate of what ends at a limit, if there is one."""
    if limit is None:
        return a
    return Estimate(value=min(a.value, limit), low=min(a.low, limit), high=min(a.high, limit))
