"""Examples are run as they are, without a network."""

import dataclasses
import runpy
from pathlib import Path

import pytest

from bottleneck import FineTuneSettings

FOLDER = Path(__file__).parents[2] / "examples"
HOURS = {"train_embedded.py"}
"""Run by hand: they train what ships."""
EXAMPLES = sorted(path for path in FOLDER.glob("*.py") if path.name not in HOURS)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_example_runs(path, capsys):
    runpy.run_path(str(path), run_name="__main__")

    assert capsys.readouterr().out


def test_every_knob_is_turned():
    source = (FOLDER / "finetune_every_knob.py").read_text()

    missing = [field.name for field in dataclasses.fields(FineTuneSettings) if f"    {field.name}=" not in source]

    assert not missing
