import json
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from bottleneck.finetune import checkpoints
from bottleneck.finetune.identity import with_checkpoints
from bottleneck.finetune.loop import run_training
from bottleneck.finetune.resume import Course, bytes_of, take_snapshot
from bottleneck.finetune.step import Training
from bottleneck.progress import Progress
from tests.finetune.resumed_run import result_of, run, tiny_task
from tests.finetune.tasks import Task, flat, make_training

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep a checkpoint after every step."""
    monkeypatch.setattr(checkpoints, "LEAST_SECONDS", 0.0)
    monkeypatch.setattr(checkpoints, "WRITES_APART", 0)


@pytest.fixture(scope="module")
def dropping() -> Task:
    """Return a task for a network with dropout, which draws from torch's global generator."""
    return tiny_task()


def kept_training(task: Task, folder: Path, **settings: object) -> Training:
    """Return a training that is kept in a folder and may have been before."""
    training = make_training(task, **{"steps": 11, **settings})
    return replace(training, job=with_checkpoints(training.job, folder, task.source, task.labels, workers=0))


def train(task: Task, folder: Path | None = None, **settings: object):
    """Train to the end; return weights and history."""
    training = make_training(task, steps=11, **settings) if folder is None else kept_training(task, folder, **settings)
    return flat(run_training(training)), training.job.told_history()


def press_ctrl_c_after(step: int):
    def tell(event: Progress) -> None:
        if event.done == step:
            signal.raise_signal(signal.SIGINT)

    return tell


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"optimizer": "adamw", "lr": 0.01, "weight_decay": 0.1, "ema": 0.9},
        {"precision": "bfloat16", "adaptive_rates": True},
        {"batch_norm": "train", "mixup": 0.3, "cutmix": 1.0, "augment": "trivial"},
        {"freeze_epochs": 1, "unfreeze_every": 1, "ema": 0.9},
    ],
    ids=str,
)
def test_stopped_training_goes_on_to_the_same_weights_and_history(dropping, tmp_path: Path, settings):
    weights, history = train(dropping, **settings)

    for step in (1, 5, 8, 11):  # within an epoch, near and at the end of one, and after the last step
        with pytest.raises(KeyboardInterrupt):
            train(dropping, tmp_path, progress=press_ctrl_c_after(step), **settings)
    resumed, resumed_history = train(dropping, tmp_path, **settings)

    assert torch.equal(resumed, weights)
    assert resumed_history == history


def test_checkpoints_change_nothing(dropping, tmp_path: Path, every_step):
    weights, history = train(dropping)

    kept, kept_history = train(dropping, tmp_path)

    assert any(tmp_path.iterdir())
    assert torch.equal(kept, weights)
    assert kept_history == history


def test_training_that_is_too_short_for_checkpoints_leaves_none(dropping, tmp_path: Path):
    train(dropping, tmp_path)

    assert not any(tmp_path.iterdir())


def test_progress_says_that_a_training_goes_on(dropping, tmp_path: Path):
    events: list[Progress] = []
    with pytest.raises(KeyboardInterrupt):
        train(dropping, tmp_path, progress=press_ctrl_c_after(4))

    train(dropping, tmp_path, progress=events.append)

    assert (events[0].done, events[0].note) == (5, "going on from a checkpoint")
    assert [event.done for event in events[1:]] == list(range(6, 12))


def test_another_number_of_threads_is_noted_in_the_log(dropping, tmp_path: Path, caplog):
    caplog.set_level("INFO", logger="bottleneck")
    with pytest.raises(KeyboardInterrupt):
        train(dropping, tmp_path, progress=press_ctrl_c_after(4))

    torch.set_num_threads(2)
    try:
        train(dropping, tmp_path)
    finally:
        torch.set_num_threads(1)

    assert "going on from step 5 of test" in caplog.text
    assert "began with 1 threads" in caplog.text


def test_interruption_in_the_middle_of_a_step_leaves_the_checkpoint_before_it(dropping, tmp_path: Path, every_step):
    """A program whose own handler raises at any moment: half a step must not be kept."""
    weights, history = train(dropping)
    training = kept_training(dropping, tmp_path)
    step_of = training.optimizer.step

    def interrupted_step() -> None:
        step_of()
        if training.pace.step == 6:
            raise KeyboardInterrupt

    training.optimizer.step = interrupted_step
    with pytest.raises(KeyboardInterrupt):
        run_training(training)

    assert kept_training(dropping, tmp_path).job.checkpoints.went_on_from == "step 5 of test"
    resumed, resumed_history = train(dropping, tmp_path)
    assert torch.equal(resumed, weights)
    assert resumed_history == history


def test_size_of_a_snapshot_is_known_beforehand(dropping):
    training = make_training(dropping, optimizer="adamw", lr=0.01, ema=0.9, steps=2)
    run_training(training)

    tensors = take_snapshot(training, Course()).tensors
    n_bytes = sum(tensor.nbytes for name, tensor in tensors.items() if "random" not in name)

    assert bytes_of(training.job) == pytest.approx(n_bytes, rel=0.2)


def run_and_kill(kind: str, folder: Path, *, n_lines: int, seconds: float) -> bool:
    """Kill a run some time after it has told so many lines; False if it was over before."""
    command = [sys.executable, "-m", "tests.finetune.resumed_run", kind, str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]) as process:
        for number, _ in enumerate(process.stdout, start=1):
            if number == n_lines:
                time.sleep(seconds)
                process.kill()
    return process.returncode != 0


def test_killed_process_is_gone_on_from_to_the_same_bits(tmp_path: Path, every_step):
    expected = result_of(run("scratch", tiny_task()))

    assert run_and_kill("scratch", tmp_path, n_lines=20, seconds=0.003)
    resumed = run("scratch", tiny_task(), tmp_path)

    assert result_of(resumed) == expected


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["scratch", "finetune"])
def test_process_killed_twenty_times_comes_to_the_same_bits(tmp_path: Path, kind: str):
    expected = json.loads(json.dumps(result_of(run(kind, tiny_task()))))
    rng = random.Random(0)
    n_steps = expected["history"][-1]["step"] if kind == "scratch" else 150

    n_killed = 0
    while not (tmp_path / "result").exists():
        # A few steps at a time until it was killed twenty times, then to the end.
        n_lines = rng.randint(1, 3 + n_steps // 40) if n_killed < 20 else 10**6
        n_killed += run_and_kill(kind, tmp_path, n_lines=n_lines, seconds=rng.random() * 0.02)

    assert n_killed == 20
    assert json.loads((tmp_path / "result").read_text()) == expected
