"""The command line as people and programs use it."""

import errno
import io
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from bottleneck.cli.main import run
from tests.cli.conftest import last_json
from tests.conftest import write_image_folder


def test_fit_then_evaluate_then_predict(command, image_folder, tmp_path):
    cache = ("--cache-dir", tmp_path / "cache")

    status, printed, _ = command(
        "fit", image_folder, "--out", tmp_path / "model", "--strategy", "probe", "--json", "-q", *cache
    )
    fitted = last_json(printed)
    assert status == 0
    assert fitted.keys() == {
        "strategy", "accuracy_cv", "n_samples", "n_classes", "rows_extracted", "rows_cached", "seconds", "model",
        "config", "costs", "health",
    }  # fmt: skip
    assert (fitted["n_samples"], fitted["n_classes"], fitted["rows_extracted"]) == (24, 2, 24)

    status, printed, _ = command("evaluate", tmp_path / "model", image_folder, "--json", "-q", *cache)
    assert status == 0
    assert last_json(printed)["n_samples"] == 24
    assert last_json(printed)["accuracy"] > 0.8

    status, printed, _ = command("predict", tmp_path / "model", image_folder / "reddish", *cache)
    assert status == 0
    header, *rows = printed.splitlines()
    assert header == "path,status,class,probability"
    assert len(rows) == 12
    assert sum(",ok,reddish," in row for row in rows) >= 9


def test_second_fit_finds_every_feature(command, image_folder, tmp_path):
    arguments = ("fit", image_folder, "--strategy", "probe", "--json", "-q", "--cache-dir", tmp_path / "cache")
    command(*arguments)

    _, printed, _ = command(*arguments)

    assert last_json(printed)["rows_extracted"] == 0
    assert last_json(printed)["rows_cached"] == 24
    assert last_json(printed)["model"] is None


def test_cache_counts_and_verify_finds_damage(command, image_folder, tmp_path):
    cache = ("--cache-dir", tmp_path / "cache")

    status, printed, _ = command("cache", image_folder, "--json", "-q", *cache)
    counted = last_json(printed)
    assert status == 0
    assert counted.keys() == {
        "rows_extracted", "rows_cached", "rows_skipped", "images_per_second", "seconds", "space"
    }  # fmt: skip
    assert (counted["rows_extracted"], counted["rows_cached"], counted["rows_skipped"]) == (24, 0, 0)
    assert command("verify", *cache)[0] == 0

    (shard,) = (tmp_path / "cache").rglob("*.h5")
    content = bytearray(shard.read_bytes())
    content[-1] ^= 0xFF
    shard.write_bytes(content)

    status, printed, _ = command("cache", "verify", *cache)
    assert status == 1
    assert shard.name in printed
    status, printed, _ = command("verify", "--repair", *cache)
    assert status == 0
    assert "bottleneck cache IMAGES --backbone embedded --weights default" in printed
    _, printed, _ = command("cache", image_folder, "--json", "-q", *cache)
    assert last_json(printed)["rows_extracted"] == 24


def test_verify_names_a_damaged_list_of_shards_and_repairs_it(command, image_folder, tmp_path):
    cache = ("--cache-dir", tmp_path / "cache")
    command("cache", image_folder, "-q", *cache)
    (path,) = (tmp_path / "cache").rglob("manifest.jsonl")
    path.write_bytes(path.read_bytes() + b'{"torn\n')

    status, printed, _ = command("verify", "--json", *cache)
    assert status == 1
    assert "manifest.jsonl: line 2 cannot be read\n" in printed
    assert (last_json(printed)["damaged"], last_json(printed)["list_faults"]) == (0, 1)
    status, printed, _ = command("verify", "--repair", *cache)
    assert status == 0
    assert "mended" in printed
    assert command("verify", *cache)[0] == 0


