from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import Dataset, IterableDataset, Subset, TensorDataset

from bottleneck.errors import InvalidInputError, UnreadableImagesError
from bottleneck.images import ImageReadError, ImageSource, as_image_source, as_labelled_source, decode

from .contract import SourceContract
from .samples import Pixels, encode, picture

PICTURES = [picture(seed) for seed in range(3)]
LABELS = ["cat", "dog", "cat"]


class Items(Dataset[object]):
    """A data set that makes each item when it is asked for, and counts how often."""

    def __init__(self, make: Callable[[int], object]) -> None:
        self.make = make
        self.asked = 0

    def __len__(self) -> int:
        return len(PICTURES)

    def __getitem__(self, row: int) -> object:
        assert type(row) is int
        self.asked += 1
        return self.make(row)


class WithTargets(Items):
    targets = LABELS


def bare(row: int) -> object:
    return Image.fromarray(PICTURES[row])


def pair(row: int) -> object:
    return Image.fromarray(PICTURES[row]), LABELS[row]


def record(row: int) -> object:
    return {"image": {"bytes": encode(PICTURES[row]), "path": None}, "label": LABELS[row]}


class DatasetContract(SourceContract):
    make: Callable[[int], object]

    @pytest.fixture
    def expected(self) -> list[Pixels]:
        return PICTURES

    @pytest.fixture
    def source(self) -> ImageSource:
        return as_image_source(Items(type(self).make))


class TestBareItems(DatasetContract):
    make = staticmethod(bare)


class TestPairs(DatasetContract):
    make = staticmethod(pair)


class TestRecords(DatasetContract):
    make = staticmethod(record)


@pytest.mark.parametrize("make", [pair, record])
def test_labels_come_with_the_items(make: Callable[[int], object]) -> None:
    source, labels = as_labelled_source(Items(make), None)

    assert labels.tolist() == LABELS
    np.testing.assert_array_equal(np.asarray(decode(source.read(1))), PICTURES[1])


def test_labels_are_read_from_targets_without_decoding() -> None:
    dataset = WithTargets(pair)

    _, labels = as_labelled_source(dataset, None)

    assert labels.tolist() == LABELS
    assert dataset.asked == 0


def test_targets_go_through_the_transform_that_items_go_through() -> None:
    dataset = WithTargets(pair)
    dataset.target_transform = str.upper

    assert as_labelled_source(dataset, None)[1].tolist() == ["CAT", "DOG", "CAT"]


def test_subsets_of_datasets_keep_the_targets() -> None:
    dataset = WithTargets(pair)

    source, labels = as_labelled_source(Subset(dataset, [1, 2]), None)

    assert labels.tolist() == ["dog", "cat"]
    assert dataset.asked == 0
    np.testing.assert_array_equal(np.asarray(decode(source.read(0))), PICTURES[1])


def test_tensor_datasets_work() -> None:
    images = torch.from_numpy(np.stack(PICTURES)).permute(0, 3, 1, 2)

    source, labels = as_labelled_source(TensorDataset(images, torch.tensor([1, 0, 1])), None)

    assert labels.tolist() == [1, 0, 1]
    np.testing.assert_array_equal(np.asarray(decode(source.read(2))), PICTURES[2])


def test_given_labels_win_over_those_of_the_dataset() -> None:
    assert as_labelled_source(WithTargets(pair), [3, 1, 2])[1].tolist() == [3, 1, 2]


def test_items_without_labels_are_an_error() -> None:
    with pytest.raises(InvalidInputError, match="carry no label: item 0 is an object of type Image"):
        as_labelled_source(Items(bare), None)


def broken(row: int) -> object:
    if row != 1:
        raise OSError(f"cannot identify image file {row}")
    return pair(row)


def test_a_bad_image_in_a_dataset_is_an_error_of_that_image() -> None:
    with pytest.raises(ImageReadError, match="cannot identify image file 0"):
        as_image_source(Items(broken)).read(0)


def test_bad_images_that_hide_their_labels_are_all_named() -> None:
    with pytest.raises(UnreadableImagesError) as error:
        as_labelled_source(Items(broken), None)

    assert [failure.row for failure in error.value.failures] == [0, 2]


def buggy(row: int) -> object:
    raise KeyError("a bug in the data set")


def test_a_bug_in_a_dataset_is_not_hidden() -> None:
    with pytest.raises(KeyError):
        as_image_source(Items(buggy)).read(0)


def unknown(row: int) -> object:
    return {"img": picture(row), "fine_label": row}


def test_records_with_other_keys_say_which_they_have() -> None:
    with pytest.raises(ImageReadError, match="keys 'img', 'fine_label'"):
        as_image_source(Items(unknown)).read(0)


class Stream(IterableDataset[object]):
    def __iter__(self) -> object:
        return iter(())


def test_iterable_datasets_are_refused() -> None:
    with pytest.raises(InvalidInputError, match=r"type Stream instead. Pass list\(X\)"):
        as_image_source(Stream())


def test_image_folders_of_torchvision_work(tmp_path: Path) -> None:
    from bottleneck.torchvision_door import torchvision

    torchvision()
    from torchvision.datasets import ImageFolder

    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.png").write_bytes(encode(PICTURES[0]))

    source, labels = as_labelled_source(ImageFolder(tmp_path), None)

    assert labels.tolist() == [0, 1]
    np.testing.assert_array_equal(np.asarray(decode(source.read(0))), PICTURES[0])


def test_hugging_face_datasets_and_columns_work() -> None:
    datasets = pytest.importorskip("datasets")
    rows = {"image": [{"bytes": encode(pixels), "path": None} for pixels in PICTURES], "label": LABELS}
    features = datasets.Features({"image": datasets.Image(), "label": datasets.Value("string")})
    dataset = datasets.Dataset.from_dict(rows, features=features)

    source, labels = as_labelled_source(dataset, None)
    undecoded = dataset.cast_column("image", datasets.Image(decode=False))

    assert labels.tolist() == LABELS
    for images in (source, as_image_source(dataset["image"]), as_image_source(undecoded["image"])):
        assert len(images) == 3
        np.testing.assert_array_equal(np.asarray(decode(images.read(2))), PICTURES[2])
