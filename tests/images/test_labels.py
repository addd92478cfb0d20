import numpy as np
import pytest
import torch

from bottleneck.errors import InvalidInputError
from bottleneck.images.labels import as_labels


@pytest.mark.parametrize(
    "y",
    [
        [0, 1, 1],
        [0.0, 1.0, 1.0],
        [False, True, True],
        ["a", "b", "b"],
        ("a", "b", "b"),
        np.array(["a", "b", "b"], dtype=object),
        np.array([[0], [1], [1]]),
        torch.tensor([0, 1, 1]),
        [torch.tensor(0), torch.tensor(1), torch.tensor(1)],
        range(3),
    ],
    ids=repr,
)
def test_labels_keep_their_values_and_get_their_own_type(y: object) -> None:
    labels = as_labels(y)

    assert labels.shape == (3,)
    assert labels.dtype.kind in "ifbU"
    expected = np.asarray(y).ravel()
    np.testing.assert_array_equal(labels, expected.astype(labels.dtype))


@pytest.mark.parametrize("missing", [None, float("nan"), np.float32("nan"), np.datetime64("NaT")])
@pytest.mark.parametrize("others", ["ab", (1, 2), (0.5, 1.5)])
def test_missing_labels_are_all_named(missing: object, others: tuple[object, object]) -> None:
    first, second = others

    with pytest.raises(InvalidInputError, match=r"2 of 4 labels are missing:\n  - row 1: \S+\n  - row 3: \S+$"):
        as_labels([first, missing, second, missing])


def test_missing_labels_of_an_array_are_named() -> None:
    with pytest.raises(InvalidInputError, match="row 1: nan"):
        as_labels(np.array([0, np.nan, 1]))


def test_missing_labels_of_pandas_are_named() -> None:
    pandas = pytest.importorskip("pandas")

    for column in (pandas.Series(["a", None, "b"]), pandas.Series([1, None, 2], dtype="Int64")):
        with pytest.raises(InvalidInputError, match="row 1"):
            as_labels(column)


def test_columns_of_pandas_are_labels() -> None:
    pandas = pytest.importorskip("pandas")
    column = pandas.Series(["a", "b", "a"], index=[7, 8, 9])

    for y in (column, column.astype("category"), column.to_frame(), column.astype("string")):
        assert as_labels(y).tolist() == ["a", "b", "a"]


def test_a_single_class_is_named() -> None:
    with pytest.raises(InvalidInputError, match=r"All labels are 'cat'\. A classifier needs at least two"):
        as_labels(["cat", "cat"])


def test_text_and_numbers_do_not_mix() -> None:
    with pytest.raises(InvalidInputError, match=r"mixes text with other labels \(int, str\)"):
        as_labels(["a", 1])


@pytest.mark.parametrize(
    "y", [[[0, 1], [1, 0]], [[0], [0, 1]], np.eye(3), 7, "cat", {"a": 1}, [{1}, {2}], [object(), object()]]
)
def test_what_is_not_one_label_for_each_image_is_refused(y: object) -> None:
    with pytest.raises(InvalidInputError):
        as_labels(y)


def test_one_class_is_enough_to_evaluate():
    assert as_labels(["a", "a"], min_classes=1).tolist() == ["a", "a"]