@pytest.mark.parametrize("others", [(), ("IMAGES", "--weights", "default", "--device", "cpu")])
def test_verify_prints_a_repair_that_works_as_it_is(command, image_folder, tmp_path, others):
    cache = ("--cache-dir", tmp_path / "my cache")
    command("cache", image_folder, "-q", *cache)
    (shard,) = (tmp_path / "my cache").rglob("*.h5")
    shard.write_bytes(shard.read_bytes()[:-1])
    others = [image_folder if part == "IMAGES" else part for part in others]

    _, printed, _ = command("verify", *others, *cache)
    (line,) = (line for line in printed.splitlines() if line.startswith("Repair with: bottleneck "))
    status, repaired, _ = command(*shlex.split(line.removeprefix("Repair with: bottleneck ")))

    assert status == 0
    assert "1 damaged and dropped (24 rows)" in repaired
    assert ("24 images extracted again" in repaired) == bool(others)
    assert "--device cpu" in line or not others
    assert command("verify", *cache)[0] == 0


def test_repair_extracts_just_the_rows_that_were_damaged(command, image_folder, tmp_path):
    cache = ("--cache-dir", tmp_path / "cache")
    command("cache", image_folder / "bluish", "-q", *cache)
    command("cache", image_folder, "-q", *cache)
    first, _ = sorted((tmp_path / "cache").rglob("*.h5"))
    content = bytearray(first.read_bytes())
    content[-1] ^= 0xFF
    first.write_bytes(content)

    status, printed, _ = command("verify", image_folder, "--repair", "--json", *cache)

    assert status == 0
    assert (last_json(printed)["damaged_rows"], last_json(printed)["rows_extracted"]) == (12, 12)
    assert command("verify", *cache)[0] == 0
    _, printed, _ = command("cache", image_folder, "-q", "--json", *cache)
    assert (last_json(printed)["rows_extracted"], last_json(printed)["rows_cached"]) == (0, 24)


def test_several_workers_verify_and_compact_as_one_does(command, image_folder, tmp_path):
    cache = ("--cache-dir", tmp_path / "cache")
    command("cache", image_folder, "-q", *cache)

    alone, shared = (command("verify", "-q", "--json", *cache, *asked) for asked in ((), ("--workers", 2)))
    compacted = command("compact", "-q", *cache, "--workers", 2)

    assert alone == shared
    assert last_json(alone[1])["good"] == 1
    assert compacted[0] == 0
    assert compacted[1].startswith("1 shards became 1")


def test_compact_leaves_one_shard_and_every_feature(command, image_folder, tmp_path):
    cache = ("--cache-dir", tmp_path / "cache")
    command("cache", image_folder / "bluish", "-q", *cache)
    command("cache", image_folder, "-q", *cache)

    status, printed, _ = command("cache", "compact", "--json", *cache)

    assert status == 0
    assert (last_json(printed)["shards_before"], last_json(printed)["shards_after"]) == (2, 1)
    _, printed, _ = command("cache", image_folder, "-q", "--json", *cache)
    assert last_json(printed)["rows_cached"] == 24


def test_plan_shows_alternatives_and_trains_nothing(command, image_folder, tmp_path):
    status, printed, _ = command("plan", image_folder, "--json", "--cache-dir", tmp_path / "cache")

    planned = last_json(printed)
    assert status == 0
    assert {"strategy", "reasons", "alternatives", "rule_of_thumb"} <= planned.keys()
    assert planned["strategy"] == "probe"
    assert len(planned["alternatives"]) >= 2
    assert not list((tmp_path / "cache").rglob("*.h5"))


def test_plan_and_fit_say_what_is_wrong_with_the_images_and_name_them(command, image_folder, tmp_path):
    for number in range(4):
        copied = image_folder / "bluish" / f"{2 * number:03d}.png"
        (image_folder / "reddish" / f"copy_{number}.png").write_bytes(copied.read_bytes())
    options = ("--json", "-q", "--strategy", "probe", "--cache-dir", tmp_path / "cache")

    for name in ("plan", "fit"):
        status, printed, _ = command(name, image_folder, *options)

        found = {finding["rule"]: finding for finding in last_json(printed)["health"]}
        assert status == 0
        assert len(found["exact_copies_across_labels"]["sets"]) == 4
        assert "bluish/000.png (bluish), reddish/copy_0.png (reddish)" in printed
        assert "--json lists more" in printed


