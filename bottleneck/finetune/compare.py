"""Decides whether fine-tuning beats the probe on images that neither has seen."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bottleneck.heads.evidence import mean_and_se

ALPHAS = (0.0, 0.25, 0.5, 0.75, 1.0)
"""How far along the path networks are compared: 0 is the probe, 1 is fine-tuned."""

SHARES = (0.0, 0.4, 0.7, 0.9, 1.0)
"""How much of what fine-tuning gains is gained at each alpha: about the medians on unseen images of the cells of
tests/benchmarks/results/planner_cells.jsonl in which it changed 3 points and more (0.39, 0.68, 0.83, 1)."""

FAR_OUT = 2
"""Index of the first alpha of those that are compared with the probe all together, so that none has to be chosen for
it: choosing among noisy accuracies would reward the noise."""

IN_DOUBT_Z = 1.64
"""Standard errors by which fine-tuning must look worse or better than the probe not to be in doubt. Of ten fine-tunings
of the embedded backbone on images near to its own (200 of nine kinds of things) three were kept for 0.2 to 1 standard
errors on 67 images, and were 2 to 6 points worse on others."""

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
    measured : float
        Mean difference in correctness: of the alphas from 0.5 on, each as much, or at the end of the path alone.
    standard_error : float
        Of that difference.
    gain : float
        The difference weighed against what was expected, each by how sure it is; all that is measured if nothing was.
    doubt : float
        Standard deviation of the gain.
    z : float
        How many of these the gain had to exceed.
    alpha : float
        The point of the path from the probe (0) to the fine-tuned network (1) to deliver; 0 if that is the probe.
    path : tuple of AlphaScore
    accepted : bool
    expected : Expected or None
    """

    n_images: int
    probe_accuracy: float
    measured: float
    standard_error: float
    gain: float
    doubt: float
    z: float
    alpha: float
    path: tuple[AlphaScore, ...]
    accepted: bool
    expected: Expected | None = None

    @property
    def tuned_accuracy(self) -> float:
        """The probe's accuracy and the gain."""
        return self.probe_accuracy + self.gain

    @property
    def in_doubt(self) -> bool:
        """Whether neither is clearly better: more images might say otherwise."""
        return abs(self.measured) < IN_DOUBT_Z * self.standard_error


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
    """Decide whether fine-tuning is kept: more images must be right, and the gain must exceed ``z`` times its doubt.

    ``end_alone``: only the end of the path counts, as where it does not begin at the probe and leads through networks
    that are good for nothing.
    """
    first = len(ALPHAS) - 1 if end_alone else FAR_OUT
    measured, standard_error = gain_of(held_out.correct[:, first:].mean(axis=1), held_out)
    gain, doubt = weighed(measured, standard_error, expected, share=float(np.mean(SHARES[first:])))
    path = path_scores(held_out)
    gain = min(gain, 1 - path[0].accuracy)
    accepted = measured > 0 and gain > z * doubt
    return Comparison(
        n_images=len(held_out.weights),
        probe_accuracy=path[0].accuracy,
        measured=measured,
        standard_error=standard_error,
        gain=gain,
        doubt=doubt,
        z=z,
        alpha=choose_alpha(held_out, expected, first if end_alone else 1) if accepted else 0.0,
        path=path,
        accepted=accepted,
        expected=expected,
    )


def gain_of(correct: NDArray[np.float64], held_out: HeldOut) -> tuple[float, float]:
    """Return by how much more often images are predicted correctly than by the probe, and its standard error.

    Images that all agree on still leave a doubt of one image, or group.
    """
    groups, n_images = held_out.groups, len(correct)
    units = np.arange(n_images) if groups is None else np.unique(groups, return_inverse=True)[1]
    gain, standard_error = mean_and_se(correct - held_out.correct[:, 0], held_out.weights, units)
    return gain, max(standard_error, float(1 / (units.max() + 1)))


def weighed(gain: float, standard_error: float, expected: Expected | None, *, share: float) -> tuple[float, float]:
    """Return a gain, and its standard deviation, that is measured where ``share`` of what is expected is gained."""
    if expected is None:
        return gain, standard_error
    spread = share * expected.spread
    weight = spread**2 / (spread**2 + standard_error**2)
    return weight * gain + (1 - weight) * share * expected.gain, math.sqrt(weight) * standard_error


def choose_alpha(held_out: HeldOut, expected: Expected | None, first: int) -> float:
    """Return the alpha from the ``first`` on with the largest gain, as far as images and what was expected tell."""
    smooth = smoothed(held_out.correct)
    gains = [
        weighed(*gain_of(smooth[:, index], held_out), expected, share=SHARES[index])[0]
        for index in range(first, len(ALPHAS))
    ]
    return ALPHAS[first + int(np.argmax(gains))]


def smoothed(correct: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return correctness (n, n_alphas) averaged with that of the alphas next to it, twice as much of its own.

    The probe's, at alpha 0, is not mixed with others.
    """
    values = correct[:, 1:].astype(float)
    padded = np.pad(values, ((0, 0), (1, 1)), mode="edge")
    means = (padded[:, :-2] + 2 * values + padded[:, 2:]) / 4
    return np.concatenate([correct[:, :1], means], axis=1)


def path_scores(held_out: HeldOut) -> tuple[AlphaScore, ...]:
    """Return the weighted accuracy and log-loss at each alpha."""
    accuracy = np.average(held_out.correct, axis=0, weights=held_out.weights)
    log_loss = np.average(held_out.log_loss, axis=0, weights=held_out.weights)
    return tuple(
        AlphaScore(alpha=alpha, accuracy=float(right), log_loss=float(loss))
        for alpha, right, loss in zip(ALPHAS, accuracy, log_loss, strict=True)
    )
