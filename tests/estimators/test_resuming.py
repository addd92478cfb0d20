"""A fit that was stopped, and the same fit made again."""

import json
import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from bottleneck import FineTuneSettings, TransferClassifier
from bottleneck.backbones import load_backbone
from bottleneck.errors import FallbackWarning
from bottleneck.estimators.resuming import BEGUN, FOLDER, STALE_SECONDS, Begun, begin, remove_stale
from tests.finetune.tasks import PREPROCESS, ColourBlind, coloured_noise

SETTINGS = FineTuneSettings(steps=60, batch_size=20, lr=0.1, lr_decay=1.0, precision="float32")

COUNTDOWN: list[int] = []
"""Training steps until Ctrl-C is pressed, if at all."""


class Interrupted(ColourBlind):
    """A network in the middle of whose training step somebody presses Ctrl-C."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if self.training and COUNTDOWN:
            COUNTDOWN[0] -= 1
            if COUNTDOWN[0] == 0:
                COUNTDOWN.clear()
                signal.raise_signal(signal.SIGINT)
        return super().forward(images)


@pytest.fixture(autouse=True)
def _one_thread():
    """With more, the number that trains is the fastest at that moment, and another number gives other last bits."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def make(tmp_path: Path):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network: nn.Module = Interrupted()
    backbone = load_backbone(network, preprocess=PREPROCESS)

    def build(**params) -> TransferClassifier:
        defaults = {"strategy": "finetune", "cache_dir": tmp_path, "device": "cpu", "random_state": 0}
        return TransferClassifier(backbone, **{**defaults, "finetune": SETTINGS, **params})

    return build


@pytest.fixture(scope="module")
def data():
    return coloured_noise(60, seed=0)


def interrupt(classifier: TransferClassifier, data, *, after: int) -> TransferClassifier:
    COUNTDOWN[:] = [after]
    with pytest.warns(FallbackWarning, match="it was interrupted"):
        return classifier.fit(*data)


def test_interrupted_fit_delivers_the_probe_and_the_same_call_goes_on(make, data, tmp_path: Path):
    expected = make(cache_dir=tmp_path / "other").fit(*data)

    stopped = interrupt(make(), data, after=30)
    resumed = make().fit(*data)

    assert stopped.strategy_ == "probe"
    assert "The same call goes on from the checkpoint" in stopped.outcome_
    assert resumed.outcome_.endswith("This went on from a checkpoint: step 10 of fine-tuning, fold 2 of 3.")
    assert resumed.strategy_ == expected.strategy_ == "finetune"
    assert resumed.backbone_.weights_digest == expected.backbone_.weights_digest
    assert resumed.history_ == expected.history_
    np.testing.assert_array_equal(resumed.predict_proba(data[0]), expected.predict_proba(data[0]))


def test_fit_that_is_over_leaves_no_checkpoints(make, data, tmp_path: Path):
    interrupt(make(), data, after=5)
    assert any((tmp_path / FOLDER).iterdir())

    make().fit(*data)

    assert not any((tmp_path / FOLDER).iterdir())


def test_what_was_planned_stays_as_it_was_when_the_fit_goes_on(make, data, tmp_path: Path):
    """A plan depends on rates that were measured, which are others the next time."""
    interrupt(make(), data, after=30)
    (noted,) = (tmp_path / FOLDER).glob(f"*/{BEGUN}")
    settings = json.loads(noted.read_text())["settings"]

    resumed = make(time_budget=600.0).fit(*data)

    assert settings["steps"] == 60
    assert "went on from a checkpoint" in resumed.outcome_


@pytest.mark.parametrize("changed", [{"random_state": 1}, {"finetune": FineTuneSettings(steps=21, lr=0.1)}])
def test_another_fit_begins_anew(make, data, changed):
    interrupt(make(), data, after=5)

    other = make(**changed).fit(*data)

    assert "went on" not in other.outcome_


def test_damaged_notes_are_replaced_by_the_plan_of_now(tmp_path: Path):
    first, second = Begun(settings=SETTINGS, threads=1), Begun(settings=FineTuneSettings(steps=5), threads=2)
    folder = tmp_path / "key"

    assert begin(folder, first) == first
    assert begin(folder, second) == first
    whole = (folder / BEGUN).read_text()
    for damaged in ("", whole[:40], "[]", "{}", whole.replace('"threads": 1', '"threads": 7')):
        (folder / BEGUN).write_text(damaged)
        assert begin(folder, second) == second


def test_settings_of_groups_come_back_as_they_were(tmp_path: Path):
    begun = Begun(settings=FineTuneSettings(group_multipliers=(1.0, 0.5)), threads=3)

    begin(tmp_path / "key", begun)

    assert begin(tmp_path / "key", Begun(settings=SETTINGS, threads=1)) == begun


def test_checkpoints_that_nobody_takes_up_go_after_a_month(tmp_path: Path):
    old, new = tmp_path / "old", tmp_path / "new"
    for folder, age in ((old, STALE_SECONDS + 60), (new, STALE_SECONDS - 3600)):
        folder.mkdir()
        (folder / BEGUN).write_text("")
        when = time.time() - age
        os.utime(folder / BEGUN, (when, when))
        os.utime(folder, (when, when))

    remove_stale(tmp_path)

    assert (old.exists(), new.exists()) == (False, True)