def test_doctor_finds_no_problem_here(command):
    status, printed, _ = command("doctor", "--json")

    assert status == 0
    assert last_json(printed)["problems"] == []


def make_empty(folder: Path) -> Path:
    folder.mkdir()
    return folder


def make_one_class(folder: Path) -> Path:
    write_image_folder(folder)
    for path in (folder / "reddish").iterdir():
        path.unlink()
    (folder / "reddish").rmdir()
    return folder


def make_broken(folder: Path) -> Path:
    write_image_folder(folder)
    (folder / "bluish" / "000.png").write_bytes(b"<html></html>")
    return folder


def make_split(folder: Path) -> Path:
    write_image_folder(folder / "train")
    write_image_folder(folder / "test")
    return folder


@pytest.mark.parametrize(
    ("make", "extra", "said"),
    [
        (lambda folder: folder, [], "nowhere"),
        (make_empty, [], "nowhere"),
        (make_one_class, [], "bluish"),
        (make_broken, [], "000.png"),
        (make_split, [], "train"),
        (write_image_folder, ["--backbone", "resnet5O"], "Did you mean 'resnet50'"),
        (write_image_folder, ["--weights", "nowhere.safetensors"], "nowhere.safetensors"),
        (write_image_folder, ["--strategy", "finetun"], "Did you mean 'finetune'"),
        (write_image_folder, ["--time-budget", "0.000001"], "--time-budget"),
        (write_image_folder, ["--memory-limit", "1000"], "(--memory-limit "),
        (write_image_folder, ["--memory-limit", "1e3", "--disk-limit", "0"], "(--disk-limit "),
        (write_image_folder, ["--memory-limit", "0.5"], "--memory-limit must be a whole number of bytes"),
        (write_image_folder, ["--disk-limit", "-1"], "--disk-limit must be"),
        (write_image_folder, ["--device", "gpuu"], "gpuu"),
        (write_image_folder, ["--head", "forest"], "forest"),
        (write_image_folder, ["--colour"], "--colour"),
        (write_image_folder, ["--time-budget", "soon"], "--time-budget"),
    ],
)
def test_mistake_is_one_message_and_exit_status_2(command, tmp_path, make, extra, said):
    data = make(tmp_path / "nowhere")

    status, _, complaint = command("fit", data, "-q", "--cache-dir", tmp_path / "cache", *extra)

    assert status == 2
    assert complaint.startswith("error: ")
    assert said in complaint
    assert "Traceback" not in complaint


INTERRUPTED_JOB = """
import sys
from bottleneck.cli.main import run
from bottleneck.extraction import Extractor

forward = Extractor._forward_once

def interrupted(self, pixels, precision):
    if self.forward_passes == 2:
        raise KeyboardInterrupt
    return forward(self, pixels, precision)

Extractor._forward_once = interrupted
sys.exit(run(sys.argv[1:]))
"""


def test_interruption_keeps_finished_work_and_says_so(command, image_folder, tmp_path):
    arguments = ["cache", str(image_folder), "--batch-size", "8", "-q", "--cache-dir", str(tmp_path / "cache")]

    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED_JOB, *arguments, "--precision", "float32"],
        capture_output=True,
        text=True,
        check=False,
    )
    _, printed, _ = command(*arguments, "--precision", "float32", "--json")

    assert done.returncode == 130
    assert done.stderr.startswith("error: Interrupted.")
    assert "Traceback" not in done.stderr
    assert last_json(printed)["rows_cached"] == 16


