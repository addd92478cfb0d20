"""The transformer: images in, features out, through the cache."""

from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import TransformerMixin
from sklearn.utils.validation import check_is_fitted
from torch import nn

from bottleneck.backbones import Backbone, load_backbone
from bottleneck.errors import ImageFailure
from bottleneck.estimators.layers import join_layers, layers_of
from bottleneck.estimators.params import RecordParams
from bottleneck.estimators.parse import open_cache
from bottleneck.extraction import ExtractionSettings, Extractor
from bottleneck.features import feature_chunks, parse_on_error, raise_or_warn, settle_precision
from bottleneck.images import as_image_source
from bottleneck.progress import progress_bars


class FeatureExtractor(TransformerMixin, RecordParams):  # type: ignore[misc]  # scikit-learn ships no types
    """A scikit-learn transformer from images to the features of a frozen pretrained backbone.

    Features are computed once and cached by the content of each image, so that shuffles, folds and subsets of the
    same images cost no forward pass.

    Parameters
    ----------
    backbone, weights, cache_dir, device, precision, batch_size, image_shape, verbose
        As in ``TransferClassifier``.
    layers : str
        "penultimate", one stage ("stage1", ...), or "all_stages": every layer, L2-normalised row by row, side by side.
    on_error : {"raise", "skip"}
        Unreadable images: one error that lists them all, or a warning and rows of NaN, so that rows stay aligned.

    Attributes
    ----------
    backbone_ : Backbone
    precision_ : str
        Arithmetic that the features are computed in.
    layers_ : tuple of str
    n_features_out_ : int

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from bottleneck import FeatureExtractor
    >>> images = (load_digits().images[:10] / 16).astype("float32")
    >>> features = FeatureExtractor().fit_transform(images)
    >>> len(features)
    10
    """

    def __init__(
        self,
        backbone: str | nn.Module | Backbone = "embedded",
        *,
        weights: str | Path | None = "default",
        layers: str = "penultimate",
        cache_dir: str | Path | None = None,
        device: str = "auto",
        precision: str = "auto",
        batch_size: int | str = "auto",
        image_shape: tuple[int, ...] | None = None,
        on_error: str = "raise",
        verbose: bool = False,
    ) -> None:
        self.backbone = backbone
        self.weights = weights
        self.layers = layers
        self.cache_dir = cache_dir
        self.device = device
        self.precision = precision
        self.batch_size = batch_size
        self.image_shape = image_shape
        self.on_error = on_error
        self.verbose = verbose

    def fit(self, X: object, y: object = None) -> Self:
        """Load the backbone and settle the arithmetic; nothing is learned from the images.

        Parameters
        ----------
        X : images in any form that ``TransferClassifier.fit`` takes
        y : ignored
        """
        parse_on_error(self.on_error, "FeatureExtractor")
        backbone = load_backbone(self.backbone, self.weights)
        self.layers_ = layers_of(backbone, self.layers)
        source = as_image_source(X, image_shape=self.image_shape)
        self.precision_ = settle_precision(Extractor(backbone, self._settings()), open_cache(self.cache_dir), source)
        self.backbone_ = backbone
        self.n_features_out_ = sum(backbone.layer_widths[layer] for layer in self.layers_)
        return self

    def transform(self, X: object) -> NDArray[np.float32]:
        """Return the features of each image.

        Parameters
        ----------
        X : images in any form that ``TransferClassifier.fit`` takes

        Returns
        -------
        float32 array (n_samples, n_features)
            A row of NaN for an image that could not be read, with ``on_error="skip"``.

        Raises
        ------
        UnreadableImagesError
            Some images cannot be read and ``on_error`` is "raise"; the features of the others are cached.
        """
        check_is_fitted(self)
        parse_on_error(self.on_error, "FeatureExtractor")
        source = as_image_source(X, image_shape=self.image_shape)
        layers = self.layers_
        features = np.full((len(source), self.n_features_out_), np.nan, dtype=np.float32)
        failures: list[ImageFailure] = []
        with progress_bars(enabled=self.verbose) as progress:
            for chunk in feature_chunks(
                source,
                Extractor(self.backbone_, self._settings()),
                open_cache(self.cache_dir),
                precision=self.precision_,
                layers=layers,
                progress=progress,
            ):
                failures += chunk.failures
                features[chunk.rows] = join_layers(chunk.layers, layers)
        raise_or_warn(failures, self.on_error)
        return features

    def get_feature_names_out(self, input_features: object = None) -> NDArray[Any]:
        """Return a name for each feature: the layer and the number of its channel."""
        check_is_fitted(self)
        widths = self.backbone_.layer_widths
        return np.array([f"{layer}_{i}" for layer in self.layers_ for i in range(widths[layer])], dtype=object)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = self.image_shape is not None
        tags.input_tags.three_d_array = True
        tags.input_tags.string = True
        tags.requires_fit = True
        return tags

    def _settings(self) -> ExtractionSettings:
        return ExtractionSettings(device=self.device, precision=self.precision, batch_size=self.batch_size)
