"""What heads take: a guess from sizes until one was fitted, then what that one took."""

from bottleneck.planner.estimates import times, within
from bottleneck.planner.records import Estimate, ProbeEvidence, Profile, Request

HEAD_START_SECONDS, LOGIT_SECONDS, PRODUCT_SECONDS = 0.12, 5.8e-6, 3.7e-10
"""A head on the penultimate layer, and the ridge regressions that screen all stages: seconds once in a process, for
each row and class, and for each product of an (n, d) matrix, d features of all stages, with one of min(n, d) columns.
Fitted to 53 such heads on two cores: five tasks, three backbones, 50 to 2,000 rows of 176 to 2,728 features; a fit was
off by 27 % (root mean square of logarithms)."""
HEAD_FACTOR = 2.0
"""Allowance: a head's time is a guess within this factor, as processors differ, until the head has been fitted."""
FURTHER_SHARE, FURTHER_FACTOR = 1.0, 1.5
"""A head on all stages, which has more features and screens nothing, took 0.5 to 1.5 times as long as the first."""
FOLD_SHARE_OF_HEAD = 0.5
"""The head of a fold has fewer rows and its normalisation; it took 0.2 to 0.6 times as long as the first."""
SHIFT_SHARE, SHIFT_LEAST, SHIFT_MOST, SHIFT_PIXELS = 0.05, 8, 256, 16 * 224 * 224
"""A twentieth of the images, in these bounds and of no more pixels, go through the network once more, to see how
strange they are to BatchNorm; a large image has more positions to average over."""
SHIFT_FACTOR = 1.5
"""Allowance: this pass is of a network that was not prepared for it."""


def head_seconds(request: Request) -> Estimate:
    """Return the time of the head on the penultimate layer with the screening of all stages."""
    profile, evidence = request.profile, request.evidence
    if evidence is not None:
        return within(evidence.head_seconds, 1.0)
    n, width = profile.n_samples, profile.n_features_all_stages
    screened = PRODUCT_SECONDS * n * width * min(n, width)
    return within(HEAD_START_SECONDS + LOGIT_SECONDS * n * profile.n_classes + screened, HEAD_FACTOR)


def further_head_seconds(request: Request) -> Estimate:
    """Return the time of a further head, on all stages."""
    seconds = times(head_seconds(request), FURTHER_SHARE)
    return Estimate(value=seconds.value, low=seconds.low / FURTHER_FACTOR, high=seconds.high * FURTHER_FACTOR)


def longest_further_head(evidence: ProbeEvidence) -> float:
    """Return the seconds that a head on all stages may take, once the first one is fitted."""
    return FURTHER_SHARE * FURTHER_FACTOR * evidence.head_seconds


def fold_head_seconds(request: Request) -> Estimate:
    """Return the time of the head that a training in a fold starts from."""
    return times(head_seconds(request), FOLD_SHARE_OF_HEAD)


def signal_seconds(profile: Profile) -> Estimate:
    """Return the time of what is asked of the images once more: nothing, if the cache has all their features."""
    if profile.rows_cached >= profile.n_samples:
        return within(0.0, 1.0)
    seen = n_shift_images(profile.n_samples, side=profile.image_side)
    seconds = seen * (profile.forward_seconds_per_image + profile.decode_seconds_per_image)
    return within(SHIFT_FACTOR * seconds, HEAD_FACTOR)


def n_shift_images(n_images: int, *, side: int) -> int:
    """Return on how many images it is measured how strange they are to BatchNorm."""
    most = min(SHIFT_MOST, SHIFT_PIXELS // side**2, int(SHIFT_SHARE * n_images))
    return min(n_images, max(SHIFT_LEAST, most))
