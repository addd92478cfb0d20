"""Predictions of many images as they come."""

import csv
import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from bottleneck import load
from bottleneck.cli.predict import FIRST_CHUNK, MOST_ROWS, chunks_of
from tests.cli.conftest import last_json


@pytest.fixture
def cache(saved) -> tuple[str, str]:
    return ("--cache-dir", str(saved / "cache"))


def rows_of(printed: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(printed)))


def test_probabilities_are_those_of_the_classifier_in_the_order_given(command, saved, cache):
    paths = sorted(map(str, (saved / "images").rglob("*.png")), reverse=True)

    status, printed, _ = command("predict", saved / "model", *paths, "--proba", *cache)

    expected = load(saved / "model").set_params(cache_dir=saved / "cache").predict_proba(paths)
    rows = rows_of(printed)
    assert status == 0
    assert [row["path"] for row in rows] == paths
    assert [float(row["p(bluish)"]) for row in rows] == pytest.approx(expected[:, 0], rel=1e-5)
    assert all(row["class"] == ("bluish" if float(row["p(bluish)"]) > 0.5 else "reddish") for row in rows)


def test_bad_image_is_a_status_and_moves_no_row(command, saved, cache, tmp_path):
    good = sorted(map(str, (saved / "images").rglob("*.png")))[:2]
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"<html></html>")

    status, printed, said = command("predict", saved / "model", good[0], broken, good[1], "--json", *cache)

    first, second, third = map(json.loads, printed.splitlines())
    assert status == 0
    assert [first["path"], second["path"], third["path"]] == [good[0], str(broken), good[1]]
    assert (first["status"], third["status"]) == ("ok", "ok")
    assert second["status"].startswith("unreadable: ")
    assert (second["class"], second["probability"]) == (None, None)
    assert said.startswith("warning: 1 of 3 images could not be read")


def test_bad_image_stops_it_if_asked_to(command, saved, cache, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"<html></html>")

    status, _, said = command("predict", saved / "model", tmp_path / "broken.png", "--on-error", "raise", *cache)

    assert status == 2
    assert "broken.png" in said
    assert "--on-error skip" in said


def test_nothing_readable_is_an_error_after_the_rows(command, saved, cache, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"<html></html>")

    status, printed, said = command("predict", saved / "model", tmp_path, *cache)

    assert status == 2
    assert len(rows_of(printed)) == 1
    assert said == "error: None of the 1 images can be read. Their status says why.\n"


def test_paths_come_from_the_standard_input(command, saved, cache, monkeypatch):
    good = sorted(map(str, (saved / "images").rglob("*.png")))[:2]
    listed = f"{good[0]}\n\nnowhere.png\r\n{good[1]}".encode()
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(listed)))

    status, printed, _ = command("predict", saved / "model", "-", *cache)

    assert status == 0
    assert [(row["path"], row["status"]) for row in rows_of(printed)] == [
        (good[0], "ok"), ("nowhere.png", "unreadable: no such file"), (good[1], "ok")
    ]  # fmt: skip


def test_missing_path_on_the_command_line_is_said_before_any_work(command, saved):
    status, printed, said = command("predict", saved / "no model yet", saved / "images", "nowhere.png")

    assert (status, printed) == (2, "")
    assert said == "error: No such file or folder: nowhere.png.\n"


def test_top_k_is_no_more_than_there_are_classes(command, saved, cache):
    image = next((saved / "images").rglob("*.png"))

    _, printed, _ = command("predict", saved / "model", image, "-k", "5", "--json", *cache)

    assert last_json(printed).keys() == {
        "path", "status", "class", "probability", "class_2", "probability_2"
    }  # fmt: skip


def test_parquet_file_has_every_row(command, saved, cache, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")

    status, printed, _ = command(
        "predict", saved / "model", saved / "images", "--out", tmp_path / "rows.parquet", *cache
    )

    table = parquet.read_table(tmp_path / "rows.parquet").to_pydict()
    assert (status, printed) == (0, "")
    assert len(table["path"]) == 24
    assert set(table["status"]) == {"ok"}


def test_formats_that_contradict_are_said(command, saved):
    status, _, said = command("predict", saved / "model", saved / "images", "--json", "--format", "csv")

    assert status == 2
    assert "--json is --format jsonl" in said


class Slowly(io.RawIOBase):
    """Gives what somebody types, piece by piece, and notes when it is asked."""

    def __init__(self, pieces: list[bytes], log: list[str]) -> None:
        self.pieces, self.log = pieces, log

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:
        self.log.append("asked")
        piece = self.pieces.pop(0) if self.pieces else b""
        buffer[: len(piece)] = piece
        return len(piece)


def test_whoever_writes_slowly_is_answered_at_once(monkeypatch):
    log: list[str] = []
    raw = Slowly([b"a.png\nb.p", b"ng\n", b"c.png\n"], log)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BufferedReader(raw)))

    for chunk in chunks_of(["-"]):
        log += chunk

    assert log == ["asked", "a.png", "asked", "b.png", "asked", "c.png", "asked"]


def test_chunks_grow_while_they_are_quick_and_hold_a_bounded_number(monkeypatch):
    n_lines = 30_000
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"a.png\n" * n_lines)))

    sizes = [len(chunk) for chunk in chunks_of(["-"])]

    assert sizes[:3] == [FIRST_CHUNK, 2 * FIRST_CHUNK, 4 * FIRST_CHUNK]
    assert max(sizes) <= MOST_ROWS
    assert sum(sizes) == n_lines


def test_files_named_one_by_one_share_a_chunk(tmp_path):
    names = [str(tmp_path / f"{i}.png") for i in range(FIRST_CHUNK)]

    assert list(chunks_of(names)) == [names]


def test_million_lines_are_never_all_in_memory():
    """What is held is a chunk, however many come: the generator of lines is asked again and again."""

    class Endless(io.RawIOBase):
        def readable(self) -> bool:
            return True

        def readinto(self, buffer: memoryview) -> int:
            line = b"some/image.png\n" * (len(buffer) // 15)
            buffer[: len(line)] = line
            return len(line)

    def first_of(stream: io.TextIOWrapper) -> Iterator[list[str]]:
        before, sys.stdin = sys.stdin, stream
        try:
            yield from chunks_of(["-"])
        finally:
            sys.stdin = before

    chunks = first_of(io.TextIOWrapper(io.BufferedReader(Endless())))
    total = 0
    while total < 1_000_000:
        total += len(next(chunks))
    chunks.close()


@pytest.mark.skipif(os.name == "nt", reason="needs a POSIX pipe")
def test_reader_that_leaves_ends_it_cleanly(saved, cache, tmp_path):
    (tmp_path / "paths.txt").write_text(f"{next((saved / 'images').rglob('*.png'))}\n" * 3000)
    start = [sys.executable, "-c", "from bottleneck.cli import main; main()"]
    reading, writing = os.pipe()
    os.close(reading)

    with (tmp_path / "paths.txt").open("rb") as paths:
        done = subprocess.run(
            [*start, "predict", str(saved / "model"), "-", *cache],
            stdin=paths,
            stdout=writing,
            stderr=subprocess.PIPE,
            check=False,
        )
    os.close(writing)

    assert (done.returncode, done.stderr) == (0, b"")
