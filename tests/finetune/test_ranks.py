"""Several processes, started by torch's launcher, against one that does the same alone."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from bottleneck import load
from bottleneck.errors import InvalidInputError
from bottleneck.finetune.ranks import ALONE, Ranks, own_accelerator, synchronise_batch_norm
from tests.finetune import ranked_run

pytestmark = pytest.mark.usefixtures("one_thread")

TRAININGS = ("curve", "unfreezing", "whole", "scratch")
NAMES = ("meetings", "predictions", *TRAININGS, "batch_norm", "deadline", "stopping", "estimator")

ROOT = Path(__file__).parents[2]

Answers = list[dict[str, Any]]


def launch(n_ranks: int, folder: Path, *names: str) -> subprocess.CompletedProcess[str]:
    return torchrun(n_ranks, "-m", "tests.finetune.ranked_run", str(folder), *names)


def torchrun(n_ranks: int, *command: str) -> subprocess.CompletedProcess[str]:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(n_ranks)]
    return subprocess.run([*launcher, *command], capture_output=True, text=True, check=False, timeout=300, cwd=ROOT)


def answers_of(n_ranks: int, folder: Path, *names: str) -> Answers:
    done = launch(n_ranks, folder, *names)
    assert done.returncode == 0, done.stderr
    return [json.loads(folder.joinpath(f"{rank}.json").read_text()) for rank in range(n_ranks)]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Answers:
    """Return what two processes got: they take seconds to start, so they do everything in one go."""
    return answers_of(2, tmp_path_factory.mktemp("ranks"), *NAMES)


def assert_as_alone(name: str, answers: Answers) -> None:
    alone = getattr(ranked_run, name)(ALONE)
    for found in answers:
        assert found[name]["losses"] == answers[0][name]["losses"]
        np.testing.assert_allclose(found[name]["losses"], alone["losses"], rtol=1e-4, atol=1e-8)
        for field in alone.keys() & {"weights", "coef"}:
            assert found[name][field] == answers[0][name][field]
            np.testing.assert_allclose(found[name][field], alone[field], rtol=1e-3, atol=1e-4)
        for field in alone.keys() & {"accuracies", "accepted", "accuracy"}:
            assert found[name][field] == pytest.approx(alone[field])


@pytest.mark.parametrize("name", TRAININGS)
def test_two_processes_have_the_loss_curve_and_the_weights_of_one(pair, name):
    assert_as_alone(name, pair)


@pytest.mark.slow
def test_four_processes_have_the_loss_curve_and_the_weights_of_one(tmp_path):
    answers = answers_of(4, tmp_path, *TRAININGS)

    for name in TRAININGS:
        assert_as_alone(name, answers)


def test_statistics_of_batch_norm_are_the_same_in_all_processes(pair):
    alone = ranked_run.batch_norm(ALONE)

    first, second = (found["batch_norm"] for found in pair)

    assert first["weights"] == second["weights"]
    assert first["losses"] == second["losses"] != alone["losses"]
    np.testing.assert_allclose(first["losses"], alone["losses"], rtol=0.1, atol=0.05)


def test_each_process_predicts_a_share_and_gets_all(pair):
    alone = ranked_run.predictions(ALONE)

    for found in pair:
        for n, proba in alone.items():
            np.testing.assert_allclose(found["predictions"][n], proba, atol=1e-6)


def test_clocks_that_differ_do_not_part_the_processes(pair):
    """The second one's clock is twice as fast; the first one's counts."""
    assert {found["deadline"]["steps"] for found in pair} == {ranked_run.deadline(ALONE)["steps"]}
    assert ranked_run.deadline(ALONE)["steps"] < 40


def test_what_ranks_agree_on(pair):
    first, second = (found["meetings"] for found in pair)

    assert {**first, "seconds": 0} == {**second, "seconds": 0}
    assert first["first"] == {"rank": 0.0, "none": None}
    assert first["sum"] == [1.0, 2.0]
    assert first["same"] == [True, False]
    assert first["array"] == [0.0, 0.0, 0.0]
    assert "must be given the same labels, and were not" in first["refused"]


def test_what_one_process_cannot_do_stops_all_in_the_same_way(pair):
    first, second = (found["stopping"] for found in pair)

    assert first["raised"] == "RankStopError"
    assert first["said"].startswith("process 2 of 2 stopped with UnreadableImagesError: 1 image cannot be read")
    assert second["raised"] == "UnreadableImagesError"
    assert first["after"] == second["after"] == [2.0]


def test_classifier_without_a_seed_is_the_same_in_all_processes(pair):
    first, second = (found["estimator"] for found in pair)

    assert first["losses"]
    assert first["losses"] == second["losses"]
    assert first["proba"] == second["proba"]
    assert first["plan"] == second["plan"]


def test_each_process_extracts_a_share_and_finds_the_others(pair):
    assert [found["estimator"]["rows"] for found in pair] == [[60, 0], [60, 0]]


@pytest.mark.slow
def test_process_that_fails_ends_the_others_which_say_why(tmp_path):
    done = launch(2, tmp_path, "failing")

    assert done.returncode != 0
    assert "RankError: process 2 of 2 stopped with ValueError: shapes do not fit" in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_process_that_dies_leaves_no_other_waiting(tmp_path):
    """Without the launcher, which would kill the other one before it has said anything."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}

    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.finetune.ranked_run", str(tmp_path), "dying"],
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env={**os.environ, **common, "RANK": str(rank)},
        )
        for rank in range(2)
    ]
    said = [process.communicate(timeout=300)[1] for process in processes]

    assert processes[1].returncode == -signal.SIGKILL
    assert processes[0].returncode == 1
    assert "RankError: process 1 of 2 lost contact with another one, which has ended or cannot be reached" in said[0]