TERMINATED_JOB = (
    INTERRUPTED_JOB.replace("raise KeyboardInterrupt", "os.kill(os.getpid(), signal.SIGTERM)")
    .replace("import sys", "import os, signal, sys", 1)
    .replace("== 2", "== 12")
)


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGTERM")
def test_sigterm_keeps_finished_work_and_says_so(command, image_folder, tmp_path):
    arguments = ["cache", str(image_folder), "--batch-size", "1", "-q", "--cache-dir", str(tmp_path / "cache")]

    done = subprocess.run(
        [sys.executable, "-c", TERMINATED_JOB, *arguments, "--precision", "float32"],
        capture_output=True,
        text=True,
        check=False,
    )
    _, printed, _ = command(*arguments, "--precision", "float32", "--json")

    assert done.returncode == 143
    assert done.stderr.startswith("error: Stopped by SIGTERM.")
    assert "Traceback" not in done.stderr
    assert last_json(printed)["rows_cached"] >= 1


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGTERM")
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signal_before_the_command_is_known_is_one_message_too(number, status, monkeypatch, capsys):
    module = sys.modules[run.__module__]  # the package has a function of the same name
    monkeypatch.setattr(module, "as_command", lambda arguments: signal.raise_signal(number))

    assert run(["doctor"]) == status
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")


def test_help_names_every_command(command):
    status, printed, _ = command("--help")

    assert status == 0
    for name in ("plan", "fit", "evaluate", "predict", "cache", "verify", "compact", "report", "demo", "doctor"):
        assert name in printed


@pytest.mark.parametrize(
    "name", ["plan", "fit", "evaluate", "predict", "cache", "verify", "compact", "report", "demo", "doctor"]
)
def test_every_command_has_help(command, name):
    status, printed, _ = command(name, "--help")

    assert status == 0
    assert "Usage: bottleneck" in printed


def test_installed_command_says_its_mistakes_without_a_traceback(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", "from bottleneck.cli import main; main()", "fit", str(tmp_path / "nowhere")],
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert len(done.stderr.splitlines()) == 1


def test_evaluation_compares_whole_names(command, tmp_path):
    folder = write_image_folder(tmp_path / "named")
    (folder / "bluish").rename(folder / "cat")
    (folder / "reddish").rename(folder / "caterpillar")
    quiet = ("-q", "--cache-dir", tmp_path / "cache")
    command("fit", folder, "--out", tmp_path / "model", "--strategy", "probe", *quiet)
    wrong = tmp_path / "wrong"
    wrong.mkdir()
    (folder / "caterpillar").rename(wrong / "cat")

    _, printed, _ = command("evaluate", tmp_path / "model", wrong, "--json", *quiet)

    assert last_json(printed)["accuracy"] < 0.2


def test_folder_with_other_things_is_refused_before_any_work(command, image_folder, tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "thesis.txt").write_text("three years")

    status, _, complaint = command(
        "fit", image_folder, "--out", tmp_path / "thesis", "-q", "--cache-dir", tmp_path / "cache"
    )

    assert status == 2
    assert "not a saved classifier" in complaint
    assert not (tmp_path / "cache").exists()


def test_verify_says_when_there_is_no_cache(command, tmp_path, image_folder):
    assert command("verify", "--cache-dir", tmp_path / "nowhere")[0] == 2
    assert command("verify", "--cache-dir", image_folder)[0] == 2


def test_missing_model_folder_is_said(command, image_folder, tmp_path):
    status, _, complaint = command("evaluate", tmp_path / "modell", image_folder, "-q")

    assert status == 2
    assert "no folder" in complaint


def test_output_that_cannot_be_written_is_said(command, monkeypatch):
    class FullDisk(io.StringIO):
        def flush(self) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("sys.stdout", FullDisk())

    status = run(["--version"])

    monkeypatch.undo()
    assert status == 2


def test_file_in_place_of_the_folder_is_said(command, tmp_path):
    (tmp_path / "list.txt").write_text("")

    for name in ("plan", "fit"):
        assert "is a file. Name a folder" in command(name, tmp_path / "list.txt")[2]
    assert "No such file or folder" in command("cache", tmp_path / "nowhere", "--cache-dir", tmp_path)[2]
    assert "is a file. Name the folder" in command("demo", "--out", tmp_path / "list.txt")[2]
