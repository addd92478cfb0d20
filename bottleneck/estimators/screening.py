"""What a sample of the rows says of the layers: closed-form leave-one-out, in bounded memory."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from bottleneck.estimators.frozen import FrozenFeatures, rows_of
from bottleneck.estimators.layers import join_layers
from bottleneck.heads import ScreenResult, screen_features
from bottleneck.heads.folds import deal
from bottleneck.heads.normalize import Normalization
from bottleneck.heads.screen import MAX_ROWS

MIN_GROUPS = 100
"""Groups, of which one row each is screened, below which their noise would say more than the layers do."""


def screened_rows(
    labels: NDArray[np.generic],
    *,
    sample_weight: NDArray[np.float64] | None,
    groups: NDArray[np.intp] | None,
    seed: int,
    limit: int = MAX_ROWS,
) -> NDArray[np.int64]:
    """Return the sorted rows to screen: all that count, or a stratified sample of ``limit``; of a group only one.

    Leave-one-out would otherwise let each row be vouched for by others of its group.
    """
    rng = np.random.default_rng(seed)
    rows = np.arange(len(labels)) if sample_weight is None else np.flatnonzero(sample_weight > 0)
    if groups is not None:
        shuffled = rng.permutation(rows)
        _, first = np.unique(groups[shuffled], return_index=True)
        rows = np.sort(shuffled[first])
    if len(rows) > limit:
        codes = np.unique(labels[rows], return_inverse=True)[1]
        rows = rows[deal(codes, -(-len(rows) // limit), rng) == 0]
    return rows


def screen_layers(
    features: FrozenFeatures,
    labels: NDArray[np.generic],
    *,
    layers: Sequence[str],
    sample_weight: NDArray[np.float64] | None,
    groups: NDArray[np.intp] | None,
    normalization: Normalization,
    seed: int,
    limit: int = MAX_ROWS,
) -> ScreenResult | None:
    """Compare "penultimate" with "all_stages"; None where groups are too few to tell."""
    rows = screened_rows(labels, sample_weight=sample_weight, groups=groups, seed=seed, limit=limit)
    if groups is not None and (len(rows) < MIN_GROUPS or np.unique(labels[rows], return_counts=True)[1].max() < 2):
        return None
    read = {layer: rows_of(features, layer, rows) for layer in layers}
    blocks = {"penultimate": read["penultimate"]}
    if len(read) > 1:
        blocks["all_stages"] = join_layers(read, layers)
    # One normalisation, the head's own, makes the layers comparable, and each costs an eigendecomposition.
    return screen_features(
        blocks,
        labels[rows],
        sample_weight=None if sample_weight is None else sample_weight[rows],
        normalizations=(normalization,),
        random_state=seed,
    )


def screen_early_stages(
    features: FrozenFeatures,
    labels: NDArray[np.generic],
    *,
    layers: Sequence[str],
    sample_weight: NDArray[np.float64] | None,
    groups: NDArray[np.intp] | None,
    normalization: Normalization,
    seed: int,
    limit: int = MAX_ROWS,
) -> float:
    """Return the leave-one-out accuracy of the earlier half of the stages alone, on the rows that are screened.

    Apart from the others, so that a learning curve is never that of a head which nobody would deliver.
    """
    rows = screened_rows(labels, sample_weight=sample_weight, groups=groups, seed=seed, limit=limit)
    stages = [layer for layer in layers if layer != "penultimate"]
    early = stages[: (len(stages) + 1) // 2]
    screen = screen_features(
        {"early_stages": join_layers({layer: rows_of(features, layer, rows) for layer in early}, early)},
        labels[rows],
        sample_weight=None if sample_weight is None else sample_weight[rows],
        normalizations=(normalization,),
        random_state=seed,
    )
    return screen.best("early_stages").loo_accuracy
