"""The images that a report shows one by one: which they are, what is known of each, and groups of them."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import PurePath

import numpy as np
from numpy.typing import NDArray

from bottleneck.estimators import TransferClassifier
from bottleneck.report.evaluate import Evaluation
from bottleneck.report.nearness import Nearness, features_of, measure_nearness
from bottleneck.report.overlap import Overlap
from bottleneck.report.pictures import fair_share, picture
from bottleneck.report.suspects import MOST_SUSPECTS, Suspect, likely_label_errors

MOST_LISTED = 3000
"""Images shown one by one: all of most test sets. Their pictures share what a file of 15 MB has room for."""

MISTAKES_SHARE = 0.75
"""How many of the listed images may be mistakes, where not all images can be listed."""

MOST_MISTAKES = 24
"""As many as fill a screen."""

MOST_SEEN = 12
MOST_GROUPS = 30
N_LIKELIEST = 5
"""Classes of which the probability is told for each image."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Listed:
    """One image.

    Attributes
    ----------
    row : int
        Of the test set.
    id, name : str
        What errors call the image, and the last part of it.
    true, predicted : int
        Positions in the labels.
    certainty : float
        As in Evaluation.
    likeliest : tuple of (int, float)
        The classes of the highest scores, the highest first.
    neighbours : tuple of int
        The most similar other images, by position in the gallery.
    place : tuple of float, or None
        Where it lies on the map, from 0 to 1.
    suspect : bool
        Whether its label is probably wrong.
    copies : int or None
        Which group of copies it belongs to.
    seen : bool
        Whether it is among the training images, as far as that was looked for.
    picture : str
        A WebP in base64; empty if the image can no longer be read.
    """

    row: int
    id: str
    name: str
    true: int
    predicted: int
    certainty: float
    likeliest: tuple[tuple[int, float], ...]
    neighbours: tuple[int, ...]
    place: tuple[float, float] | None
    suspect: bool
    copies: int | None
    seen: bool
    picture: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Doubt:
    """A likely label error: which image of the gallery, and what speaks for it."""

    image: int
    suggested: str
    n_agreeing: int
    n_neighbours: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Copies:
    """Images of the gallery that show the same picture."""

    images: tuple[int, ...]
    exact: bool
    n_labels: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Gallery:
    """The images that are shown one by one.

    Attributes
    ----------
    labels : tuple of str
    images : tuple of Listed
        Mistakes first, the most certain ones first among these; then the others by row.
    n_images : int
        Images that were predicted, listed or not.
    mistakes : tuple of int
        The most certain mistakes, by position in ``images``.
    doubts : tuple of Doubt
    n_doubts : int
        With those that are not shown.
    copies : tuple of Copies
    n_copies : int
        Groups, with those that are not shown.
    seen : tuple of int
        Images that are among the training images.
    """

    labels: tuple[str, ...]
    images: tuple[Listed, ...]
    n_images: int
    mistakes: tuple[int, ...]
    doubts: tuple[Doubt, ...]
    n_doubts: int
    copies: tuple[Copies, ...]
    n_copies: int
    seen: tuple[int, ...]


def collect_gallery(classifier: TransferClassifier, evaluation: Evaluation, overlap: Overlap | None = None) -> Gallery:
    """Choose the images to list, measure how they lie to each other, and make their pictures."""
    chosen = choose_listed(evaluation)
    listed = features_of(classifier, evaluation.source, evaluation.rows[chosen])
    indices = chosen[np.isin(evaluation.rows[chosen], listed.rows)]  # a file may have gone since it was predicted
    nearness = measure_nearness(listed, evaluation.true[indices])
    share = fair_share(len(indices))
    seen = np.zeros(len(evaluation.rows), dtype=np.bool_) if overlap is None else overlap.seen
    return compose_gallery(
        evaluation, indices, nearness, seen, lambda row: picture(evaluation.source, row, most_bytes=share)
    )


