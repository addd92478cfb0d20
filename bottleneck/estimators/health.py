"""Measures what is wrong with the labelled images themselves: copies, doubtful labels, classes that folds leave out.

Nothing here decides anything: findings are for people, and stand in the plan.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone

from bottleneck.cache import FeatureCache
from bottleneck.estimators.frozen import FrozenFeatures, OneLayer, layer_of
from bottleneck.features import Features, FeaturesOnDisk
from bottleneck.features.keyed import KeyedRows
from bottleneck.heads.duplicates import MANY_ROWS
from bottleneck.heads.near_copies import find_copies
from bottleneck.heads.training import make_folds, make_generator, parse_training_set
from bottleneck.images import ImageReadError, ImageSource, subset
from bottleneck.planner import ClassCount, Finding, ImageSet, ListedImage
from bottleneck.planner.health import (
    copies_findings,
    few_images_findings,
    folds_findings,
    groups_findings,
    most_serious_first,
    not_searched_finding,
    suspects_finding,
)

if TYPE_CHECKING:
    from bottleneck.estimators.run import Run

SUSPECT_SHARE_OF_CHANCE = 0.1
"""A label is doubted whose out-of-fold probability is under a tenth of 1 / n_classes, or of the mean of its class where
that is less, as of classes of very few images ..."""
SUSPECT_OTHER = 0.5
"""... where another class has more than half.

Measured with 5 % of the labels changed at random, MobileNetV2, over seeds: of the images found, those that had been
changed, and of those changed, the found: ants and bees (244 images) 100 and 35 %; textures 75 and 38 % (200), 86 and
50 % (800); clothing 90 and 47 % (300), 93 and 41 % (1,000), 96 and 50 % (2,500); fashion_mnist 95 and 47 % (1,000).
With no label changed 0.5 to 1.8 % of the images are found. The thresholds of confident learning (Northcutt, Jiang and
Chuang 2021), class by class the mean probability that images have of their own label, find 70 %, and 18 to 41 % of what
they find in ten classes is right; neighbours as second witnesses make that 28 to 53 %."""

HASHED_BYTES = 256_000_000
"""Files of equal size that are read to tell exact copies before anything is extracted; not if they are more."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Listing:
    """Names the images that count, those with a positive weight, by their position among them.

    ``rows`` (n,) are their rows in what was passed as X, ``labels`` (n,) their labels.
    """

    source: ImageSource
    places: NDArray[np.intp]
    rows: NDArray[np.int64]
    labels: NDArray[Any]

    def image(self, i: int, **doubt: Any) -> ListedImage:
        """Return one image as findings list it."""
        return ListedImage(
            row=int(self.rows[i]), id=self.source.ids[int(self.places[i])], label=str(self.labels[i]), **doubt
        )

    def images(self, positions: Iterable[int]) -> ImageSet:
        """Return a set of images as findings list it."""
        return tuple(self.image(i) for i in positions)

    def class_counts(self, codes: Iterable[int] | None = None) -> tuple[ClassCount, ...]:
        """Return these classes, by their position in sorted order, or all, with how many images each has."""
        names, counts = np.unique(self.labels, return_counts=True)
        chosen = range(len(names)) if codes is None else codes
        return tuple(ClassCount(label=str(names[i]), n_images=int(counts[i])) for i in chosen)


def labels_health(run: "Run") -> tuple[Finding, ...]:
    """Say what labels, groups and files show before anything is extracted."""
    listing = _listing(run, np.arange(len(run.source)))
    exact = sets_of(_numbers_by_content_of_equal_files(run, listing))
    return most_serious_first(
        (
            *few_images_findings(listing.class_counts()),
            *_groups(run, listing),
            *_copies(run, listing, exact=exact, near=[]),
        )
    )


def data_health(run: "Run", features: FrozenFeatures, head: Any) -> tuple[Finding, ...]:
    """Say what is wrong with the images, from their labels, their penultimate features and the head fitted to these.

    ``run`` is the part of a run that could be read, of which ``features`` are.
    """
    listing = _listing(run, features.kept)
    layer = _counted_rows(layer_of(features, "penultimate"), listing)
    copies = find_copies(layer, listing.labels)
    content = _numbers_by_content(run, features, listing, copies.same)
    near = [found for found in sets_of(copies.alike) if len(np.unique(content[found])) > 1]
    proba = getattr(head, "oof_proba_", None)
    return most_serious_first(
        (
            *few_images_findings(listing.class_counts()),
            *_groups(run, listing),
            *_copies(run, listing, exact=sets_of(content), near=near),
            *(() if proba is None else _suspects(listing, proba[listing.places], head.classes_)),
            *_folds(run, listing, features, proba),
            *not_searched_finding(
                _not_searched(searched=copies.searched, has_proba=proba is not None), len(run.labels)
            ),
        )
    )


