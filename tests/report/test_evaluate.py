from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from bottleneck import TransferClassifier
from bottleneck.errors import InvalidInputError, SkippedImagesWarning, UnreadableImagesError
from bottleneck.report.evaluate import decision_columns, evaluate, label_codes, why_unreadable
from tests.conftest import make_tiny_backbone
from tests.report.conftest import NAMES

if TYPE_CHECKING:
    from bottleneck.images import ImageSource


def test_predictions_are_those_of_the_classifier(classifier: TransferClassifier, test_set):
    images, labels = test_set

    evaluation = evaluate(classifier, images, labels)

    names = np.array(evaluation.labels)
    np.testing.assert_array_equal(names[evaluation.predicted], classifier.predict(images))
    np.testing.assert_array_equal(names[evaluation.true], labels)
    np.testing.assert_allclose(evaluation.certainty, classifier.predict_proba(images).max(axis=1))
    assert evaluation.correct.mean() == classifier.score(images, labels)


def test_images_that_cannot_be_read_leave_no_gap_and_are_told(classifier: TransferClassifier, test_set, tmp_path: Path):
    images, labels = test_set
    paths = [tmp_path / f"{i}.png" for i in range(6)]
    for path, pixels in zip(paths, images, strict=False):
        Image.fromarray(pixels).save(path)
    paths[2].write_bytes(b"<html>not found</html>")

    with pytest.warns(SkippedImagesWarning):
        evaluation = evaluate(classifier, paths, labels[:6])

    kept = [0, 1, 3, 4, 5]
    assert evaluation.rows.tolist() == kept
    np.testing.assert_array_equal(np.array(evaluation.labels)[evaluation.true], labels[kept])
    np.testing.assert_array_equal(np.array(evaluation.labels)[evaluation.predicted], classifier.predict(images[kept]))
    assert [failure.id for failure in evaluation.unreadable] == [str(paths[2])]
    assert "HTML page" in evaluation.unreadable[0].reason


def test_unreadable_images_are_an_error_where_the_classifier_says_so(cache_dir: Path, test_set, tmp_path: Path):
    images, labels = test_set
    strict = TransferClassifier(make_tiny_backbone(), strategy="probe", cache_dir=cache_dir, cv=3).fit(images, labels)
    (tmp_path / "a.png").write_bytes(b"")
    Image.fromarray(images[0]).save(tmp_path / "b.png")

    with pytest.raises(UnreadableImagesError, match=r"a\.png: the file is empty"):
        evaluate(strict, [tmp_path / "a.png", tmp_path / "b.png"], NAMES)


def test_labels_that_training_never_saw_stand_behind_the_classes():
    labels, codes = label_codes(["b", "x", "a", "w", "x"], ["a", "b", "c"])

    assert labels == ["a", "b", "c", "w", "x"]
    assert codes.tolist() == [1, 4, 0, 3, 4]


@pytest.mark.parametrize(("found", "classes"), [([1.0, 0.0], [0, 1]), ([True, False], [0, 1]), ([0, 1], [False, True])])
def test_equal_numbers_are_the_same_label_whatever_their_type(found: list, classes: list):
    labels, codes = label_codes(found, classes)

    assert labels == classes
    assert [classes[code] for code in codes] == found


def test_labels_of_another_kind_than_the_classes_are_an_error_that_shows_both():
    with pytest.raises(InvalidInputError, match=r"Test labels: '0', '1'\. Classes: 0, 1, 2, 3, 4 and 2 more\."):
        label_codes(["0", "1"], list(range(7)))


def test_two_classes_have_two_decision_columns():
    columns = decision_columns(np.array([-1.5, 0.5]))

    assert columns.argmax(axis=1).tolist() == [0, 1]
    assert columns.max(axis=1).tolist() == [1.5, 0.5]


def test_an_image_that_recovered_is_told_so(image_source: "ImageSource"):
    assert "can be read now" in why_unreadable(image_source, 0).reason


@pytest.fixture
def image_source(test_set) -> "ImageSource":
    from bottleneck.images import as_image_source

    return as_image_source(test_set[0])
