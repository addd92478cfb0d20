"""Rows of predictions in three formats."""

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest

from bottleneck.cli.rows import GROUP_ROWS, Columns, open_writer, parse_format, whole_file
from bottleneck.errors import InvalidInputError

COLUMNS = Columns(classes=("cat", "dog", "emu"), top_k=2, with_proba=True)
PROBA = np.array([[0.2, 0.7, 0.1], [np.nan] * 3, [0.5, 0.25, 0.25]])
ROWS = list(COLUMNS.rows(["a.png", "b.png", 'c "d", e.png'], PROBA, {1: "no such file"}))


def test_rows_have_the_most_likely_classes_first_and_a_status():
    assert COLUMNS.names == (
        "path", "status", "class", "probability", "class_2", "probability_2", "p(cat)", "p(dog)", "p(emu)"
    )  # fmt: skip
    assert [
        ("a.png", "ok", "dog", 0.7, "cat", 0.2, 0.2, 0.7, 0.1),
        ("b.png", "unreadable: no such file", *(None,) * 7),
        ('c "d", e.png', "ok", "cat", 0.5, "dog", 0.25, 0.5, 0.25, 0.25),
    ] == ROWS


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_every_format_reads_back_the_same(tmp_path, suffix):
    pandas = pytest.importorskip("pandas")
    if suffix == "parquet":
        pytest.importorskip("pyarrow")
    out = tmp_path / f"rows.{suffix}"
    read = {"csv": pandas.read_csv, "jsonl": lambda path: pandas.read_json(path, lines=True, precise_float=True)}

    with open_writer(parse_format(None, out), out, COLUMNS) as writer:
        writer.write(iter(ROWS[:2]))
        writer.write(iter(ROWS[2:]))
    frame = read.get(suffix, pandas.read_parquet)(out)

    found = [tuple(None if value is None or value != value else value for value in row) for row in frame.values]
    assert tuple(frame.columns) == COLUMNS.names
    assert found == ROWS


def test_parquet_is_written_in_row_groups(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    columns = Columns(classes=("a", "b"), top_k=1, with_proba=False)
    row = ("x.png", "ok", "a", 0.5)

    with open_writer("parquet", tmp_path / "rows.parquet", columns) as writer:
        for _ in range(3):
            writer.write(row for _ in range(GROUP_ROWS // 2))

    file = parquet.ParquetFile(tmp_path / "rows.parquet")
    assert [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)] == [GROUP_ROWS, GROUP_ROWS // 2]


def test_path_that_is_no_text_survives(tmp_path, capsys):
    path = b"caf\xe9.png".decode("utf-8", "surrogateescape")
    row = next(COLUMNS.rows([path], PROBA[:1], {}))

    with open_writer("csv", tmp_path / "rows.csv", COLUMNS) as writer:
        writer.write(iter([row]))
    assert b"caf\xe9.png" in (tmp_path / "rows.csv").read_bytes()

    with open_writer("jsonl", None, COLUMNS) as writer:
        writer.write(iter([row]))
    assert json.loads(capsys.readouterr().out)["path"] == path

    parquet = pytest.importorskip("pyarrow.parquet")
    with open_writer("parquet", tmp_path / "rows.parquet", COLUMNS) as writer:
        writer.write(iter([row]))
    assert parquet.read_table(tmp_path / "rows.parquet")["path"].to_pylist() == ["caf\\xe9.png"]


def test_printed_rows_appear_at_once(monkeypatch):
    stream = io.StringIO()
    monkeypatch.setattr("sys.stdout", stream)

    with open_writer("csv", None, COLUMNS) as writer:
        writer.write(iter(ROWS[:1]))
        assert len(list(csv.reader(io.StringIO(stream.getvalue())))) == 2


def write_and_interrupt(out: Path) -> None:
    with open_writer(parse_format(None, out), out, COLUMNS) as writer:
        writer.write(iter(ROWS))
        raise KeyboardInterrupt


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_file_appears_whole_or_not_at_all(tmp_path, suffix):
    if suffix == "parquet":
        pytest.importorskip("pyarrow")
    out = tmp_path / f"rows.{suffix}"
    out.write_text("an older one")

    with pytest.raises(KeyboardInterrupt):
        write_and_interrupt(out)

    assert out.read_text() == "an older one"
    assert list(tmp_path.iterdir()) == [out]


def test_what_cannot_be_written_is_said(tmp_path):
    with (
        pytest.raises(InvalidInputError, match="cannot be written: No such file"),
        whole_file(tmp_path / "nowhere" / "rows.csv", text=True),
    ):
        pass
    with pytest.raises(InvalidInputError, match="is no file"), whole_file(tmp_path, text=True):
        pass


def test_closed_output_is_said(monkeypatch):
    monkeypatch.setattr("sys.stdout", None)

    with pytest.raises(InvalidInputError, match="Name a file with --out"), open_writer("csv", None, COLUMNS):
        pass


def test_format_is_asked_for_or_said_by_the_name(tmp_path):
    assert parse_format(None, None) == "csv"
    assert parse_format(None, tmp_path / "rows.PARQUET") == "parquet"
    assert parse_format("jsonl", tmp_path / "rows.txt") == "jsonl"
    with pytest.raises(InvalidInputError, match=r"--format must be .* Did you mean 'jsonl'"):
        parse_format("json", None)
    with pytest.raises(InvalidInputError, match=r"rows.xlsx"):
        parse_format(None, tmp_path / "rows.xlsx")
    with pytest.raises(InvalidInputError, match="Parquet is written to a file"):
        parse_format("parquet", None)
