"""What a test accuracy means, in sentences."""

import math

from bottleneck.planner import Alternative
from bottleneck.planner.wording import label, percent, points
from bottleneck.report.metrics import Share
from bottleneck.report.overlap import Overlap


def judge(
    accuracy: Share,
    *,
    majority: float,
    estimate: Share | None,
    probe: Share | None,
    n_unseen: int,
    overlap: Overlap | None = None,
) -> tuple[str, ...]:
    """Hold the test accuracy against always answering one class, the estimate from training, and the linear probe.

    ``probe`` is its out-of-fold accuracy, None where the probe itself is what was delivered. ``overlap`` is None where
    the training images are not known.
    """
    return (
        _against_majority(accuracy, majority),
        _against_estimate(accuracy, estimate, overlap),
        *_against_probe(estimate, probe),
        *_unseen(accuracy, n_unseen),
        *_no_overlap(overlap),
    )


def against_plan(chosen: Alternative, accuracy: Share, *, delivered: bool) -> str:
    """Say what the plan expected of the strategy that it chose, and whether that came true."""
    name = label(chosen.strategy)
    if chosen.accuracy is None:
        return f"Planned: {name}, whose accuracy could not be foreseen."
    low, high = chosen.accuracy.low, chosen.accuracy.high
    bounds = f"{100 * low:.1f} to {100 * high:.1f}"
    expected = f"Planned: {name}; expected: {percent(chosen.accuracy.value)} ({bounds})"
    if not delivered:
        return f"{expected}. Something else was delivered."
    where = "inside" if low <= accuracy.value <= high else "above" if accuracy.value > high else "below"
    return f"{expected}. The test accuracy of {percent(accuracy.value)} is {where} that range."


def difference_interval(first: Share, second: Share) -> tuple[float, float]:
    """Return the 95 % interval of ``first - second``, two independent shares.

    Newcombe (1998), Interval estimation for the difference between independent proportions, method 10.
    """
    difference = first.value - second.value
    below = math.hypot(first.value - first.low, second.high - second.value)
    above = math.hypot(first.high - first.value, second.value - second.low)
    return difference - below, difference + above


def _against_majority(accuracy: Share, majority: float) -> str:
    gain = points(accuracy.value - majority)
    if accuracy.low > majority:
        return f"Clearly better than always answering the most frequent class: {gain}."
    if accuracy.value > majority:
        return f"Not clearly better than always answering the most frequent class: {gain}, which chance can give."
    return f"No better than always answering the most frequent class: {gain}."


def _against_estimate(accuracy: Share, estimate: Share | None, overlap: Overlap | None) -> str:
    if estimate is None:
        return "There is no out-of-fold estimate to compare with: no training image could be held out."
    low, high = difference_interval(accuracy, estimate)
    difference = points(accuracy.value - estimate.value)
    if high < 0:
        return (
            f"Clearly below the out-of-fold estimate: {difference}. The test images are harder than the training "
            "images, or differ from them."
        )
    if low > 0:
        return (
            f"Clearly above the out-of-fold estimate: {difference}. The test images are easier than the training "
            f"images, or some of them are {_among_training(overlap)}."
        )
    return f"In line with the out-of-fold estimate: {difference}, which chance can give."


def _against_probe(estimate: Share | None, probe: Share | None) -> tuple[str, ...]:
    """Compare two accuracies on the training images: a probe was never asked about the test images."""
    if estimate is None or probe is None:
        return ()
    gain = points(estimate.value - probe.value)
    return (f"Out of fold the linear probe has {percent(probe.value)}: what was delivered changes that by {gain}.",)


def _among_training(overlap: Overlap | None) -> str:
    if overlap is None:
        return "among the training images (compare the two: X_train, or --train)"
    return "among the training images" if overlap.n_seen else "pictures from the training images, saved again"


def _no_overlap(overlap: Overlap | None) -> tuple[str, ...]:
    """Say that the test images are new, as far as that can be seen; where some are not, the page begins with that."""
    if overlap is None or overlap.n_seen:
        return ()
    return (f"No test image is a copy of one of the {overlap.n_training:,} training images.",)


def _unseen(accuracy: Share, n_unseen: int) -> tuple[str, ...]:
    """Say what images count as wrong because their label was never learnt."""
    if n_unseen == 0:
        return ()
    plural = "1 image has a label" if n_unseen == 1 else f"{n_unseen:,} images have labels"
    rest = accuracy.n - n_unseen
    without = f"; without, the accuracy is {percent(accuracy.n_right / rest)} of {rest:,} images" if rest else ""
    return (f"{plural} that training never saw, which counts as wrong{without}.",)
