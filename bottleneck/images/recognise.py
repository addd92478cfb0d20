"""What X and y are: the border where whatever users have becomes an image source and an array of labels."""

import os
from collections.abc import Iterable, Mapping, Set
from typing import TypeGuard

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.utils.data import DataLoader

from bottleneck.errors import InvalidInputError
from bottleneck.images.arrays import array_source
from bottleneck.images.content import ImageReadError
from bottleneck.images.datasets import DatasetSource, MapStyle, dataset_labels
from bottleneck.images.files import FileSource, stat_file
from bottleneck.images.folders import find_images, find_labelled_images, only_images
from bottleneck.images.items import array_of_tensor, list_source
from bottleneck.images.labels import as_labels
from bottleneck.images.manifest import is_manifest, manifest_source
from bottleneck.images.remote import is_remote_folder, is_url, list_urls
from bottleneck.images.source import ImageSource

ACCEPTED = (
    "a folder, a CSV or Parquet table of paths, a list of image paths, a list of Pillow images or encoded bytes, an "
    "array (n, h, w), (n, h, w, c) or (n, c, h, w), a column of a DataFrame, or a map-style data set"
)


def as_image_source(X: object, *, image_shape: tuple[int, ...] | None = None) -> ImageSource:
    """Recognise images in any of the accepted forms.

    Parameters
    ----------
    X : str, path-like, bytes, Pillow image, sequence, array, tensor, column, data set or ImageSource
        Images: a folder (searched at every depth, natural order), a .csv or .parquet table with a column of paths,
        one image, or many: paths, bytes, Pillow images, arrays of one or several shapes, a torch or Hugging Face data
        set whose items are images, ``(image, label)`` or dicts with ``"image"``. Folders, tables and paths may be
        addresses for fsspec (s3://...). No file is touched but the listing of a folder, and tables.
    image_shape : (h, w) or (h, w, c), optional
        The shape of one image when X is a flattened array (n, h * w * c).

    Raises
    ------
    InvalidInputError
        X is none of these, has no images, or holds items or values that cannot be images (all of them named).
    """
    as_is = image_shape is None or isinstance(X, ImageSource)
    source = _source(X) if as_is else array_source(_flattened(X), image_shape=image_shape)
    if len(source) == 0:
        raise InvalidInputError("X has no images.")
    return source


def as_labelled_source(
    X: object, y: object, *, image_shape: tuple[int, ...] | None = None, min_classes: int = 2
) -> tuple[ImageSource, NDArray[np.generic]]:
    """Recognise images and their labels.

    Parameters
    ----------
    X : as in `as_image_source`
    y : array-like (n,), or None
        None when X carries the labels: a folder of class folders, or a data set of ``(image, label)`` items or of dicts
        with ``"image"`` and ``"label"``.
    image_shape : (h, w) or (h, w, c), optional
        The shape of one image when X is a flattened array.
    min_classes : int
        How many classes there must be: two to fit, one to evaluate.

    Returns
    -------
    source : ImageSource
    labels : ndarray (n,)
        Row i is the label of image i.

    Raises
    ------
    InvalidInputError
        As in `as_image_source`; or the labels are missing, not as many as the images, or of too few classes.
    """
    if y is None:
        source, found = _carried_labels(X)
    elif _is_folder(X):
        raise InvalidInputError(
            f"X is the folder {X}, whose class folders give the labels: y must be None. Pass a list of paths together "
            "with y to say which label belongs to which image."
        )
    else:
        source, found = as_image_source(X, image_shape=image_shape), y
    labels = as_labels(found, min_classes=min_classes)
    if len(labels) != len(source):
        raise InvalidInputError(f"X has {len(source)} images, but y has {len(labels)} labels.")
    return source, labels


def _source(X: object) -> ImageSource:
    match X:
        case ImageSource():
            return X
        case str() | os.PathLike():
            return _path_source(os.fspath(X))
        case bytes() | bytearray() | Image.Image():
            return list_source([X])
        case list() | tuple():
            return list_source(X)
        case torch.Tensor():
            return _array_like_source(array_of_tensor(X))
        case np.ndarray():
            return _array_like_source(X)
    if hasattr(X, "to_numpy"):  # a column of pandas or its relatives
        return _array_like_source(X.to_numpy())
    if isinstance(X, MapStyle) and not isinstance(X, (Mapping, Set)):
        return DatasetSource(dataset=X)
    raise InvalidInputError(
        f"X must be {ACCEPTED}. Got an object of type {type(X).__name__} instead. {_hint(X)}".rstrip()
    )


def _path_source(path: str) -> ImageSource:
    if _is_folder(path):
        return FileSource(ids=find_images(path))
    if is_manifest(path):
        return manifest_source(path)
    if is_url(path) and is_remote_folder(path):
        return FileSource(ids=only_images(list_urls(path), path))
    try:
        stat_file(path)
    except ImageReadError as exc:
        raise InvalidInputError(f"X is the path {path!r}: {exc.reason}.") from exc
    return FileSource(ids=[path])


def _is_folder(X: object) -> TypeGuard[str | os.PathLike[str]]:
    return isinstance(X, (str, os.PathLike)) and os.path.isdir(X)  # noqa: PTH112 (Path.is_dir raises on some of these)


def _array_like_source(array: NDArray[np.generic]) -> ImageSource:
    """Return the source over an array of objects or of numbers."""
    if array.dtype.kind == "S":
        raise InvalidInputError(
            "X holds bytes in a fixed width, which cuts off zeros at their end. Pass a list of bytes."
        )
    if array.dtype.kind not in "OUT":
        return array_source(array)
    if array.ndim == 2 and array.shape[1] == 1:  # one column of a DataFrame, as a ColumnTransformer passes it
        array = array[:, 0]
    if array.ndim != 1:
        raise InvalidInputError(f"X holds objects in the shape {array.shape}. Pass the one column that has the images.")
    return list_source(array.tolist())


def _carried_labels(X: object) -> tuple[ImageSource, object]:
    """Return the images and the labels of a folder of class folders or a data set."""
    if _is_folder(X):
        paths, classes = find_labelled_images(X)
        return FileSource(ids=paths), classes
    source = as_image_source(X)
    if isinstance(source, DatasetSource):
        return source, dataset_labels(source.dataset)
    raise InvalidInputError(
        "y is None, and X carries no labels. Pass y, a folder of class folders, or a data set of (image, label) items."
    )


def _flattened(X: object) -> NDArray[np.generic]:
    """Return the numbers in X, which ``image_shape`` is about."""
    if isinstance(X, torch.Tensor):
        return array_of_tensor(X)
    array = X.to_numpy() if hasattr(X, "to_numpy") else X
    if not isinstance(array, np.ndarray):
        raise InvalidInputError(
            f"image_shape is for flattened arrays (n, h * w * c); leave it out for X of type {type(X).__name__}."
        )
    return array


def _hint(X: object) -> str:
    """Return the next step for what is nearly right."""
    match X:
        case DataLoader():
            return "Pass its data set: X.dataset."
        case Mapping():
            return "Pass one of its values."
        case Iterable():
            return "Pass list(X)."
    return ""
