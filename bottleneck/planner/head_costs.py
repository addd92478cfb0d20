"""What heads take: a guess from sizes until one was fitted, then what that one took."""

from bottleneck.planner.estimates import times, within
from bottleneck.planner.memory import MOST_SCREENED
from bottleneck.planner.records import Estimate, Profile, Request

HEAD_START_SECONDS, LOGIT_SECONDS, FIT_SECONDS, SCREEN_SECONDS = 0.12, 4.2e-6, 2.6e-8, 3.0e-10
"""A head on the penultimate layer, and the ridge regressions that screen all stages: seconds once in a process, for
each row and class, for each row, feature and class, and for each product of the (n, d) matrix that is screened, d
features of all stages, with one of min(n, d) columns. Fitted to 51 such heads on two cores (six tasks, three backbones,
50 to 2,000 rows of 176 to 2,728 features, 2 to 20 classes) and to one of 5,000 rows, 768 features and 100 classes,
which took 13 s; the fit is 27 % off (root mean square of logarithms)."""
HEAD_FACTOR = 2.0
"""Allowance: a head's time is a guess within this factor, as processors differ, until the head has been fitted."""
FURTHER_FROM, MOST_FURTHER, FURTHER_FACTOR = 2_000, 3.0, 1.5
"""A head on all stages, which screens nothing, took 0.5 to 1.5 times as long as the first with up to so many rows. The
more rows there are, the less of the first is screening, which stops at 4,096: 3.0 times with 6,000 rows of five times
as many features, 2.1 with 20,000."""
FOLD_SHARE_OF_HEAD = 0.5
"""The head of a fold has fewer rows and its normalisation; it took 0.2 to 0.6 times as long as one on all of them."""
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
    logits, width = profile.n_samples * profile.n_classes, profile.n_features_all_stages
    rows = min(profile.n_samples, MOST_SCREENED)
    fit = logits * (LOGIT_SECONDS + FIT_SECONDS * min(profile.n_features, profile.n_samples))
    return within(HEAD_START_SECONDS + fit + SCREEN_SECONDS * rows * width * min(rows, width), HEAD_FACTOR)


def further_head_seconds(request: Request) -> Estimate:
    """Return the time of a further head, on all stages."""
    seconds = times(head_seconds(request), further_share(request.profile))
    return Estimate(value=seconds.value, low=seconds.low / FURTHER_FACTOR, high=seconds.high * FURTHER_FACTOR)


def further_share(profile: Profile) -> float:
    """Return how many times as long as the first head one on all stages takes."""
    wider = profile.n_features_all_stages / profile.n_features
    return min(max(profile.n_samples / FURTHER_FROM, 1.0), max(wider, 1.0), MOST_FURTHER)


def fold_head_seconds(request: Request) -> Estimate:
    """Return the time of the head that a training in a fold starts from, if that is on all stages."""
    return times(head_seconds(request), FOLD_SHARE_OF_HEAD * further_share(request.profile))


def signal_seconds(profile: Profile) -> Estimate:
    """Return the time of what is asked of the images once more: nothing, if the cache has all their features."""
    if profile.rows_cached >= profile.n_samples or profile.has_layer_norm:  # which as a rule has no BatchNorm
        return within(0.0, 1.0)
    seen = n_shift_images(profile.n_samples, side=profile.image_side)
    seconds = seen * (profile.forward_seconds_per_image + profile.decode_seconds_per_image)
    return within(SHIFT_FACTOR * seconds, HEAD_FACTOR)


def n_shift_images(n_images: int, *, side: int) -> int:
    """Return on how many images it is measured how strange they are to BatchNorm."""
    most = min(SHIFT_MOST, SHIFT_PIXELS // side**2, int(SHIFT_SHARE * n_images))
    return min(n_images, max(SHIFT_LEAST, most))