@pytest.mark.slow
def test_training_of_two_processes_goes_on_from_its_checkpoint_after_one_was_killed(tmp_path):
    killed = launch(2, tmp_path, "resumed")
    answers = answers_of(2, tmp_path, "resumed")

    assert killed.returncode != 0
    assert_as_alone("resumed", answers)
    # The one that writes may have been a step further than the one that was killed.
    assert [found["resumed"]["epochs"][0] in (3, 4) for found in answers] == [True, True]


@pytest.mark.slow
def test_hand_off_of_two_processes_goes_on_from_its_checkpoint_after_one_was_killed(tmp_path):
    killed = launch(2, tmp_path, "resumed_whole")
    answers = answers_of(2, tmp_path, "resumed_whole")

    assert killed.returncode != 0
    assert_as_alone("resumed_whole", answers)
    for found in (answer["resumed_whole"] for answer in answers):
        assert found["stages"] == [ranked_run.DIES_IN, "fine-tuning, fold 3 of 3", "fine-tuning, all images"]
        assert re.search(rf"went on from a checkpoint: step [67] of {ranked_run.DIES_IN}", found["message"])


@pytest.mark.slow
def test_command_line_inside_the_launcher_trains_together_and_speaks_once(tmp_path, image_folder):
    program = str(Path(sys.executable).parent / "bottleneck")
    options = {"--strategy": "finetune", "--set": "finetune.steps=4", "--device": "cpu"}
    folders = {"--out": str(tmp_path / "model"), "--cache-dir": str(tmp_path / "cache")}

    done = torchrun(2, "--no-python", program, "fit", str(image_folder), *chain(*(options | folders).items()))

    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Outcome") == 1
    assert load(tmp_path / "model").classes_.tolist() == ["bluish", "reddish"]


@pytest.mark.parametrize("n, count", [(7, 2), (2, 4), (0, 3), (12, 3)])
def test_shares_are_equal_up_to_one_and_leave_nothing_out(n, count):
    shares = [np.arange(n)[Ranks(rank=rank, count=count).share(n)] for rank in range(count)]

    assert np.concatenate(shares).tolist() == list(range(n))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_alone_everything_is_what_it_was():
    array = np.arange(3.0)

    assert ALONE.first("a") == "a"
    assert ALONE.sum(array) is array
    assert ALONE.first_array(array) is array
    ALONE.check_same(labels=array)


def test_batch_norm_is_synchronised_on_cuda_only():
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    both = Ranks(rank=0, count=2)

    for ranks, device in [(both, "cpu"), (ALONE, "cuda")]:
        synchronise_batch_norm(ranks, network, torch.device(device))
        assert type(network[1]) is nn.BatchNorm2d
    synchronise_batch_norm(both, network, torch.device("cuda"))

    assert type(network[1]) is nn.SyncBatchNorm


def test_more_processes_than_accelerators_are_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("LOCAL_RANK", "2")

    with pytest.raises(InvalidInputError, match="at most 2, one process for each CUDA device"):
        own_accelerator()