def sets_of(numbers: NDArray[np.intp]) -> list[NDArray[np.intp]]:
    """Return the positions of each number that occurs more than once, in order of their first."""
    shared = np.flatnonzero(np.bincount(numbers)[numbers] > 1)
    ordered = shared[np.argsort(numbers[shared], kind="stable")]
    ends = np.flatnonzero(np.diff(numbers[ordered])) + 1
    found = np.split(ordered, ends) if len(ordered) else []
    return sorted(found, key=lambda positions: int(positions[0]))


def doubted(codes: NDArray[np.intp], proba: NDArray[np.floating[Any]]) -> NDArray[np.intp]:
    """Return the rows whose label is probably wrong, the clearest first, from out-of-fold probabilities (n, n_classes).

    ``codes`` (n,) are the columns of the labels; rows of NaN were not held out.
    """
    own, n_classes = proba[np.arange(len(codes)), codes], proba.shape[1]
    held = ~np.isnan(own)
    counts = np.bincount(codes[held], minlength=n_classes)
    usual = np.bincount(codes[held], weights=own[held], minlength=n_classes) / np.maximum(counts, 1)
    best = np.nan_to_num(proba).max(axis=1)
    least = SUSPECT_SHARE_OF_CHANCE * np.minimum(usual, 1 / n_classes)[codes]
    found = np.flatnonzero((own < least) & (best > SUSPECT_OTHER))
    return found[np.argsort(own[found] / best[found], kind="stable")]


def _listing(run: "Run", rows: NDArray[np.int64]) -> Listing:
    weight = run.sample_weight
    places = np.arange(len(run.source)) if weight is None else np.flatnonzero(weight > 0)
    return Listing(source=run.source, places=places, rows=rows[places], labels=run.labels[places])


def _counted_rows(layer: OneLayer, listing: Listing) -> OneLayer:
    """Return the rows of a layer that count."""
    if len(listing.places) == len(layer):
        return layer
    return layer[listing.places] if isinstance(layer, np.ndarray) else layer.take(listing.places)


def _copies(
    run: "Run", listing: Listing, *, exact: list[NDArray[np.intp]], near: list[NDArray[np.intp]]
) -> tuple[Finding, ...]:
    """Return what copies there are, and which of them lie in several groups."""
    leaking: list[NDArray[np.intp]] = []
    if run.groups is not None:
        groups = run.groups[listing.places]
        joined = {i for positions in near for i in positions.tolist()}
        found = [*near, *(positions for positions in exact if int(positions[0]) not in joined)]
        leaking = [positions for positions in found if len(np.unique(groups[positions])) > 1]
    return copies_findings(
        exact=[listing.images(positions) for positions in exact],
        near=[listing.images(positions) for positions in near],
        across_groups=[listing.images(positions) for positions in leaking],
    )


def _groups(run: "Run", listing: Listing) -> tuple[Finding, ...]:
    """Return which classes have one group only, and which groups have several classes."""
    if run.groups is None:
        return ()
    codes = np.unique(listing.labels, return_inverse=True)[1]
    pairs, first = np.unique(np.column_stack([run.groups[listing.places], codes]), axis=0, return_index=True)
    n_groups_of_class = np.bincount(pairs[:, 1])
    # A class of one image has a finding of its own.
    alone = np.flatnonzero((n_groups_of_class == 1) & (np.bincount(codes) > 1))
    by_group = np.unique(pairs[:, 0], return_inverse=True)[1]
    return groups_findings(
        in_one_group=listing.class_counts(alone.tolist()),
        mixed=[listing.images(first[members].tolist()) for members in sets_of(by_group)],
        n_groups=int(by_group.max()) + 1,
    )


def _suspects(listing: Listing, proba: NDArray[np.floating[Any]], classes: NDArray[Any]) -> tuple[Finding, ...]:
    """Return which labels are probably wrong."""
    codes = np.searchsorted(classes, listing.labels)
    found = doubted(codes, proba)
    suspects = [
        listing.image(i, suggested=str(classes[proba[i].argmax()]), proba=float(proba[i, codes[i]]))
        for i in found.tolist()
    ]
    return suspects_finding(suspects, below=SUSPECT_SHARE_OF_CHANCE / len(classes), above=SUSPECT_OTHER)


