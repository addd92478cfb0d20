import os
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.metrics import accuracy_score, log_loss, precision_recall_fscore_support

from bottleneck import FineTuneSettings, SVMHead, TransferClassifier, write_report
from bottleneck.errors import InvalidInputError, MissingDependencyError, SkippedImagesWarning
from tests.conftest import coloured_images, make_tiny_backbone, write_image_folder
from tests.report.conftest import NAMES, many_coloured
from tests.report.html import Report


def read(path: Path) -> Report:
    return Report(path.read_text(encoding="utf-8"))


def percent(share: float) -> str:
    return f"{100 * share:.1f}"


def test_numbers_equal_those_of_scikit_learn(classifier: TransferClassifier, test_set, tmp_path: Path):
    images, labels = test_set

    report = read(write_report(classifier, images, labels, path=tmp_path / "report.html"))

    predicted = classifier.predict(images)
    precision, recall, f1, n_images = precision_recall_fscore_support(labels, predicted, labels=classifier.classes_)
    assert report.by_id["accuracy"] == percent(accuracy_score(labels, predicted)) + " %"
    assert report.by_id["majority"] == percent(n_images.max() / 30) + " %"
    assert report.by_id["out-of-fold"] == percent(classifier.accuracy_cv_) + " %"
    means = precision_recall_fscore_support(labels, predicted, average="macro")[:3]
    assert report.table("Class") == [
        *(
            [name, str(n), *map(percent, scores)]
            for name, n, *scores in zip(classifier.classes_, n_images, recall, precision, f1, strict=True)
        ),
        ["Mean of the classes", "30", *map(percent, (means[1], means[0], means[2]))],
    ]
    assert report.by_id["log-loss"] == f"{log_loss(labels, classifier.predict_proba(images)):.3f}"


def test_report_tells_the_plan_and_the_outcome(classifier: TransferClassifier, test_set, tmp_path: Path):
    report = read(write_report(classifier, *test_set, path=tmp_path / "report.html"))

    assert report.by_id["outcome"].strip() == classifier.outcome_
    assert report.by_id["rule-of-thumb"] == classifier.plan_.rule_of_thumb.sentence
    assert all(reason.sentence in report.by_id["plan"] for reason in classifier.plan_.reasons)
    assert len(report.table("Strategy")) == len(classifier.plan_.alternatives)
    assert sum("planned" in row[0] for row in report.table("Strategy")) == 1


def test_mistakes_are_shown_with_their_images(classifier: TransferClassifier, test_set, tmp_path: Path):
    images, labels = test_set

    report = read(write_report(classifier, images, labels, path=tmp_path / "report.html"))

    wrong = np.flatnonzero(classifier.predict(images) != labels)
    shown = {image["title"] for image in report.images if "title" in image}
    assert 6 <= len(wrong) <= 24
    assert shown == {f"image {row}" for row in wrong}
    assert sorted(report.data["rows"]) == list(range(30))


def test_folder_of_class_folders_needs_no_labels(cache_dir: Path, image_folder: Path, tmp_path: Path):
    probe = TransferClassifier(make_tiny_backbone(), strategy="probe", cache_dir=cache_dir, cv=3).fit(image_folder)
    test_folder = write_image_folder(tmp_path / "test", n=12, seed=1)

    report = read(write_report(probe, test_folder, path=tmp_path / "report.html"))

    assert report.by_id["accuracy"] == percent(probe.score(test_folder)) + " %"
    assert [row[:2] for row in report.table("Class")[:-1]] == [["bluish", "6"], ["reddish", "6"]]


def test_flattened_images_are_taken_as_by_fit(cache_dir: Path, tmp_path: Path):
    images, labels = coloured_images(24)
    probe = TransferClassifier(make_tiny_backbone(), strategy="probe", cache_dir=cache_dir, cv=3)
    probe.set_params(image_shape=(20, 20, 3)).fit(images.reshape(24, -1), labels)

    report = read(write_report(probe, images.reshape(24, -1), labels, path=tmp_path / "report.html"))

    assert report.by_id["accuracy"] == percent((probe.predict(images.reshape(24, -1)) == labels).mean()) + " %"


def test_fine_tuning_shows_its_history(cache_dir: Path, tmp_path: Path):
    images, labels = coloured_images(24)
    settings = FineTuneSettings(steps=4, batch_size=8, folds=1)
    tuned = TransferClassifier(make_tiny_backbone(), strategy="finetune", cache_dir=cache_dir, finetune=settings, cv=3)
    tuned.set_params(random_state=0).fit(images, labels)

    report = read(write_report(tuned, images, labels, path=tmp_path / "report.html"))

    assert tuned.history_
    assert all(record.stage in report.by_id["history"] for record in tuned.history_)


def test_many_classes_become_pairs(cache_dir: Path, tmp_path: Path):
    probe = TransferClassifier(make_tiny_backbone(), strategy="probe", cache_dir=cache_dir, cv=3, random_state=0)
    probe.fit(*many_coloured(34, a_class=3, seed=0))

    report = read(write_report(probe, *many_coloured(34, a_class=2, seed=1), path=tmp_path / "report.html"))

    assert len(report.table("Class")) == 34 + 1
    assert 0 < len(report.table("True")) <= 30
    assert "Single out" in report.by_id["map"]


def test_a_label_that_training_never_saw_counts_as_wrong(classifier: TransferClassifier, test_set, tmp_path: Path):
    images, labels = test_set
    with_new = np.where(np.arange(30) < 3, "Kraken <new>", labels)

    report = read(write_report(classifier, images, with_new, path=tmp_path / "report.html"))

    assert report.by_id["accuracy"] == percent((classifier.predict(images) == with_new).mean()) + " %"
    assert report.table("Class")[-2] == ["Kraken <new> not in training", "3", "0.0", "–", "0.0"]  # noqa: RUF001
    assert "3 images have labels that training never saw" in report.text


