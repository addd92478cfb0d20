"""Images in map-style data sets (torch, Hugging Face, or anything with a length and items), and their labels."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, cast, runtime_checkable

from PIL import Image
from torch.utils.data import Subset

from bottleneck.errors import ImageFailure, InvalidInputError, UnreadableImagesError
from bottleneck.images.content import Content, ImageReadError
from bottleneck.images.items import ONE_AT_A_TIME, content_of, describe
from bottleneck.images.source import RowNames


@runtime_checkable
class MapStyle(Protocol):
    """A length and items by row."""

    def __len__(self) -> int: ...
    def __getitem__(self, row: int) -> object: ...


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class DatasetSource:
    """The images of a data set whose items are an image, ``(image, label)``, or a dict with ``"image"``.

    Items are fetched one at a time, because data sets are written for one thread in each process.
    """

    dataset: MapStyle

    @property
    def ids(self) -> Sequence[str]:
        """``image 0``, ``image 1``, ..."""
        return RowNames(range(len(self.dataset)))

    def __len__(self) -> int:
        return len(self.dataset)

    def read(self, row: int) -> Content:
        """Return the content of the image in one item."""
        match _item(self.dataset, row):
            case (image, _):
                return content_of(image)
            case {"image": image}:
                return content_of(image)
            case image:
                return content_of(image)

    def stat(self, row: int) -> None:
        """Return None: a data set does not say which files it reads."""
        return None


def dataset_labels(dataset: MapStyle) -> Sequence[object]:
    """Return the label of every item, from ``targets`` or a column ``"label"`` where there is one: no image is read.

    Raises
    ------
    InvalidInputError
        The items carry no label.
    UnreadableImagesError
        Labels can only be had by reading the images, and some cannot be read.
    """
    if isinstance(dataset, Subset):
        labels = dataset_labels(cast("MapStyle", dataset.dataset))
        return [labels[row] for row in dataset.indices]
    targets: Iterable[object] | None = getattr(dataset, "targets", None)
    if targets is not None:
        change = getattr(dataset, "target_transform", None)
        return [target if change is None else change(target) for target in targets]
    if "label" in (getattr(dataset, "column_names", None) or ()):
        return list(cast("Mapping[str, Iterable[object]]", dataset)["label"])
    return _labels_of_items(dataset)


def _labels_of_items(dataset: MapStyle) -> list[object]:
    labels: list[object] = []
    failures: list[ImageFailure] = []
    for row in range(len(dataset)):
        try:
            item = _item(dataset, row)
        except ImageReadError as exc:
            failures.append(ImageFailure(row=row, id=f"image {row}", reason=exc.reason))
            continue
        match item:
            case (_, label) | {"label": label}:
                labels.append(label)
            case _:
                raise InvalidInputError(
                    f"y is None, and the items of X carry no label: item {row} is {describe(item)}. "
                    'Pass y, or a data set of (image, label) items or of dicts with "image" and "label".'
                )
    if failures:
        raise UnreadableImagesError(failures)
    return labels


def _item(dataset: MapStyle, row: int) -> object:
    """Return one item; what goes wrong with its file or values is about that image, anything else is a bug to show."""
    try:
        with ONE_AT_A_TIME:
            return dataset[row]
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as exc:
        raise ImageReadError(f"the data set cannot give it: {exc}") from exc
