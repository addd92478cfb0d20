"""Tables of paths: every row in its place, read where it is needed and never held whole."""

import csv
import pickle
from pathlib import Path

import pytest

from bottleneck.errors import InvalidInputError
from bottleneck.images import ImageReadError, as_image_source, part_of
from bottleneck.images import manifest as manifest_module


def write_table(path: Path, names: list[str], column: str = "path") -> Path:
    if path.suffix == ".csv":
        with path.open("w", newline="", encoding="utf-8") as file:
            rows = csv.writer(file)
            rows.writerow(["label", column])
            rows.writerows(["a, b", name] for name in names)
    else:
        pyarrow = pytest.importorskip("pyarrow")
        from pyarrow import parquet

        table = pyarrow.table({"label": ["a"] * len(names), column: names})
        parquet.write_table(table, path, row_group_size=7)
    return path


@pytest.fixture(params=["list.csv", "list.parquet"])
def table(request, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a table of 50 files beside it, some with names that CSV must quote, in blocks of 7 rows."""
    monkeypatch.setattr(manifest_module, "BLOCK_ROWS", 7)
    names = [f'{i} "é,\n.png' if i % 5 == 0 else f"{i}.png" for i in range(50)]
    for i, name in enumerate(names):
        (tmp_path / name).write_bytes(b"image %d" % i)
    return write_table(tmp_path / request.param, names)


def test_row_i_is_the_file_in_row_i_of_the_table(table):
    source = as_image_source(str(table))

    assert len(source) == 50
    assert [source.read(row) for row in range(50)] == [b"image %d" % row for row in range(50)]
    assert source.ids[3] == str(table.parent / "3.png")
    assert source.ids[-1:] == [str(table.parent / "49.png")]
    assert source.stat(4).size == 7


@pytest.mark.parametrize("rows", [range(50), range(7, 14), range(5, 37), range(49, 50), range(8, 8)])
def test_part_has_the_same_rows_and_travels_without_the_others(table, rows):
    source = as_image_source(table)

    part = pickle.loads(pickle.dumps(part_of(source, rows)))

    assert [part.read(i) for i in range(len(part))] == [source.read(row) for row in rows]
    assert len(part) == len(rows)
    of_part = part_of(part, range(len(rows) // 2, len(rows)))
    assert [of_part.read(i) for i in range(len(of_part))] == [source.read(row) for row in rows[len(rows) // 2 :]]


def test_part_of_a_long_table_is_small_and_only_its_blocks_are_read(tmp_path, monkeypatch):
    table = write_table(tmp_path / "long.csv", [f"{i}.png" for i in range(100_000)])
    read = []
    csv_block = manifest_module._csv_block
    monkeypatch.setattr(manifest_module, "_csv_block", lambda *where: read.append(where) or csv_block(*where))

    part = part_of(as_image_source(table), range(40_960, 49_152))
    names = list(part.ids)

    assert names == [str(tmp_path / f"{i}.png") for i in range(40_960, 49_152)]
    assert len(read) == 2
    assert len(pickle.dumps(part)) < 500


def test_path_that_is_absolute_or_missing_stays_what_it_is(tmp_path):
    image = tmp_path / "elsewhere" / "cat.png"
    image.parent.mkdir()
    image.write_bytes(b"cat")
    (tmp_path / "table").mkdir()
    source = as_image_source(write_table(tmp_path / "table" / "list.csv", [str(image), "none.png", ""]))

    assert source.read(0) == b"cat"
    for row in (1, 2):
        with pytest.raises(ImageReadError, match=r"no such file|folder"):
            source.read(row)


def test_table_without_a_column_of_paths_says_what_it_has(tmp_path):
    with pytest.raises(InvalidInputError, match=r"no column of paths.*'path'.*Got 'label', 'picture'"):
        as_image_source(write_table(tmp_path / "list.csv", ["a.png"], column="picture"))


def test_only_column_may_be_called_anything(tmp_path):
    (tmp_path / "list.csv").write_text("picture\na.png\n")
    (tmp_path / "a.png").write_bytes(b"a")

    assert as_image_source(tmp_path / "list.csv").read(0) == b"a"


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("list.csv", b"path\n", "no rows"),
        ("list.csv", b"", "no rows"),
        ("list.csv", b"path\n\xff\xfe.png\n", "not UTF-8"),
        ("list.parquet", b"path\na.png\n", "no Parquet file"),
        ("none.csv", None, "cannot be read"),
    ],
)
def test_table_that_cannot_be_used_is_one_clear_error(tmp_path, name, content, said):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    if name.endswith(".parquet"):
        pytest.importorskip("pyarrow")

    with pytest.raises(InvalidInputError, match=said):
        as_image_source(tmp_path / name).ids[0]
