"""Decides whether fine-tuning beats the probe on images that neither has seen."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bottleneck.heads.evidence import mean_and_se

ALPHAS = (0.0, 0.25, 0.5, 0.75, 1.0)
"""How far along the path networks are compared: 0 is the probe, 1 is fine-tuned."""

N_PARTS = 10
"""Parts of the held-out images whose alpha is chosen on the other parts, so that choosing is not rewarded."""

LEAN = 1.0
"""By how many standard errors the far end of the path is preferred to its beginning when a point of it is chosen.

Held-out images see networks that learned from fewer images, and at n = 50 and 200 (35 cells of 13 tasks, ResNet-20)
the best point on unseen images was mostly farther out than the most accurate one on those held out."""

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
    gain : float
        Mean difference in correctness, at the alpha chosen and those next to it: less is left to chance than at one
        alone. The alpha of each tenth of the images was chosen on the other nine.
    standard_error : float
        Of the gain.
    z : float
        How many standard errors the gain had to exceed.
    alpha : float
        The point of the path from the probe (0) to the fine-tuned network (1) to deliver; 0 if that is the probe.
    path : tuple of AlphaScore
    accepted : bool
    """

    n_images: int
    probe_accuracy: float
    gain: float
    standard_error: float
    z: float
    alpha: float
    path: tuple[AlphaScore, ...]
    accepted: bool

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


def compare(held_out: HeldOut, *, z: float, seed: int) -> Comparison:
    """Decide whether fine-tuning is kept: its gain must be positive and exceed ``z`` standard errors."""
    n_images = len(held_out.weights)
    units = np.arange(n_images) if held_out.groups is None else np.unique(held_out.groups, return_inverse=True)[1]
    part = (np.random.default_rng(seed).permutation(units.max() + 1) % N_PARTS)[units]
    choice = np.array([choose_alpha(held_out, part != number) for number in range(N_PARTS)])[part]
    rows, smooth = np.arange(n_images), smoothed(held_out.correct)
    gain, standard_error = mean_and_se(smooth[rows, choice] - held_out.correct[:, 0], held_out.weights, units)
    accepted = gain > max(z * standard_error, 0.0)
    path = path_scores(held_out)
    return Comparison(
        n_images=n_images,
        probe_accuracy=path[0].accuracy,
        gain=gain,
        standard_error=standard_error,
        z=z,
        alpha=ALPHAS[choose_alpha(held_out, np.ones(n_images, dtype=bool))] if accepted else 0.0,
        path=path,
        accepted=accepted,
    )


def smoothed(correct: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return correctness (n, n_alphas) averaged with that of the alphas next to it, twice as much of its own.

    The probe's, at alpha 0, is not mixed with others.
    """
    values = correct[:, 1:].astype(float)
    padded = np.pad(values, ((0, 0), (1, 1)), mode="edge")
    means = (padded[:, :-2] + 2 * values + padded[:, 2:]) / 4
    return np.concatenate([correct[:, :1], means], axis=1)


def choose_alpha(held_out: HeldOut, rows: NDArray[np.bool_]) -> int:
    """Return the index above 0 of the alpha to trust on ``rows``: accurate with its neighbours, and rather far out."""
    correct, weights = held_out.correct[rows], held_out.weights[rows]
    _, error = mean_and_se(correct[:, -1].astype(float) - correct[:, 0], weights)
    accuracy = np.average(smoothed(correct), axis=0, weights=weights) + LEAN * error * np.array(ALPHAS)
    return 1 + int(accuracy[1:].argmax())


def path_scores(held_out: HeldOut) -> tuple[AlphaScore, ...]:
    """Return the weighted accuracy and log-loss at each alpha."""
    accuracy = np.average(held_out.correct, axis=0, weights=held_out.weights)
    log_loss = np.average(held_out.log_loss, axis=0, weights=held_out.weights)
    return tuple(
        AlphaScore(alpha=alpha, accuracy=float(right), log_loss=float(loss))
        for alpha, right, loss in zip(ALPHAS, accuracy, log_loss, strict=True)
    )
