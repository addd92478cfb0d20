"""The probe that fine-tuning starts from, with all that it was fitted to: it can be fitted again to a part of that."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone

from bottleneck.heads import LogisticHead
from bottleneck.heads.blocks import RowBlocks
from bottleneck.heads.duplicates import cut, group_copies, mark_rows
from bottleneck.heads.folds import Folds, deal_parts

ProbeFeatures = NDArray[np.float32] | RowBlocks


def take_rows(features: ProbeFeatures, rows: NDArray[np.int64]) -> ProbeFeatures:
    """Return some rows of features as what these are, an array or blocks."""
    return features[rows] if isinstance(features, np.ndarray) else features.take(rows)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Probe:
    """A fitted head with the features (n, n_features), labels, weights and groups of all images."""

    head: LogisticHead
    features: ProbeFeatures
    labels: NDArray[np.generic]
    sample_weight: NDArray[np.float64]
    groups: NDArray[np.intp] | None = None

    def deal_folds(self, n_folds: int, rng: np.random.Generator) -> Folds:
        """Deal the images to folds, copies and groups together."""
        codes, features = codes_of(self.labels, self.head), self.features
        blocks = cut(features) if isinstance(features, np.ndarray) else features
        marks = mark_rows(blocks, n_samples=len(codes), n_features=self.head.n_features_in_)
        n_folds, parts = deal_parts(n_folds, group_copies(marks, codes), codes, rng, groups=self.groups)
        held_out = parts == np.arange(n_folds)[:, None]
        return Folds(train=~held_out, held_out=held_out)

    def refitted_on(self, rows: NDArray[np.int64], *, seed: int) -> LogisticHead:
        """Return a head with the same normalisation that has seen ``rows`` only, C chosen among them."""
        # One normalisation for all: the network of a fold is trained further as that of all images.
        fresh: LogisticHead = clone(self.head).set_params(random_state=seed, normalize=self.head.normalize_)
        return fresh.fit(
            take_rows(self.features, rows),
            self.labels[rows],
            sample_weight=self.sample_weight[rows],
            groups=None if self.groups is None else self.groups[rows],
        )


def codes_of(labels: NDArray[np.generic], head: LogisticHead) -> NDArray[np.int64]:
    """Return the index of each label among the classes of ``head``."""
    return np.searchsorted(head.classes_, labels)
