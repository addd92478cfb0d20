"""Every command, as --help shows it and shells complete it."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from bottleneck import __version__
from bottleneck.cli.app import JOBS, OTHERS, typer_commands
from bottleneck.cli.examples import EXAMPLES
from tests.cli.conftest import last_json

TYPED = [
    (name, line.strip().removeprefix("bottleneck "))
    for name, text in EXAMPLES.items()
    for line in text.split("\n\n")[1:]
]


def test_every_command_has_examples():
    assert set(EXAMPLES) == set(typer_commands()) == {command.__name__ for command in (*JOBS, *OTHERS)}


@pytest.mark.parametrize(("name", "example"), TYPED, ids=[example for _, example in TYPED])
def test_example_can_be_typed(name, example, tmp_path, monkeypatch):
    """It is parsed like a command line; nothing is run."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model.toml").write_text('data = "pictures"\n')
    first, *words = shlex.split(example.partition(" <")[0])

    assert first == name
    with typer_commands()[name].make_context(name, words) as ctx:
        assert ctx.params


@pytest.mark.parametrize("name", [command.__name__ for command in (*JOBS, *OTHERS)])
def test_help_shows_examples(command, name, monkeypatch):
    monkeypatch.setenv("TERMINAL_WIDTH", "200")

    status, printed, _ = command(name, "--help")

    assert status == 0
    assert f"bottleneck {name}" in printed.split("Examples:")[1]


def test_help_says_the_exit_status(command):
    assert "Exit status: 0 done." in command("--help")[1]


def test_version(command):
    assert command("--version")[:2] == (0, f"bottleneck-features {__version__}\n")


@pytest.mark.parametrize(
    ("words", "completed"),
    [("fi", "fit"), ("fit x --time-b", "--time-budget"), ("fit x --risk s", "safe"), ("fit x -b resnet5", "resnet50")],
)
def test_shell_completes(words, completed):
    typed = f"bottleneck {words}"
    done = subprocess.run(
        [sys.executable, "-c", "from bottleneck.cli import main; main()"],
        env=os.environ
        | {
            "_BOTTLENECK_COMPLETE": "complete_bash",
            "COMP_WORDS": typed,
            "COMP_CWORD": str(len(typed.split()) - 1),
        },
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.stdout.split() == [completed]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["fitt"], "Did you mean 'fit'"),
        (["fit", "x", "--time-budgt", "3"], "Possible options: --time-budget"),
        (["fit"], "See: bottleneck fit --help"),
        (["nonsense"], "See: bottleneck --help"),
    ],
)
def test_mistyped_word_is_said_with_a_suggestion(command, words, said):
    status, _, complaint = command(*words)

    assert status == 2
    assert said in complaint
    assert complaint.count("\n") == 1


@pytest.mark.slow
def test_demo_shows_a_hand_off_that_wins(command, tmp_path):
    status, printed, _ = command("demo", "--finetune", "--out", tmp_path, "--cache-dir", tmp_path / "cache", "--json")

    assert status == 0
    assert last_json(printed)["strategy"] == "finetune"
    assert "is kept" in printed
    assert (tmp_path / "report.html").is_file()


def test_demo_writes_model_and_report(command, tmp_path):
    status, printed, _ = command("demo", "--out", tmp_path, "--cache-dir", tmp_path / "cache", "--json")

    facts = last_json(printed)
    assert status == 0
    assert facts["accuracy"] > 0.97
    assert Path(facts["report"]).is_file()
    assert Path(facts["model"]).is_dir()
