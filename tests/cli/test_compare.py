"""`bottleneck compare`."""

import pytest

from tests.cli.conftest import last_json


def test_table_and_picture_of_every_backbone(command, saved, tmp_path):
    pytest.importorskip("matplotlib")

    status, printed, _ = command(
        "compare", saved / "images", "embedded", "--cv", "2", "--plot", tmp_path / "cost.png", "--json", "-q",
        "--cache-dir", saved / "cache",
    )  # fmt: skip

    found = last_json(printed)
    assert status == 0
    assert printed.startswith("24 images of 2 classes, each held out by one of 2 folds")
    assert (tmp_path / "cost.png").read_bytes().startswith(b"\x89PNG")
    assert [row["backbone"] for row in found["backbones"]] == ["embedded"]
    assert found["backbones"][0]["rows_extracted"] == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["embedded", "--plot", "cost.xls"], "--plot must be a file that ends in"),
        (["embedded", "--plot", "nowhere/cost.png"], "in a folder that does not exist"),
        (["embedded", "embedded"], "is there twice"),
        (["embedded=nowhere.safetensors"], "nowhere.safetensors"),
        (
            ["embedded", "--set", "head.normalise=l2"],
            "--set head.normalise: no such setting. Did you mean 'normalize'?",
        ),
        (["embedded", "--set", "finetune.lr=1"], "--set must be head.NAME=VALUE here"),
        (["embedded", "--cv", "1"], "'--cv'"),
        (["embedded", "--head", "forest"], "--head must be 'logistic' or 'svm'. Got 'forest' instead."),
        ([], "Missing argument"),
    ],
)
def test_mistake_is_one_line(command, saved, words, said):
    status, _, complaint = command("compare", saved / "images", *words)

    assert status == 2
    assert said in complaint
    assert complaint.count("\n") == 1
