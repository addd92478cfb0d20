import os
from pathlib import Path

import pytest

from bottleneck.errors import InvalidInputError
from bottleneck.images.folders import find_images, find_labelled_images, image_extensions

from .samples import write_pictures


def names(paths: list[str], folder: Path) -> list[str]:
    return [str(Path(path).relative_to(folder)) for path in paths]


def test_images_are_found_at_every_depth_in_natural_order(tmp_path: Path) -> None:
    write_pictures(tmp_path, ["img10.png", "img2.png", "Img1.png", "b/1.png", "a/x/y/2.png", "a/1.png"])

    found = names(find_images(tmp_path), tmp_path)

    assert found == ["a/1.png", "a/x/y/2.png", "b/1.png", "Img1.png", "img2.png", "img10.png"]


def test_hidden_and_other_files_are_left_out(tmp_path: Path) -> None:
    write_pictures(tmp_path, ["a.png", ".hidden.png", ".cache/b.png", "._a.png"])
    for name in ("notes.txt", "labels.csv", "features.h5", "paper.pdf", "Thumbs.db", "no_extension"):
        (tmp_path / name).write_text("x")

    assert names(find_images(tmp_path), tmp_path) == ["a.png"]


def test_extensions_count_in_any_case(tmp_path: Path) -> None:
    write_pictures(tmp_path, ["a.PNG", "b.JPeG", "c.Tif"])

    assert len(find_images(tmp_path)) == 3
    assert {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".avif"} <= image_extensions()


def test_files_that_will_not_decode_are_kept(tmp_path: Path) -> None:
    (tmp_path / "html.jpg").write_text("<html>")
    (tmp_path / "empty.png").touch()
    (tmp_path / "link.gif").symlink_to("gone")

    assert names(find_images(tmp_path), tmp_path) == ["empty.png", "html.jpg", "link.gif"]


def test_a_folder_with_the_extension_of_an_image_is_a_folder(tmp_path: Path) -> None:
    write_pictures(tmp_path, ["x.jpg/1.png"])
    os.mkfifo(tmp_path / "pipe.png")

    assert names(find_images(tmp_path), tmp_path) == ["x.jpg/1.png"]


def test_linked_folders_are_followed(tmp_path: Path) -> None:
    write_pictures(tmp_path / "elsewhere", ["1.png"])
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "cat").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "data" / "dog").symlink_to(tmp_path / "elsewhere")

    assert names(find_images(tmp_path / "data"), tmp_path / "data") == ["cat/1.png", "dog/1.png"]


def test_a_circle_of_links_is_an_error(tmp_path: Path) -> None:
    write_pictures(tmp_path, ["a/1.png"])
    (tmp_path / "a" / "up").symlink_to(tmp_path)

    with pytest.raises(InvalidInputError, match="a/up: a link back to a folder above it"):
        find_images(tmp_path)


def test_a_folder_without_images_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()

    with pytest.raises(InvalidInputError, match="has no images"):
        find_images(tmp_path)


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may read everything")
def test_a_forbidden_folder_is_an_error(tmp_path: Path) -> None:
    write_pictures(tmp_path, ["a/1.png", "b/1.png"])
    (tmp_path / "a").chmod(0)

    with pytest.raises(InvalidInputError, match="a: Permission denied"):
        find_images(tmp_path)
    (tmp_path / "a").chmod(0o700)


def test_labels_are_the_names_of_class_folders(tmp_path: Path) -> None:
    write_pictures(tmp_path, ["dog/2.png", "cat/10.png", "cat/9.png", "dog/more/1.png", ".git/x.png"])

    paths, labels = find_labelled_images(tmp_path)

    assert names(paths, tmp_path) == ["cat/9.png", "cat/10.png", "dog/2.png", "dog/more/1.png"]
    assert labels == ["cat", "cat", "dog", "dog"]


def test_labels_do_not_depend_on_how_the_folder_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_pictures(tmp_path, ["data/cat/1.png", "data/dog/1.png"])
    monkeypatch.chdir(tmp_path / "data")

    for folder in (".", "./", "../data", str(tmp_path / "data") + "/", "cat/.."):
        assert find_labelled_images(folder)[1] == ["cat", "dog"]


def test_images_without_class_folders_have_no_labels(tmp_path: Path) -> None:
    write_pictures(tmp_path, ["1.png", "2.png"])

    with pytest.raises(InvalidInputError, match="no class folders"):
        find_labelled_images(tmp_path)


def test_everything_that_makes_labels_unclear_is_named(tmp_path: Path) -> None:
    write_pictures(tmp_path, ["cat/1.png", "dog/1.png", "stray1.png", "stray2.png"])
    (tmp_path / "bird").mkdir()

    with pytest.raises(InvalidInputError) as error:
        find_labelled_images(tmp_path)

    for problem in ("stray1.png: outside", "stray2.png: outside", "bird: a class folder without an image"):
        assert problem in str(error.value)
