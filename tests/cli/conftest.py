"""One command run in this process, and a saved classifier to run commands on."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from bottleneck.cli.main import run
from tests.conftest import write_image_folder

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Command:
    """Return a function that runs one command and returns its exit status, standard output and standard error."""

    def call(*arguments: object) -> tuple[int, str, str]:
        capsys.readouterr()
        status = run([str(argument) for argument in arguments])
        printed = capsys.readouterr()
        return status, printed.out, printed.err

    return call


@pytest.fixture(scope="session")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a saved classifier (model), the images that it was fitted on, and their cache."""
    from bottleneck import TransferClassifier, save

    folder = tmp_path_factory.mktemp("saved")
    images = write_image_folder(folder / "images")
    classifier = TransferClassifier(strategy="probe", cache_dir=folder / "cache", random_state=0).fit(images)
    save(classifier, folder / "model")
    return folder


def last_json(printed: str) -> dict[str, object]:
    """Return the object that --json printed last."""
    found: dict[str, object] = json.loads(printed.splitlines()[-1])
    return found
