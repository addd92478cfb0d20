import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from bottleneck.images import FileStat, ImageReadError, ImageSource, as_image_source, decode

from .contract import SourceContract
from .samples import Pixels, encode, picture, write_pictures

NOBODY = 65534
"""The user without rights."""


class TestFileSource(SourceContract):
    @pytest.fixture
    def expected(self) -> list[Pixels]:
        return [picture(seed) for seed in range(3)]

    @pytest.fixture
    def source(self, tmp_path: Path) -> ImageSource:
        return as_image_source(write_pictures(tmp_path, ["a.png", "b.png", "c.png"]))


def reason_to_refuse(path: str | Path) -> str:
    """Return why a path cannot be read; stat and read must agree."""
    source = as_image_source([path])
    with pytest.raises(ImageReadError) as of_read:
        source.read(0)
    with pytest.raises(ImageReadError) as of_stat:
        source.stat(0)
    assert of_read.value.reason == of_stat.value.reason
    return of_read.value.reason


def test_stat_identifies_the_file_by_its_absolute_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (path,) = write_pictures(tmp_path, ["a.png"])
    monkeypatch.chdir(tmp_path)

    stat = as_image_source(["a.png"]).stat(0)

    assert stat == FileStat(path=path, size=Path(path).stat().st_size, mtime_ns=Path(path).stat().st_mtime_ns)


@pytest.mark.parametrize("detour", ["", "/.", "//", "/x/..", "/../{}"])
def test_one_file_has_one_absolute_path_however_it_is_spelled(tmp_path: Path, detour: str) -> None:
    (path,) = write_pictures(tmp_path, ["a.png"])
    (tmp_path / "x").mkdir()

    stat = as_image_source([f"{tmp_path}{detour.format(tmp_path.name)}/a.png"]).stat(0)

    assert stat is not None
    assert stat.path == path


def test_reasons_are_in_plain_words(tmp_path: Path) -> None:
    folder = tmp_path / "x.jpg"
    folder.mkdir()
    link = tmp_path / "link.jpg"
    link.symlink_to("gone.jpg")
    pipe = tmp_path / "pipe.jpg"
    os.mkfifo(pipe)

    assert reason_to_refuse(tmp_path / "none.jpg") == "no such file"
    assert reason_to_refuse(folder) == "this is a folder, not an image file"
    assert reason_to_refuse(link) == "broken symbolic link to gone.jpg"
    assert reason_to_refuse(pipe) == "this is a pipe, a socket or a device, not an image file"
    assert "null" in reason_to_refuse("a\0b.jpg")
    assert "name too long" in reason_to_refuse("a" * 5000).lower()


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """Return a folder that every user may enter, which pytest's own are not."""
    with TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@contextmanager
def as_ordinary_user() -> Iterator[None]:
    """Give up the superuser's right to read everything, where the tests have it."""
    before = os.geteuid()
    if before == 0:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        if before == 0:
            os.seteuid(before)


def test_a_forbidden_file_says_so(open_folder: Path) -> None:
    (path,) = write_pictures(open_folder, ["a.png"])
    Path(path).chmod(0)

    with as_ordinary_user(), pytest.raises(ImageReadError, match="permission denied"):
        as_image_source([path]).read(0)


def test_a_file_in_a_forbidden_folder_says_so(open_folder: Path) -> None:
    (path,) = write_pictures(open_folder, ["inside/a.png"])
    Path(path).parent.chmod(0)

    with as_ordinary_user():
        reason = reason_to_refuse(path)

    Path(path).parent.chmod(0o755)
    assert reason == "permission denied"


def test_file_names_need_not_be_utf8(tmp_path: Path) -> None:
    path = os.fsencode(tmp_path) + b"/caf\xe9.png"
    try:
        Path(os.fsdecode(path)).write_bytes(encode(picture(0)))
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")

    (name,) = as_image_source(str(tmp_path)).ids

    assert os.fsencode(name) == path
    assert decode(as_image_source([name]).read(0)).size == (17, 12)


def test_paths_are_not_touched_before_they_are_read() -> None:
    paths = [f"/nowhere/{i}.jpg" for i in range(1000)]

    assert as_image_source(paths).ids == paths
