"""What a released version saved can still be read, and predicts what it predicted."""

import json
from pathlib import Path

import numpy as np
import pytest

from bottleneck import load
from bottleneck.persistence.format import VERSION
from tests.persistence.golden import CLASSIFIERS, EXPECTED, GOLDEN, IMAGES, golden_backbone

FOLDERS = sorted(path.parent for path in GOLDEN.glob("classifier-v*/*/model.json"))


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: f"{folder.parent.name}-{folder.name}")
def test_classifier_of_an_older_version_predicts_what_it_did(folder: Path, tmp_path):
    expected = json.loads((folder / EXPECTED).read_text())

    loaded = load(folder, backbone=golden_backbone()).set_params(cache_dir=tmp_path)

    assert loaded.predict(IMAGES).tolist() == expected["predict"]
    # A feature that another processor rounds to the other float16 moves a probability by less than this.
    np.testing.assert_allclose(loaded.predict_proba(IMAGES), expected["predict_proba"], atol=2e-3)
    assert loaded.strategy_ == expected["strategy"]
    assert loaded.classes_.dtype == np.unique(CLASSIFIERS[folder.name][1]).dtype
    assert (len(loaded.history_) > 0) == (folder.name == "finetuned")


def test_the_present_format_has_its_golden_files():
    assert {folder.name for folder in FOLDERS if folder.parent.name.endswith(f"-v{VERSION}")} == set(CLASSIFIERS)
