import itertools
import json
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from bottleneck.errors import CacheWarning, ImageFailure, UnreadableImagesError
from bottleneck.finetune.checkpoints import LEAST_SECONDS, WRITES_APART, Checkpoints, Snapshot

IDENTITY = {"images": "a", "settings": "b"}
HISTORY = [{"stage": "fold 1", "epoch": 1, "loss": 0.1 + 0.2}]


class Clock:
    """A clock that a test moves, and that goes on by ``tick`` whenever it is read."""

    def __init__(self) -> None:
        self.now, self.tick = 100.0, 0.0

    def __call__(self) -> float:
        self.now += self.tick
        return self.now


def opened(folder: Path, **changed: str) -> Checkpoints:
    return Checkpoints(folder, lambda: {**IDENTITY, **changed})


def training(step: int = 7) -> Snapshot:
    odd = torch.arange(24.0).reshape(2, 3, 2, 2).contiguous(memory_format=torch.channels_last)
    tensors = {"network/0.weight": odd, "optimizer/0/step": torch.tensor(3.0), "tied": odd, "counter": torch.tensor(5)}
    return Snapshot(facts={"stage": "fold 2", "step": step}, tensors=tensors)


def write(folder: Path, *, step: int = 7) -> Checkpoints:
    checkpoints = opened(folder)
    part = Snapshot(facts={"steps": 30}, tensors={"correct": torch.tensor([[True, False]])})
    checkpoints.finish({"fold 1": part}, history=HISTORY)
    checkpoints.write(training(step), history=HISTORY)
    return checkpoints


def test_what_was_written_is_found_again(tmp_path: Path):
    write(tmp_path)

    found = opened(tmp_path)

    assert found.history == HISTORY
    assert found.parts["fold 1"].facts == {"steps": 30}
    assert found.parts["fold 1"].tensors["correct"].tolist() == [[True, False]]
    assert found.went_on_from == "step 7 of fold 2"
    for name, tensor in training().tensors.items():
        assert torch.equal(found.training.tensors[name], tensor)
        assert found.training.tensors[name].dtype == tensor.dtype


def test_training_is_taken_up_once_and_only_by_its_stage(tmp_path: Path):
    write(tmp_path)
    found = opened(tmp_path)

    assert found.take_up("fold 3") is None
    assert found.take_up("fold 2").facts["step"] == 7
    assert found.take_up("fold 2") is None


def test_nothing_is_read_or_made_before_the_first_checkpoint(tmp_path: Path):
    def identify() -> dict[str, str]:
        raise AssertionError("nobody needs to know yet")

    checkpoints = Checkpoints(tmp_path / "new", identify)
    checkpoints.finish({"fold 1": Snapshot(facts={})}, history=[])

    assert not checkpoints.has_written
    assert not (tmp_path / "new").exists()


def test_only_the_last_checkpoint_stays(tmp_path: Path):
    checkpoints = write(tmp_path)

    for step in (8, 9, 10):
        checkpoints.write(training(step), history=HISTORY)

    assert len(list(tmp_path.iterdir())) == 2
    assert opened(tmp_path).training.facts["step"] == 10


def test_checkpoint_that_was_not_finished_leaves_the_one_before(tmp_path: Path):
    """Killed between the tensors and the JSON that names them."""
    checkpoints = write(tmp_path)
    before = checkpoints.path.read_bytes()
    (kept,) = tmp_path.glob("*.safetensors")
    tensors = kept.read_bytes()
    checkpoints.write(training(8), history=HISTORY)
    checkpoints.path.write_bytes(before)
    kept.write_bytes(tensors)

    assert opened(tmp_path).training.facts["step"] == 7


