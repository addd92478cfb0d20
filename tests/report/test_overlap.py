"""Test images among the training images, as a report finds and tells them."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bottleneck import TransferClassifier, write_report
from bottleneck.errors import InvalidInputError, SkippedImagesWarning
from tests.conftest import coloured_images, write_image_folder
from tests.report.conftest import NAMES
from tests.report.html import Report


def read(path: Path) -> Report:
    return Report(path.read_text(encoding="utf-8"))


def percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def test_arrays_that_were_trained_on_are_told_with_the_accuracy_without_them(
    classifier: TransferClassifier, test_set, tmp_path: Path
):
    images, labels = test_set
    training, _ = coloured_images(40)
    mixed = images.copy()
    mixed[[3, 17, 29]] = training[[5, 11, 2]]

    report = read(write_report(classifier, mixed, labels, path=tmp_path / "report.html", X_train=training))

    right = classifier.predict(mixed) == labels
    without = np.delete(right, [3, 17, 29])
    assert report.by_id["accuracy"] == percent(right.mean())
    assert report.by_id["accuracy-without"] == percent(without.mean())
    assert report.by_id["overlap"].startswith("3 of these images were trained on, so they say nothing")
    assert {report.data["rows"][i] for i in report.data["seen"]} == {3, 17, 29}
    assert "3 of 3 test images whose content is that of a training image" in report.by_id["copies"]


def test_files_are_compared_by_their_bytes_whatever_they_are_called(classifier, tmp_path: Path):
    training = write_image_folder(tmp_path / "train", n=12)
    test = write_image_folder(tmp_path / "test", n=12, seed=1)
    original, same = training / "bluish" / "000.png", test / "bluish" / "zzz.png"
    same.write_bytes(original.read_bytes())
    Image.open(original).save(test / "bluish" / "again.jpg")  # another content
    names = [NAMES[int(path.parent.name == "bluish")] for path in sorted(test.rglob("*.*"))]

    report = read(
        write_report(classifier, sorted(test.rglob("*.*")), names, path=tmp_path / "report.html", X_train=training)
    )

    assert [report.data["names"][i] for i in report.data["seen"]] == ["zzz.png"]
    assert report.by_id["overlap"].startswith("1 of these images was trained on, so it says nothing")


def test_images_that_cannot_be_read_shift_nothing_and_are_no_copies(classifier, test_set, tmp_path: Path):
    images, labels = test_set
    paths = [tmp_path / f"{i:02d}.png" for i in range(30)]
    for path, pixels in zip(paths, images, strict=True):
        Image.fromarray(pixels).save(path)
    paths[4].write_bytes(b"broken")
    gone = tmp_path / "gone.png"

    with pytest.warns(SkippedImagesWarning):
        report = read(
            write_report(
                classifier, paths, labels, path=tmp_path / "report.html", X_train=[gone, paths[4], paths[20], paths[6]]
            )
        )

    assert {report.data["rows"][i] for i in report.data["seen"]} == {6, 20}


def test_a_test_set_that_was_all_trained_on_has_no_other_accuracy(classifier, test_set, tmp_path: Path):
    images, labels = test_set

    report = read(write_report(classifier, images, labels, path=tmp_path / "report.html", X_train=images))

    assert "30 of these images were trained on" in report.by_id["overlap"]
    assert "No other image is left." in report.by_id["overlap"]
    assert "accuracy-without" not in report.by_id


def test_new_images_are_told_to_be_new_and_nothing_is_told_unasked(classifier, test_set, tmp_path: Path):
    new = read(write_report(classifier, *test_set, path=tmp_path / "new.html", X_train=coloured_images(40)[0]))
    unasked = read(write_report(classifier, *test_set, path=tmp_path / "unasked.html"))

    assert "No test image is a copy of one of the 40 training images." in new.text
    for report in (new, unasked):
        assert "overlap" not in report.by_id
        assert "trained on" not in report.text
    assert "training images." not in unasked.by_id["copies"]


def test_training_images_that_cannot_be_used_are_told_before_anything_is_predicted(classifier, tmp_path: Path):
    with pytest.raises(InvalidInputError, match="nowhere"):
        write_report(classifier, "not looked at", path=tmp_path / "report.html", X_train=str(tmp_path / "nowhere"))