def choose_listed(evaluation: Evaluation, *, most: int = MOST_LISTED) -> NDArray[np.int64]:
    """Return the images to list, as positions in the evaluation: mistakes, the most certain first, then others.

    Where there are more than ``most``, a part of the room is for a random sample of the images that are right.
    """
    wrong, right = np.flatnonzero(~evaluation.correct), np.flatnonzero(evaluation.correct)
    wrong = wrong[np.argsort(-evaluation.certainty[wrong], kind="stable")]
    room = max(round(MISTAKES_SHARE * most), most - len(right))
    wrong = wrong[:room]
    if len(wrong) + len(right) > most:
        right = np.sort(np.random.default_rng(0).choice(right, most - len(wrong), replace=False))
    return np.concatenate([wrong, right])


def compose_gallery(
    evaluation: Evaluation,
    indices: NDArray[np.int64],
    nearness: Nearness,
    seen: NDArray[np.bool_],
    show: Callable[[int], str],
) -> Gallery:
    """Describe the listed images.

    Parameters
    ----------
    evaluation : Evaluation
    indices : int64 array (m,)
        The images, as positions in the evaluation.
    nearness : Nearness
        Of these images.
    seen : bool array (n,)
        Which images of the evaluation are among the training images.
    show : callable
        Returns the picture of a row of the source.
    """
    suspects = likely_label_errors(evaluation, indices, nearness.neighbours)
    position = {int(index): i for i, index in enumerate(indices.tolist())}
    doubted = {position[suspect.index] for suspect in suspects}
    group_of = {image: number for number, group in enumerate(nearness.copies) for image in group.tolist()}
    images = tuple(
        _listed(
            evaluation,
            index,
            nearness,
            i,
            suspect=i in doubted,
            copies=group_of.get(i),
            seen=bool(seen[index]),
            show=show,
        )
        for i, index in enumerate(indices.tolist())
    )
    wrong = [i for i, image in enumerate(images) if image.true != image.predicted]
    copies = tuple(_copies(images, nearness))
    return Gallery(
        labels=evaluation.labels,
        images=images,
        n_images=len(evaluation.rows),
        mistakes=tuple(wrong[:MOST_MISTAKES]),
        doubts=tuple(_doubt(evaluation, suspect, position) for suspect in suspects[:MOST_SUSPECTS]),
        n_doubts=len(suspects),
        copies=copies[:MOST_GROUPS],
        n_copies=len(copies),
        seen=tuple(i for i, image in enumerate(images) if image.seen)[:MOST_SEEN],
    )


def _listed(
    evaluation: Evaluation,
    index: int,
    nearness: Nearness,
    i: int,
    *,
    suspect: bool,
    copies: int | None,
    seen: bool,
    show: Callable[[int], str],
) -> Listed:
    row = int(evaluation.rows[index])
    scores = evaluation.scores[index]
    likeliest = np.argsort(-scores, kind="stable")[:N_LIKELIEST]
    name = evaluation.source.ids[row]
    return Listed(
        row=row,
        id=name,
        name=PurePath(name).name,
        true=int(evaluation.true[index]),
        predicted=int(likeliest[0]),
        certainty=float(scores[likeliest[0]]),
        likeliest=tuple((int(code), float(scores[code])) for code in likeliest),
        neighbours=tuple(nearness.neighbours[i].tolist()),
        place=(float(nearness.places[i, 0]), float(nearness.places[i, 1])) if i < len(nearness.places) else None,
        suspect=suspect,
        copies=copies,
        seen=seen,
        picture=show(row),
    )


def _doubt(evaluation: Evaluation, suspect: Suspect, position: dict[int, int]) -> Doubt:
    return Doubt(
        image=position[suspect.index],
        suggested=evaluation.labels[suspect.suggested],
        n_agreeing=suspect.n_agreeing,
        n_neighbours=suspect.n_neighbours,
    )


def _copies(images: tuple[Listed, ...], nearness: Nearness) -> Iterable[Copies]:
    """Return the groups of copies, those with contradicting labels first."""
    found = [
        Copies(images=tuple(group.tolist()), exact=exact, n_labels=len({images[i].true for i in group.tolist()}))
        for group, exact in zip(nearness.copies, nearness.exact, strict=True)
    ]
    return sorted(found, key=lambda group: (-group.n_labels, -len(group.images)))