def damaged(path: Path, how: str) -> None:
    content = path.read_bytes()
    match how:
        case "truncate":
            path.write_bytes(content[: len(content) // 2])
        case "empty":
            path.write_bytes(b"")
        case "missing":
            path.unlink()
        case "other":
            path.write_bytes(b'["something", "else"]')
        case "deep":
            path.write_bytes(b"[" * 100_000)
        case "newer":
            path.write_text(path.read_text().replace('"version": 1', '"version": 2'))
        case "changed":
            path.write_text(path.read_text().replace('"step": 7', '"step": 8'))


@pytest.mark.parametrize(
    "suffix, how",
    [
        *itertools.product([".json"], ["truncate", "empty", "other", "deep", "newer", "changed"]),
        *itertools.product([".safetensors"], ["truncate", "empty", "missing", "other"]),
    ],
)
def test_damaged_checkpoint_is_one_warning_and_a_new_beginning(tmp_path: Path, suffix: str, how: str):
    write(tmp_path)
    (path,) = tmp_path.glob(f"*{suffix}")
    damaged(path, how)

    with pytest.warns(CacheWarning, match="begins anew") as caught:
        found = opened(tmp_path)

    assert len(caught) == 1
    assert (found.training, found.parts, found.history, found.has_written) == (None, {}, [], False)
    found.write(training(1), history=[])
    assert opened(tmp_path).training.facts["step"] == 1


def test_bits_that_flip_are_never_trusted(tmp_path: Path):
    write(tmp_path)
    rng = np.random.default_rng(0)
    files = sorted(tmp_path.iterdir())
    whole = {path: path.read_bytes() for path in files}

    for path in files * 60:
        content = bytearray(whole[path])
        place = rng.integers(len(content))
        content[place] ^= 1 << rng.integers(8)
        path.write_bytes(content)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            found = opened(tmp_path)
        path.write_bytes(whole[path])
        if found.training is None:
            assert len(caught) == 1
        else:  # white space between the tokens of JSON
            assert json.loads(content) == json.loads(whole[path])


def test_checkpoints_of_another_training_stay_and_the_warning_says_what_differs(tmp_path: Path):
    write(tmp_path)

    with pytest.warns(CacheWarning, match=r"another training \(other settings\)"):
        other = opened(tmp_path, settings="c")

    assert other.training is None
    other.write(training(1), history=[])
    assert opened(tmp_path).training.facts["step"] == 7
    assert opened(tmp_path, settings="c").training.facts["step"] == 1


def test_folder_that_cannot_be_written_costs_one_warning_and_not_the_training(tmp_path: Path):
    (tmp_path / "file").write_text("")
    checkpoints = opened(tmp_path / "file" / "folder")

    with pytest.warns(CacheWarning, match="No checkpoint can be written"):
        checkpoints.write(training(), history=[])
    checkpoints.write(training(), history=[])

    assert not checkpoints.has_written


def test_images_that_are_gone_cost_the_checkpoints_and_not_the_training(tmp_path: Path):
    asked = []

    def identify() -> dict[str, str]:
        asked.append("all images")
        raise UnreadableImagesError([ImageFailure(row=0, id="a.png", reason="it is gone")])

    checkpoints = Checkpoints(tmp_path, identify)
    with pytest.warns(CacheWarning, match=r"a\.png: it is gone"):
        checkpoints.write(training(), history=[])
    checkpoints.write(training(), history=[])

    assert asked == ["all images"]
    assert not checkpoints.is_due(0)


def test_full_disk_leaves_the_checkpoint_before_and_nothing_half_written(tmp_path: Path):
    resource = pytest.importorskip("resource")  # there is none on Windows
    checkpoints = write(tmp_path)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
    try:
        with pytest.warns(CacheWarning, match="No checkpoint can be written"):
            checkpoints.write(training(8), history=HISTORY)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    assert opened(tmp_path).training.facts["step"] == 7
    assert len(list(tmp_path.iterdir())) == 2


def test_checkpoints_take_at_most_a_fiftieth_of_the_time(tmp_path: Path):
    clock = Clock()
    checkpoints = Checkpoints(tmp_path, lambda: IDENTITY, clock=clock)
    assert not checkpoints.is_due(10**6)
    clock.now += LEAST_SECONDS
    assert checkpoints.is_due(10**6)
    assert not checkpoints.is_due(10**9)  # expected to take ten seconds

    clock.tick = 2.0
    checkpoints.write(training(), history=[])
    clock.tick = 0.0

    clock.now += WRITES_APART * 2.0 - 1
    assert not checkpoints.is_due(10**6)
    clock.now += 1
    assert checkpoints.is_due(10**6)


def test_no_checkpoint_is_begun_that_might_not_be_over_by_the_deadline(tmp_path: Path):
    clock = Clock()
    checkpoints = Checkpoints(tmp_path, lambda: IDENTITY, clock=clock)
    clock.now += LEAST_SECONDS

    assert checkpoints.is_due(10**7, seconds_left=1.0)
    assert not checkpoints.is_due(10**7, seconds_left=0.9)


def test_images_that_cannot_be_read_again_cost_a_warning_when_that_is_found_out_beforehand(tmp_path: Path):
    def identify() -> dict[str, str]:
        raise UnreadableImagesError([ImageFailure(row=3, id="three", reason="gone")])

    checkpoints = Checkpoints(tmp_path, identify)
    with pytest.warns(CacheWarning, match="three"):
        checkpoints.prepare()

    checkpoints.write(training(), history=[])
    assert not any(tmp_path.iterdir())


def test_finished_parts_are_written_at_once_where_there_is_a_checkpoint(tmp_path: Path):
    checkpoints = write(tmp_path)

    checkpoints.finish({"fold 2": Snapshot(facts={"steps": 29})}, history=HISTORY)

    found = opened(tmp_path)
    assert set(found.parts) == {"fold 1", "fold 2"}
    assert (found.training, found.went_on_from) == (None, "what was finished")