def _folds(
    run: "Run", listing: Listing, features: FrozenFeatures, proba: NDArray[np.floating[Any]] | None
) -> tuple[Finding, ...]:
    """Return which classes the head's folds never hold out, and which they hold out without having seen them."""
    if proba is None:
        return ()
    names, codes, counts = np.unique(listing.labels, return_inverse=True, return_counts=True)
    held = np.bincount(codes[~np.isnan(proba[listing.places, 0])], minlength=len(names)) > 0
    known = counts == 1  # a class of one image has a finding of its own, and so has one of one group
    if run.groups is not None:
        pairs = np.unique(np.column_stack([codes, run.groups[listing.places]]), axis=0)
        known |= np.bincount(pairs[:, 0]) == 1
    return folds_findings(
        never_held_out=listing.class_counts(np.flatnonzero(~held & ~known).tolist()),
        not_trained=listing.class_counts(_not_trained(run, features)),
    )


def _not_trained(run: "Run", features: FrozenFeatures) -> list[int]:
    """Return the classes that some fold holds out and does not train on: only splits of the user's can do that.

    Folds that are dealt without groups part every class, and "loo" leaves no class out. Splits that come out
    differently each time do not tell.
    """
    cv = getattr(run.head, "cv", 0)
    is_random = getattr(cv, "random_state", 0) is None and getattr(cv, "shuffle", True)
    is_dealt = isinstance(cv, str) or (isinstance(cv, int | np.integer) and run.groups is None)
    if is_dealt or is_random or not isinstance(features, Features):
        return []
    head = clone(run.head)
    training = parse_training_set(
        head,
        features.layers["penultimate"],
        run.labels,
        sample_weight=run.sample_weight,
        class_weight=None,
        groups=run.groups,
    )
    folds = make_folds(cv, training, make_generator(head.random_state))
    members = np.eye(len(training.classes), dtype=bool)[training.labels]
    tested, trained = folds.held_out.astype(int) @ members, folds.train.astype(int) @ members
    return np.flatnonzero(((tested > 0) & (trained == 0)).any(axis=0)).tolist()


def _not_searched(*, searched: bool, has_proba: bool) -> list[str]:
    """Say what was left out of the search."""
    missing = [] if searched else [f"near copies (which is done up to {MANY_ROWS:,})"]
    return missing if has_proba else [*missing, "wrong labels (no head that was fitted from disk tells)"]


def _numbers_by_content(
    run: "Run", features: FrozenFeatures, listing: Listing, same: NDArray[np.intp]
) -> NDArray[np.intp]:
    """Return the same number for images of the same content; only those whose features are the ``same`` can have it."""
    if isinstance(features, FeaturesOnDisk):
        return _numbers(features.keys[listing.places])
    positions = np.flatnonzero(np.bincount(same)[same] > 1)
    return _numbered_among(run, listing, positions)


def _numbers_by_content_of_equal_files(run: "Run", listing: Listing) -> NDArray[np.intp]:
    """Return the same number for files of the same content: only those of equal size are read, and few enough."""
    alone = np.arange(len(listing.places))
    if len(listing.places) > MANY_ROWS:
        return alone
    sizes = np.array([_file_size(run.source, place) for place in listing.places.tolist()], dtype=np.int64)
    _, number, counts = np.unique(sizes, return_inverse=True, return_counts=True)
    positions = np.flatnonzero((sizes > 0) & (counts[number] > 1))
    return _numbered_among(run, listing, positions) if sizes[positions].sum() <= HASHED_BYTES else alone


def _file_size(source: ImageSource, row: int) -> int:
    """Return the bytes of an image's file, 0 where it is none or cannot be looked at."""
    try:
        found = source.stat(row)
    except ImageReadError:
        return 0
    return 0 if found is None else found.size


def _numbered_among(run: "Run", listing: Listing, positions: NDArray[np.intp]) -> NDArray[np.intp]:
    """Return a number for each image, the same for those at ``positions`` that have the same content."""
    numbers = np.arange(len(listing.places))
    if not len(positions):
        return numbers
    keys, readable = _content_keys(
        subset(run.source, listing.places[positions]), run.cache, workers=run.extractor.workers
    )
    numbers[positions[readable]] = len(numbers) + _numbers(keys)
    return np.unique(numbers, return_inverse=True)[1]


def _content_keys(
    source: ImageSource, cache: FeatureCache, *, workers: int
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return the keys of the images that can be read, and which these are; files that the cache knows are not read."""
    keyed = KeyedRows(source=source, rows=np.arange(len(source)), cache=cache, workers=workers)
    keyed.resolve()
    return keyed.keys[keyed.readable()], keyed.readable()


def _numbers(keys: NDArray[np.uint8]) -> NDArray[np.intp]:
    """Number equal keys (n, 16) alike."""
    return np.unique(np.ascontiguousarray(keys).view("V16").ravel(), return_inverse=True)[1]
