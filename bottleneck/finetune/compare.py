"""Decides whether fine-tuning beats the probe on images that neither has seen."""

import math
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from bottleneck.heads.evidence import mean_and_se

ALPHAS = (0.0, 0.25, 0.5, 0.75, 1.0)
"""How far along the path networks are compared: 0 is the probe, 1 is fine-tuned."""

SHARES = (0.0, 0.4, 0.7, 0.9, 1.0)
"""How much of what fine-tuning gains is gained at each alpha: about the medians on unseen images of the cells of
tests/benchmarks/results/planner_cells.jsonl in which it gained 3 points and more (0.45, 0.74, 0.93, 1)."""

CAREFUL_ALPHA = 0.25
"""Where the network that images choose is refused, the one here is asked the same, and to be right on more images: what
little it changes is mostly for the better. Of 368 fine-tunings (tests/benchmarks/results/planner_cells.jsonl) 12 were
kept that way; on unseen images they were right on 1.2 points more than the probe (-1.5 to +3.5; 8 of them on more),
where their ends were 4 points worse to 12 better. Two others, of images near to those of pretraining, that were right
on as many held-out images lost 0.9 and 1.8 points."""

PROBABILITY_COUNTS = 0.25
"""Of what an image counts, the part that is the probability given to its class; the other part is whether it is right.
The gain on test images of the network trained on all images was 0.74 times the gain in the latter plus 0.30 times that
in the former, on the images held out (least squares, 119 cells of tests/benchmarks/results/planner_cells.jsonl). Few
images tell more that way. On images near to those of pretraining a network is also surer where it is no better."""

IN_DOUBT_Z = 1.64
"""Standard errors by which fine-tuning must look worse or better than the probe not to be in doubt. Of ten fine-tunings
of the embedded backbone on images near to its own (200 of nine kinds of things) three were kept for 0.2 to 1 standard
errors on 67 images, and were 2 to 6 points worse on others."""

PARTS, SPLITS, MOST_CHOICES = 5, 20, 100_000
"""Into so many parts held-out images are split, so many times, to see what the choice of alpha is worth on images that
it did not see; of many images, once will do. Where nothing is gained, with 50 images and accuracies that err together
from one alpha to the next (correlation 0.8), what is chosen looks 4.1 points better on the images that it was chosen
on, and 0.1 points so (standard error 0.2)."""

SCORES = ("correct", "log_loss", "margin")
"""What is kept of each held-out image at each alpha."""

LEAST_PROBA = 1e-7
"""Probabilities below count as this in the log-loss, so that one image cannot outvote all others."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class HeldOut:
    """How each held-out image was predicted at each alpha, the probe (alpha 0) first.

    Attributes
    ----------
    correct : bool array (n, n_alphas)
    log_loss : float array (n, n_alphas)
    margin : float array (n, n_alphas)
        Logarithm of the probability of the image's class over that of the most probable other one.
    weights : float array (n,)
    groups : int array (n,) or None
        Images of one group err together; None: each by itself.
    """

    correct: NDArray[np.bool_]
    log_loss: NDArray[np.float64]
    margin: NDArray[np.float64]
    weights: NDArray[np.float32]
    groups: NDArray[np.intp] | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Expected:
    """What fine-tuning was expected to gain over the probe before it was tried: mean and standard deviation."""

    gain: float
    spread: float


@dataclass(frozen=True, kw_only=True, slots=True)
class AlphaScore:
    """How networks at ``alpha`` did on the held-out images."""

    alpha: float
    accuracy: float
    log_loss: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """Fine-tuning against the probe, image by image, on images that neither has seen.

    Images count with their sample weight times the weight of their class: with ``class_weight="balanced"`` an
    accuracy is the balanced accuracy.

    Attributes
    ----------
    n_images : int
        Images compared.
    probe_accuracy : float
    more_right : float
        Mean difference in correctness of the network that would be delivered.
    measured : float
        Mean difference in what images count, at the alpha that others of them choose, or at a quarter of the way if
        ``careful``: three quarters for being right, one quarter times the probability of their class.
    standard_error : float
        Of the latter.
    gain : float
        The latter weighed against what was expected, each by how sure it is; all that is measured if nothing was.
    doubt : float
        Standard deviation of the gain.
    z : float
        How many of these the gain had to exceed.
    alpha : float
        The point of the path from the probe (0) to the fine-tuned network (1) to deliver; 0 if that is the probe.
    path : tuple of AlphaScore
    accepted : bool
    careful : bool
        Whether the network to deliver is the one a quarter of the way, because that at the alpha chosen was refused.
    in_doubt : bool
        Whether neither the probe nor the end of the path is clearly better: more images might say otherwise.
    expected : Expected or None
    """

    n_images: int
    probe_accuracy: float
    more_right: float
    measured: float
    standard_error: float
    gain: float
    doubt: float
    z: float
    alpha: float
    path: tuple[AlphaScore, ...]
    accepted: bool
    careful: bool = False
    in_doubt: bool = False
    expected: Expected | None = None

    @property
    def refused_as_chosen(self) -> bool:
        """Whether the network at the alpha that images choose is not good enough."""
        return self.careful or not self.accepted

    @property
    def tuned_accuracy(self) -> float:
        """The probe's accuracy and the gain."""
        return self.probe_accuracy + self.gain


