"""`bottleneck export`."""

from tests.cli.conftest import last_json


def test_file_is_written_and_compared(command, saved, tmp_path):
    status, printed, said = command("export", saved / "model", tmp_path / "classifier.pt2", "--json")

    found = last_json(printed)
    assert status == 0
    assert said.startswith("Exporting ")
    assert printed.startswith(f"wrote {tmp_path / 'classifier.pt2'} (")
    assert found["bytes"] == (tmp_path / "classifier.pt2").stat().st_size
    assert found["classes"] == ["bluish", "reddish"]
    assert found["largest_difference"] < 1e-4


def test_other_ending_is_said_before_the_model_is_read(command, tmp_path):
    status, _, said = command("export", tmp_path / "no model", tmp_path / "classifier.h5")

    assert status == 2
    assert ".onnx" in said
    assert said.count("\n") == 1
