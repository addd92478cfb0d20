"""The commands about classifiers, where they are more than the API."""

import shutil
from pathlib import Path

import pytest

from tests.cli.conftest import last_json


def test_report_warns_of_images_that_were_trained_on(command, saved, tmp_path):
    out, cache = tmp_path / "report.html", ("--cache-dir", saved / "cache", "-q")

    status, _, _ = command("report", saved / "model", saved / "images", "--train", saved / "images", "-o", out, *cache)

    assert status == 0
    assert "<strong>24 of these images were trained on</strong>" in out.read_text()
    assert "No such folder" in command("report", saved / "model", saved / "images", "--train", "nowhere", *cache)[2]


def test_report_says_its_options(command, saved, tmp_path):
    status, _, said = command("report", saved / "model", saved / "images", "--out", tmp_path)

    assert status == 2
    assert said.startswith("error: --out must be a file.")


@pytest.fixture
def model(saved, tmp_path):
    """Return a copy of the saved classifier beside which nothing says what it was fitted on."""
    return Path(shutil.copytree(saved / "model", tmp_path / "model"))


def test_classifier_of_other_data_is_replaced_only_when_that_is_said(command, saved, model, tmp_path):
    described = (model / "model.json").read_bytes()
    recorded = model.with_name("model.toml")
    recorded.write_text('# Written by bottleneck 0.0\ndata = "/pictures/digits"\n')
    arguments = ("fit", saved / "images", "--out", model, "-q", "--strategy", "probe", "--cache-dir")

    status, _, said = command(*arguments, tmp_path / "cache")

    assert status == 2
    expected = f"error: --out {model} holds a classifier fitted on /pictures/digits; name another folder or pass"
    assert said == f"{expected} --overwrite.\n"
    assert (model / "model.json").read_bytes() == described
    assert not (tmp_path / "cache").exists()
    assert command(*arguments, saved / "cache", "--overwrite")[0] == 0
    assert "overwrite" not in recorded.read_text()
    assert command("fit", "--config", recorded, "-q")[0] == 0


def test_fit_prints_what_was_predicted_and_what_it_took(command, saved):
    status, printed, _ = command(
        "fit", saved / "images", "-q", "--json", "--strategy", "probe", "--cache-dir", saved / "cache",
        "--memory-limit", "4e9", "--disk-limit", "1e9",
    )  # fmt: skip

    assert status == 0
    lines = printed.splitlines()
    assert lines[lines.index("Predicted and actual") + 1].split() == [
        "part", "predicted", "within", "after", "the", "probes", "took",
    ]  # fmt: skip
    costs = {cost["part"]: cost for cost in last_json(printed)["costs"]}
    assert costs["total"]["predicted"]["value"] > 0
    assert costs["total"]["actual"] > 0


@pytest.mark.parametrize("name", ["evaluate", "report"])
def test_classes_that_the_classifier_does_not_know_are_an_error(command, saved, tmp_path, name):
    images = Path(shutil.copytree(saved / "images", tmp_path / "images"))
    (images / "reddish").rename(images / "wasps")

    status, _, said = command(name, saved / "model", images, "-q", "--cache-dir", tmp_path / "cache")

    assert status == 2
    assert "does not know:\n  - wasps\nIt knows:\n  - bluish\n  - reddish\nName a folder" in said
    assert not (tmp_path / "cache").exists()


def test_class_without_images_has_no_recall(command, saved, tmp_path):
    shutil.copytree(saved / "images" / "bluish", tmp_path / "images" / "bluish")

    status, printed, _ = command("evaluate", saved / "model", tmp_path / "images", "-q", "--cache-dir", saved / "cache")

    rows = [line.split() for line in printed.splitlines()]
    assert status == 0
    assert rows[1][:2] == ["bluish", "12"]
    assert rows[2][:3] == ["reddish", "0", "-"]


def test_file_in_place_of_the_model_is_said(command, saved, model):
    recorded = model.with_name("model.toml")
    recorded.touch()

    for file in (recorded, model / "model.json"):
        status, _, said = command("evaluate", file, saved / "images", "-q")

        assert status == 2
        assert said == f"error: {file} is a file. Name the folder of the classifier, such as {model}.\n"


def test_unknown_accuracy_is_said(command, saved, tmp_path):
    for name in ("bluish", "reddish"):
        (tmp_path / "images" / name).mkdir(parents=True)
        shutil.copy(min((saved / "images" / name).iterdir()), tmp_path / "images" / name)

    status, printed, _ = command("fit", tmp_path / "images", "-q", "--json", "--cache-dir", saved / "cache")

    assert status == 0
    assert "Accuracy   unknown: with one image a class none can be held out\n" in printed
    assert last_json(printed)["accuracy_cv"] is None
