"""The table that a comparison is: one row a backbone, the most accurate first."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from bottleneck.comparison.explain import as_html, as_text
from bottleneck.comparison.intervals import Interval
from bottleneck.comparison.plot import draw_costs
from bottleneck.optional import require


@dataclass(frozen=True, kw_only=True, slots=True)
class BackboneScore:
    """One backbone on the images of a comparison.

    Attributes
    ----------
    backbone, weights : str
    accuracy : Interval
        Out-of-fold accuracy in [0, 1]. The head chose its normalisation and C inside each fold.
    behind : Interval
        By how much the most accurate backbone is better on the same images; 0 for that one itself.
    seconds : float
        What it took now: extracting or finding the features, and fitting the heads of all folds.
    images_per_second : float
        How fast images become features here, decoding included, when none is cached: timed for a moment.
    weight_bytes, feature_bytes : int
        Size of the network, and of all images' features in the cache.
    n_features : int
        Width of the layer that the head sees.
    rows_extracted, rows_cached : int
        Images that went through the network now, and that were found in the cache.
    """

    backbone: str
    weights: str
    accuracy: Interval
    behind: Interval
    seconds: float
    images_per_second: float
    weight_bytes: int
    feature_bytes: int
    n_features: int
    rows_extracted: int
    rows_cached: int

    @property
    def may_be_best(self) -> bool:
        """Whether these images leave it open that it is as good as the most accurate one."""
        return self.behind.low <= 0


@dataclass(frozen=True, kw_only=True, slots=True, repr=False)
class BackboneComparison:
    """Backbones on the same images, the most accurate first; print it for a table.

    Attributes
    ----------
    scores : tuple of BackboneScore
    n_images : int
        Images that were held out once, by every backbone.
    n_classes, n_folds : int
    majority : float
        Accuracy of always answering the most frequent class.
    """

    scores: tuple[BackboneScore, ...]
    n_images: int
    n_classes: int
    n_folds: int
    majority: float

    def __len__(self) -> int:
        return len(self.scores)

    def __iter__(self) -> Iterator[BackboneScore]:
        return iter(self.scores)

    def __getitem__(self, position: int) -> BackboneScore:
        return self.scores[position]

    @property
    def best(self) -> BackboneScore:
        """The most accurate backbone; of several the fastest."""
        return self.scores[0]

    @property
    def quickest(self) -> BackboneScore:
        """The fastest of those that may be as good as the most accurate."""
        return max((score for score in self.scores if score.may_be_best), key=lambda score: score.images_per_second)

    def labels(self) -> list[str]:
        """Return a name for each backbone; with what tells them apart where two have the same."""
        names = [score.backbone for score in self.scores]
        return [
            f"{score.backbone} ({score.weights}, {score.n_features} features)"
            if names.count(score.backbone) > 1
            else score.backbone
            for score in self.scores
        ]

    def rows(self) -> list[dict[str, Any]]:
        """Return one flat dict a backbone: intervals as NAME, NAME_low and NAME_high."""
        return [_flat(score) for score in self.scores]

    def to_frame(self) -> Any:
        """Return the table as a pandas DataFrame, one row a backbone.

        Raises
        ------
        MissingDependencyError
            pandas is not installed.
        """
        return require("pandas", extra="pandas").DataFrame(self.rows())

    def plot(self, ax: Any = None) -> Any:
        """Draw accuracy against seconds for 1,000 images with matplotlib, and return the axes.

        Parameters
        ----------
        ax : matplotlib axes, optional
            Where to draw; a new figure by default.

        Raises
        ------
        MissingDependencyError
            matplotlib is not installed (the extra ``plot`` brings it).
        """
        axes = require("matplotlib.pyplot", extra="plot").subplots()[1] if ax is None else ax
        draw_costs(axes, self.rows(), self.labels(), majority=self.majority)
        return axes

    def __str__(self) -> str:
        return as_text(self)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return as_html(self)


def _flat(score: BackboneScore) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in asdict(score).items():
        match value:
            case {"value": middle, "low": low, "high": high}:
                flat |= {name: middle, f"{name}_low": low, f"{name}_high": high}
            case _:
                flat[name] = value
    return flat
