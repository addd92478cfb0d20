"""Folders as people have them: each command takes them, or says in one message what is wrong and ends with 2."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import write_image_folder

HTML = b"<html></html>"


def nothing(folder: Path) -> None:
    """Leave it missing."""


def a_file(folder: Path) -> None:
    folder.write_text("no folder")


def empty(folder: Path) -> None:
    folder.mkdir()


def empty_classes(folder: Path) -> None:
    (folder / "bluish").mkdir(parents=True)
    (folder / "reddish").mkdir()
    (folder / "reddish" / "notes.txt").write_text("no image")


def unreadable(folder: Path) -> None:
    for path in write_image_folder(folder, n=4).rglob("*.png"):
        path.write_bytes(HTML)


def one_class(folder: Path) -> None:
    shutil.rmtree(write_image_folder(folder, n=4) / "reddish")


def no_classes(folder: Path) -> None:
    shutil.move(write_image_folder(folder.with_name("sorted"), n=4) / "bluish", folder)


def parts_of_a_split(folder: Path) -> None:
    write_image_folder(folder / "train", n=4)
    write_image_folder(folder / "test", n=4)


LABELLED = {
    "plan": ["plan", "DATA"],
    "fit": ["fit", "DATA", "--strategy", "probe"],
    "compare": ["compare", "DATA", "embedded"],
    "evaluate": ["evaluate", "MODEL", "DATA"],
    "report": ["report", "MODEL", "DATA", "--out", "REPORT"],
}
ANY_IMAGES = {"predict": ["predict", "MODEL", "DATA"], "cache": ["cache", "DATA"]}
COMMANDS = LABELLED | ANY_IMAGES
ON_ERROR = [name for name in COMMANDS if name != "plan"]

Case = tuple[str, Callable[[Path], None], str]
REFUSED: list[Case] = [
    *((name, nothing, "No such folder: ") for name in LABELLED),
    *((name, nothing, "No such file or folder: ") for name in ANY_IMAGES),
    *((name, a_file, "is a file. Name a folder with one folder of images per class.") for name in LABELLED),
    *((name, a_file, "image") for name in ANY_IMAGES),  # a file may be an image: this one cannot be read
    *((name, make, "has no images") for name in COMMANDS for make in (empty, empty_classes)),
    *((name, no_classes, "has images but no class folders") for name in LABELLED),
    *((name, parts_of_a_split, "are parts of a split (test, train), not classes.") for name in LABELLED),
    *((name, one_class, "All labels are 'bluish'.") for name in ("plan", "fit", "compare")),
]
TAKEN: list[tuple[str, Callable[[Path], None]]] = [
    ("evaluate", one_class),
    ("report", one_class),
    ("predict", no_classes),
    ("cache", parts_of_a_split),
]


@pytest.fixture
def run_on(command, saved, tmp_path):
    """Return a function that makes a folder and runs a command on it."""

    def call(name: str, make: Callable[[Path], None], *options: str):
        make(tmp_path / "data")
        stand_for = {"DATA": tmp_path / "data", "MODEL": saved / "model", "REPORT": tmp_path / "report.html"}
        words = [stand_for.get(word, word) for word in COMMANDS[name]]
        return command(*words, *options, "-q", "--cache-dir", tmp_path / "cache")

    return call


@pytest.mark.parametrize(
    ("name", "make", "said"), REFUSED, ids=[f"{name}-{make.__name__}" for name, make, _ in REFUSED]
)
def test_folder_that_cannot_be_used_is_one_error(run_on, tmp_path, name, make, said):
    status, _, complaint = run_on(name, make)

    errors = [line for line in complaint.splitlines() if line.startswith("error: ")]
    assert status == 2
    assert len(errors) == 1
    assert said in errors[0]
    assert "Traceback" not in complaint
    assert not (tmp_path / "report.html").exists()


@pytest.mark.parametrize(("name", "make"), TAKEN, ids=[f"{name}-{make.__name__}" for name, make in TAKEN])
def test_folder_that_can_be_used_is_taken(run_on, name, make):
    assert run_on(name, make)[0] == 0


@pytest.mark.filterwarnings("ignore::bottleneck.errors.SkippedImagesWarning")
@pytest.mark.parametrize(
    ("name", "options"),
    [("plan", ()), *((name, ("--on-error", choice)) for name in ON_ERROR for choice in ("raise", "skip"))],
)
def test_folder_without_a_readable_image_is_one_error(run_on, name, options):
    status, _, complaint = run_on(name, unreadable, *options)

    assert status == 2
    assert complaint.count("error: ") == 1
    assert "Traceback" not in complaint


@pytest.mark.parametrize("name", ["plan", "fit", "compare"])
def test_what_cannot_be_read_is_named_with_its_reason(run_on, name):
    _, _, complaint = run_on(name, unreadable)

    assert complaint.startswith("error: None of the 4 images can be read:\n")
    assert complaint.count("an HTML page, probably what a failed download left") == 4
    assert "--on-error" not in complaint


@pytest.mark.parametrize("words", [["evaluate", "MODEL", "X"], ["predict", "MODEL", "X"], ["report", "MODEL", "X"]])
@pytest.mark.parametrize("make", [nothing, a_file, empty, write_image_folder], ids=lambda make: make.__name__)
def test_folder_that_is_no_model_is_one_error(command, tmp_path, words, make):
    make(tmp_path / "model")
    write_image_folder(tmp_path / "images", n=4)
    stand_for = {"MODEL": tmp_path / "model", "X": tmp_path / "images"}

    status, printed, complaint = command(*(stand_for.get(word, word) for word in words), "-q")

    assert (status, printed) == (2, "")
    assert complaint.startswith("error: ")
    assert complaint.count("\n") == 1