def test_a_test_set_without_any_known_label_is_an_error(classifier: TransferClassifier, test_set, tmp_path: Path):
    with pytest.raises(InvalidInputError, match="None of the test labels is one of the classifier's classes"):
        write_report(classifier, test_set[0], np.arange(30) % 2, path=tmp_path / "report.html")

    assert not list(tmp_path.iterdir())


def test_skipped_images_are_listed(classifier: TransferClassifier, cache_dir: Path, tmp_path: Path):
    folder = write_image_folder(tmp_path / "images")
    (folder / "bluish" / "broken & <b>.png").write_bytes(b"GIF8")
    lenient = clone(classifier)
    with pytest.warns(SkippedImagesWarning):
        lenient.fit(folder)

    with pytest.warns(SkippedImagesWarning):
        report = read(write_report(lenient, folder, path=tmp_path / "report.html"))

    assert report.by_id["skipped"].count("broken & <b>.png") == 2
    assert "Test images, not counted above: 1" in report.text
    assert "24 images of 2 classes" in " ".join(report.text.split())


@pytest.mark.skipif(os.name == "nt", reason="names of files are text there")
def test_names_that_are_no_utf8_are_written_as_escapes(classifier: TransferClassifier, test_set, tmp_path: Path):
    images, labels = test_set
    paths = [os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9 %d.png" % i) for i in range(30)]
    try:
        for path, pixels in zip(paths, images, strict=True):
            Image.fromarray(pixels).save(path)
    except OSError:
        pytest.skip("this file system takes no such names")

    report = read(write_report(classifier, paths, labels, path=tmp_path / "report.html"))

    assert any(r"caf\udce9 0.png" in image["title"] for image in report.images if "title" in image)


def test_the_same_report_is_written_twice(classifier: TransferClassifier, test_set, tmp_path: Path):
    first = write_report(classifier, *test_set, path=tmp_path / "a.html")
    second = write_report(classifier, *test_set, path=str(tmp_path / "b.html"))

    assert isinstance(second, Path)
    assert first.read_bytes() == second.read_bytes()


def test_an_older_report_is_replaced_and_nothing_else_is_left(classifier: TransferClassifier, test_set, tmp_path: Path):
    path = tmp_path / "report.html"
    path.write_text("old")

    write_report(classifier, *test_set, path=path)

    assert read(path).by_id["accuracy"]
    assert list(tmp_path.iterdir()) == [path]


def test_an_older_report_survives_one_that_fails(classifier: TransferClassifier, test_set, tmp_path: Path):
    path = tmp_path / "report.html"
    path.write_text("old")

    with pytest.raises(InvalidInputError):
        write_report(classifier, test_set[0], test_set[1][:5], path=path)

    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("path", "message"),
    [("missing/report.html", "Create .*missing' first"), (".", "must be a file"), ("file/x", "existing")],
)
def test_a_path_that_cannot_be_a_file_is_one_clear_error(
    classifier: TransferClassifier, test_set, tmp_path: Path, path: str, message: str
):
    (tmp_path / "file").write_text("")

    with pytest.raises(InvalidInputError, match=message):
        write_report(classifier, *test_set, path=tmp_path / path)


def test_a_file_that_cannot_be_written_is_one_clear_error(classifier: TransferClassifier, test_set, tmp_path: Path):
    path = tmp_path / ("x" * 300)  # longer than file systems allow, and an error for root, too

    with pytest.raises(InvalidInputError, match="cannot be written"):
        write_report(classifier, *test_set, path=path)


def test_only_a_fitted_classifier_is_taken(classifier: TransferClassifier, test_set, tmp_path: Path):
    with pytest.raises(NotFittedError):
        write_report(clone(classifier), *test_set, path=tmp_path / "report.html")
    with pytest.raises(InvalidInputError, match="must be a fitted TransferClassifier"):
        write_report(classifier.head_, *test_set, path=tmp_path / "report.html")


def test_a_missing_jinja_is_told_with_the_extra_that_brings_it(
    classifier: TransferClassifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(sys.modules, "jinja2", None)

    with pytest.raises(MissingDependencyError, match=r"bottleneck-features\[report\]"):
        write_report(classifier, "not looked at before", path=tmp_path / "report.html")


def test_a_head_that_nothing_could_be_held_out_for_is_reported_without_an_estimate(cache_dir: Path, tmp_path: Path):
    images, labels = coloured_images(20)
    probe = TransferClassifier(make_tiny_backbone(), strategy="probe", cache_dir=cache_dir, head=SVMHead())
    probe.fit(images[:2], labels[:2])

    report = read(write_report(probe, images, labels, path=tmp_path / "report.html"))

    assert report.by_id["accuracy"] == percent(probe.score(images, labels)) + " %"
    assert report.by_id["out-of-fold"] == "–"  # noqa: RUF001
    assert "no probabilities" in report.by_id["reliability"]


def test_two_classes_named_by_numbers(cache_dir: Path, tmp_path: Path):
    images, labels = coloured_images(24)
    probe = TransferClassifier(make_tiny_backbone(), strategy="probe", cache_dir=cache_dir, cv=3).fit(images, labels)

    report = read(write_report(probe, images, labels.astype(float), path=tmp_path / "report.html"))

    assert [row[0] for row in report.table("Class")[:-1]] == ["0", "1"]
    assert NAMES[0] not in report.text
