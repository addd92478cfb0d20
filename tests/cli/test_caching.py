"""The cache command: tables, shares of a job, workers."""

import pytest

from tests.cli.conftest import last_json


@pytest.fixture
def table(image_folder):
    path = image_folder / "list.csv"
    names = sorted(str(image.relative_to(image_folder)) for image in image_folder.rglob("*.png"))
    path.write_text("\n".join(["path", *names]) + "\n")
    return path


def test_shares_of_a_table_are_together_the_whole(command, table, tmp_path):
    arguments = ("cache", table, "--cache-dir", tmp_path / "cache", "--batch-size", "8", "--json", "-q")

    shares = [last_json(command(*arguments, "--shard", f"{i}/2")[1])["rows_extracted"] for i in (1, 2)]
    _, printed, _ = command(*arguments)

    assert shares == [8, 16]
    assert (last_json(printed)["rows_extracted"], last_json(printed)["rows_cached"]) == (0, 24)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--shard", "3"), "--shard must be I/N"),
        (("--shard", "3/2"), "--shard must be (i, n) with i from 1 to n"),
        (("--engine", "dsk"), "--engine must be 'joblib' or 'dask'. Got 'dsk' instead. Did you mean 'dask'"),
        (("--scheduler", "tcp://here:8786"), "--scheduler must be None unless --engine dask"),
        (("--workers", "0"), "--workers must be a positive number of processes"),
    ],
)
def test_mistyped_option_is_one_message(command, image_folder, tmp_path, options, said):
    status, _, complaint = command("cache", image_folder, "-q", "--cache-dir", tmp_path / "cache", *options)

    assert status == 2
    assert complaint.startswith(f"error: {said}")
    assert len(complaint.splitlines()) == 1


def test_table_that_is_not_there_is_one_message(command, tmp_path):
    status, _, complaint = command("cache", tmp_path / "none.csv", "-q", "--cache-dir", tmp_path / "cache")

    assert status == 2
    assert "No such file or folder: " in complaint


def test_share_without_images_says_so(command, image_folder, tmp_path):
    status, printed, _ = command("cache", image_folder, "--cache-dir", tmp_path / "cache", "-q", "--shard", "3/100")

    assert status == 0
    assert printed.startswith("Share 3 of 100 holds no images (24 in all)")
