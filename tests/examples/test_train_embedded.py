"""The script that trained the embedded backbone, on a handful of images."""

import json
import runpy
import sys
from pathlib import Path

from bottleneck import load_backbone

SCRIPT = Path(__file__).parents[2] / "examples" / "train_embedded.py"


def test_it_writes_weights_that_the_embedded_backbone_takes(image_folder, tmp_path, monkeypatch, capsys):
    out = tmp_path / "mine.safetensors"
    given = [image_folder, "--validation", image_folder, "--epochs", 2, "--out", out]
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), *map(str, given)])

    runpy.run_path(str(SCRIPT), run_name="__main__")

    facts = json.loads(capsys.readouterr().out)
    mine, shipped = load_backbone("embedded", out), load_backbone("embedded")
    assert facts["steps"] == 2
    assert 0 <= facts["top1"] <= 1
    assert mine.preprocess == shipped.preprocess
    assert mine.weights_digest != shipped.weights_digest