def score_proba(
    proba: NDArray[np.float64], codes: NDArray[np.int64]
) -> tuple[NDArray[np.bool_], NDArray[np.float64], NDArray[np.float64]]:
    """Return the :data:`SCORES` (n,) of class probabilities (n, n_classes)."""
    rows = np.arange(len(codes))
    logs = np.log(np.maximum(proba, LEAST_PROBA))
    own = logs[rows, codes]
    logs[rows, codes] = -np.inf
    return proba.argmax(axis=1) == codes, -own, own - logs.max(axis=1)


def compare(held_out: HeldOut, *, z: float, expected: Expected | None = None, end_alone: bool = False) -> Comparison:
    """Decide whether fine-tuning is kept: images count for more, no fewer are right, the gain exceeds ``z`` doubts.

    The network that would be delivered is compared. Its alpha is chosen on the same images, and the best of four would
    look better than it is; so each image counts as at the alpha that others choose. If that network is refused, the one
    at :data:`CAREFUL_ALPHA`, which nothing chose, is asked the same, and to be right on more. ``end_alone``: the end of
    the path is all that may be delivered, as where the path does not begin at the probe and leads through networks that
    are good for nothing.
    """
    counted = counts(held_out)
    gains = counted - counted[:, :1]
    ask = partial(verdict, held_out, at_the_end=gains[:, -1], z=z, expected=expected)
    if end_alone:
        return ask(gains[:, -1], alpha=1.0)
    chosen = ask(gains_as_others_choose(held_out, expected), alpha=choose_alpha(held_out, expected))
    if chosen.accepted:
        return chosen
    careful = ask(gains[:, ALPHAS.index(CAREFUL_ALPHA)], alpha=CAREFUL_ALPHA)
    return replace(careful, careful=True) if careful.accepted and careful.more_right > 0 else chosen


def verdict(
    held_out: HeldOut,
    gains: NDArray[np.float64],
    *,
    alpha: float,
    at_the_end: NDArray[np.float64],
    z: float,
    expected: Expected | None,
) -> Comparison:
    """Return whether the network at ``alpha`` is kept, of which images have the ``gains`` (n,)."""
    path, index = path_scores(held_out), ALPHAS.index(alpha)
    measured, standard_error = gain_of(gains, held_out)
    gain, doubt = weighed(measured, standard_error, expected, share=SHARES[index])
    gain = min(gain, 1 - path[0].accuracy)
    more_right = path[index].accuracy - path[0].accuracy
    accepted = more_right >= 0 and measured > 0 and gain > z * doubt
    gain_there, error_there = gain_of(at_the_end, held_out)
    return Comparison(
        n_images=len(held_out.weights),
        probe_accuracy=path[0].accuracy,
        more_right=more_right,
        measured=measured,
        standard_error=standard_error,
        gain=gain,
        doubt=doubt,
        z=z,
        alpha=alpha if accepted else 0.0,
        path=path,
        accepted=accepted,
        in_doubt=abs(gain_there) < IN_DOUBT_Z * error_there,
        expected=expected,
    )


