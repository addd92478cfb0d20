"""Test images whose label is probably wrong: two witnesses that do not know of each other must say so."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bottleneck.report.evaluate import Evaluation

MOST_SUSPECTS = 24


@dataclass(frozen=True, kw_only=True, slots=True)
class Suspect:
    """An image of the evaluation whose label is doubted.

    Attributes
    ----------
    index : int
        Position in the evaluation.
    suggested : int
        The class that it probably shows.
    margin : float
        How much more probable the suggested class is than the label.
    n_agreeing, n_neighbours : int
        How many of the most similar test images have the suggested label.
    """

    index: int
    suggested: int
    margin: float
    n_agreeing: int
    n_neighbours: int


def confident_others(true: NDArray[np.int64], proba: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the class that each image is confidently counted as, (n,), -1 for none.

    Confident learning (Northcutt, Jiang and Chuang 2021, section 3.1): an image counts as a class if its probability
    is at least the mean probability that the images of that label have of it, as the most probable one of several.
    Labels that are no class (codes from ``n_classes`` on) take no part.
    """
    n_classes = proba.shape[1]
    own = np.where(true < n_classes, true, 0)
    known = true < n_classes
    counts = np.bincount(own[known], minlength=n_classes)
    sums = np.bincount(own[known], weights=proba[np.flatnonzero(known), own[known]], minlength=n_classes)
    thresholds = np.divide(sums, counts, out=np.full(n_classes, np.inf), where=counts > 0)
    confident = np.where(proba >= thresholds, proba, -1.0)
    best: NDArray[np.int64] = confident.argmax(axis=1)
    counted: NDArray[np.int64] = np.where(known & (confident.max(axis=1) >= 0), best, -1)
    return counted


def likely_label_errors(
    evaluation: Evaluation, indices: NDArray[np.int64], neighbours: NDArray[np.int64]
) -> tuple[Suspect, ...]:
    """Return the likely label errors among some images of the evaluation, the clearest first.

    The classifier must count the image as another class than its label, and at least half of its most similar test
    images must have that other label. Neither witness has learnt from the label that it doubts.

    Parameters
    ----------
    evaluation : Evaluation
    indices : int64 array (m,)
        The images that have neighbours, as positions in the evaluation.
    neighbours : int64 array (m, k)
        Positions in ``indices`` of the most similar other images of the test set.
    """
    if not evaluation.has_proba or not neighbours.size:
        return ()
    true = evaluation.true[indices]
    counted = confident_others(evaluation.true, evaluation.scores)[indices]
    agreeing = (true[neighbours] == counted[:, None]).sum(axis=1)
    doubted = np.flatnonzero((counted >= 0) & (counted != true) & (2 * agreeing >= neighbours.shape[1]))
    found = [
        Suspect(
            index=int(indices[i]),
            suggested=int(counted[i]),
            margin=float(evaluation.scores[indices[i], counted[i]] - evaluation.scores[indices[i], true[i]]),
            n_agreeing=int(agreeing[i]),
            n_neighbours=neighbours.shape[1],
        )
        for i in doubted.tolist()
    ]
    return tuple(sorted(found, key=lambda suspect: -suspect.margin))
