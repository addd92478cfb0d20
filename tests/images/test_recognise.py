import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from bottleneck.errors import InvalidInputError
from bottleneck.images import as_image_source, as_labelled_source, decode

from .samples import encode, picture, pictures_source, write_pictures

PICTURES = [picture(seed) for seed in range(3)]


def test_everything_that_means_the_same_images_gives_the_same_pixels(tmp_path: Path) -> None:
    paths = write_pictures(tmp_path, ["1.png", "2.png", "10.png"])
    stack = np.stack(PICTURES)

    for X in (
        paths,
        tuple(paths),
        [Path(path) for path in paths],
        np.array(paths),
        np.array(paths, dtype=object),
        np.array(paths)[:, None],
        str(tmp_path),
        tmp_path,
        stack,
        torch.from_numpy(stack),
        torch.from_numpy(stack).permute(0, 3, 1, 2),
        torch.from_numpy(stack).float() / 255,
        [encode(pixels) for pixels in PICTURES],
        [Image.fromarray(pixels) for pixels in PICTURES],
    ):
        source = as_image_source(X)
        read = np.stack([np.asarray(decode(source.read(row))) for row in range(len(source))])
        np.testing.assert_array_equal(read, stack)


def test_columns_of_pandas_are_images(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    paths = write_pictures(tmp_path, ["1.png", "2.png", "3.png"])
    frame = pandas.DataFrame(
        {
            "path": paths,
            "bytes": [encode(pixels) for pixels in PICTURES],
            "image": [Image.fromarray(pixels) for pixels in PICTURES],
            "array": PICTURES,
        },
        index=[30, 10, 20],
    )

    for X in (*(frame[name] for name in frame), frame[["path"]], frame["path"].astype("category"), pandas.Index(paths)):
        source = as_image_source(X)
        np.testing.assert_array_equal(np.asarray(decode(source.read(1))), PICTURES[1])
    with pytest.raises(InvalidInputError, match=r"shape \(3, 4\). Pass the one column"):
        as_image_source(frame)


def test_missing_paths_in_a_column_are_named() -> None:
    pandas = pytest.importorskip("pandas")

    with pytest.raises(InvalidInputError, match="row 1: nan"):
        as_image_source(pandas.Series(["a.png", None]))


def test_flattened_frames_and_tensors_are_images() -> None:
    pandas = pytest.importorskip("pandas")
    flat = np.stack(PICTURES).reshape(3, -1)

    for X in (flat, pandas.DataFrame(flat), torch.from_numpy(flat)):
        source = as_image_source(X, image_shape=(12, 17, 3))
        np.testing.assert_array_equal(np.asarray(decode(source.read(1))), PICTURES[1])


@pytest.mark.parametrize(
    "make", [str, Path, lambda path: Path(path).read_bytes(), lambda path: Image.fromarray(PICTURES[0])]
)
def test_one_image_is_a_source_of_one(make: object, tmp_path: Path) -> None:
    (path,) = write_pictures(tmp_path, ["a.png"])

    source = as_image_source(make(path))

    assert len(source) == 1
    np.testing.assert_array_equal(np.asarray(decode(source.read(0))), PICTURES[0])


def test_a_folder_gives_the_same_order_with_and_without_labels(tmp_path: Path) -> None:
    write_pictures(tmp_path, ["dog/10.png", "dog/9.png", "Cat/1.png"])

    labelled, labels = as_labelled_source(tmp_path, None)

    assert list(labelled.ids) == list(as_image_source(str(tmp_path)).ids)
    assert labels.tolist() == ["Cat", "dog", "dog"]


def test_labels_belong_to_their_rows(tmp_path: Path) -> None:
    paths = write_pictures(tmp_path, ["1.png", "2.png", "3.png"])

    source, labels = as_labelled_source(paths, ["b", "a", "b"])

    assert source.ids == paths
    assert labels.tolist() == ["b", "a", "b"]


def test_flattened_images_take_labels_too() -> None:
    source, labels = as_labelled_source(np.stack(PICTURES).reshape(3, -1), [1, 0, 1], image_shape=(12, 17, 3))

    assert labels.tolist() == [1, 0, 1]
    np.testing.assert_array_equal(np.asarray(decode(source.read(2))), PICTURES[2])


@pytest.mark.parametrize(
    ("X", "message"),
    [
        ([], "X has no images"),
        (np.zeros((0, 8, 8, 3), dtype=np.uint8), "X has no images"),
        ("a\0b.jpg", "this is no path"),
        ("/no/such/folder", "'/no/such/folder': no such file"),
        (None, "X must be a folder"),
        (7, "type int instead"),
        ({"a": 1}, "Pass one of its values"),
        (iter(["a.png"]), r"Pass list\(X\)"),
        ({"a.png"}, r"Pass list\(X\)"),
        (DataLoader([1]), "Pass its data set"),
        (np.array([b"abc"]), "cuts off zeros"),
        (np.zeros(5), "cannot be used"),
        (np.full((2, 2), None), "Pass the one column"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_is_no_image_source_says_what_to_do(X: object, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        as_image_source(X)


def test_image_shape_is_refused_where_it_says_nothing() -> None:
    with pytest.raises(InvalidInputError, match="leave it out for X of type list"):
        as_image_source(["a.png"], image_shape=(8, 8))
    with pytest.raises(InvalidInputError, match="X has no images"):
        as_image_source(np.zeros((0, 64), dtype=np.uint8), image_shape=(8, 8))


def test_every_mismatch_of_labels_is_an_error(tmp_path: Path) -> None:
    write_pictures(tmp_path, ["cat/1.png", "dog/1.png"])

    with pytest.raises(InvalidInputError, match="X has 3 images, but y has 2 labels"):
        as_labelled_source(["a", "b", "c"], [0, 1])
    with pytest.raises(InvalidInputError, match="y must be None"):
        as_labelled_source(tmp_path, [0, 1])
    with pytest.raises(InvalidInputError, match="carries no labels"):
        as_labelled_source(["a", "b"], None)
    with pytest.raises(InvalidInputError, match="carries no labels"):
        as_labelled_source(pictures_source(3), None)


def test_a_folder_of_one_class_is_an_error(tmp_path: Path) -> None:
    write_pictures(tmp_path, ["cat/1.png", "cat/2.png"])

    with pytest.raises(InvalidInputError, match="All labels are 'cat'"):
        as_labelled_source(tmp_path, None)


def test_pandas_and_datasets_are_not_imported() -> None:
    code = (
        "import sys; from bottleneck.images import as_image_source; import numpy as np\n"
        "as_image_source(['a.png']); as_image_source(np.zeros((2, 8, 8, 3), dtype='uint8'))\n"
        "assert not {'pandas', 'datasets', 'torchvision'} & set(sys.modules), 'imported'\n"
    )

    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)


def test_source_passes_through_whatever_shape_its_images_had():
    source = as_image_source(np.zeros((2, 12), np.uint8), image_shape=(2, 2, 3))

    assert as_image_source(source, image_shape=(2, 2, 3)) is source