def counts(held_out: HeldOut) -> NDArray[np.float64]:
    """Return what each image counts (n, n_alphas): 1 if it is right and sure, 0 if it is wrong and sure."""
    return (1 - PROBABILITY_COUNTS) * held_out.correct + PROBABILITY_COUNTS * np.exp(-held_out.log_loss)


def gain_of(gains: NDArray[np.float64], held_out: HeldOut) -> tuple[float, float]:
    """Return the mean gain of images (n,), and the standard error of that.

    Images that all agree on still leave a doubt of one image, or group.
    """
    units = units_of(held_out)
    gain, standard_error = mean_and_se(gains, held_out.weights, units)
    return gain, max(standard_error, float(1 / (units.max() + 1)))


def units_of(held_out: HeldOut) -> NDArray[np.intp]:
    """Return the number (n,), from 0 on, of the image or the group that each image belongs to."""
    groups = held_out.groups
    return np.arange(len(held_out.weights)) if groups is None else np.unique(groups, return_inverse=True)[1]


def weighed(gain: float, standard_error: float, expected: Expected | None, *, share: float) -> tuple[float, float]:
    """Return a gain, and its standard deviation, that is measured where ``share`` of what is expected is gained."""
    if expected is None:
        return gain, standard_error
    spread = share * expected.spread
    weight = spread**2 / (spread**2 + standard_error**2)
    return weight * gain + (1 - weight) * share * expected.gain, math.sqrt(weight) * standard_error


def choose_alpha(held_out: HeldOut, expected: Expected | None) -> float:
    """Return the alpha above 0 with the largest gain, as far as images and what was expected tell."""
    smooth = smoothed(counts(held_out))
    gains = [
        weighed(*gain_of(smooth[:, index] - smooth[:, 0], held_out), expected, share=SHARES[index])[0]
        for index in range(1, len(ALPHAS))
    ]
    # Where alphas are equally good rounding must not choose.
    return ALPHAS[1 + int(np.argmax(np.round(gains, 9)))]


def gains_as_others_choose(held_out: HeldOut, expected: Expected | None) -> NDArray[np.float64]:
    """Return the gain (n,) of each image at the alpha that images of other parts choose, on average of splits."""
    counted, units = counts(held_out), units_of(held_out)
    gains, n_units = counted - counted[:, :1], int(units.max()) + 1
    if n_units == 1:
        return gains[:, -1]
    n_splits, rng = min(SPLITS, max(1, MOST_CHOICES // n_units)), np.random.default_rng(0)
    found = np.zeros(len(units))
    for _ in range(n_splits):
        part_of = rng.permutation(n_units) % PARTS
        for part in range(min(PARTS, n_units)):
            inside = part_of[units] == part
            alpha = choose_alpha(those_of(held_out, ~inside), expected)
            found[inside] += gains[inside, ALPHAS.index(alpha)] / n_splits
    return found


def those_of(held_out: HeldOut, rows: NDArray[np.bool_]) -> HeldOut:
    """Return some of the images."""
    return HeldOut(
        correct=held_out.correct[rows],
        log_loss=held_out.log_loss[rows],
        margin=held_out.margin[rows],
        weights=held_out.weights[rows],
        groups=None if held_out.groups is None else held_out.groups[rows],
    )


def smoothed(counted: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return values (n, n_alphas) averaged with those of the alphas next to them, twice as much of their own.

    The probe's, at alpha 0, are not mixed with others.
    """
    values = counted[:, 1:]
    padded = np.pad(values, ((0, 0), (1, 1)), mode="edge")
    means = (padded[:, :-2] + 2 * values + padded[:, 2:]) / 4
    return np.concatenate([counted[:, :1], means], axis=1)


def path_scores(held_out: HeldOut) -> tuple[AlphaScore, ...]:
    """Return the weighted accuracy and log-loss at each alpha."""
    accuracy = np.average(held_out.correct, axis=0, weights=held_out.weights)
    log_loss = np.average(held_out.log_loss, axis=0, weights=held_out.weights)
    return tuple(
        AlphaScore(alpha=alpha, accuracy=float(right), log_loss=float(loss))
        for alpha, right, loss in zip(ALPHAS, accuracy, log_loss, strict=True)
    )
