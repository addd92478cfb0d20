"""Which files of a folder are its images, and which class each belongs to."""

import os
import re
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path, PurePath

from PIL import Image

from bottleneck.errors import InvalidInputError, listed

DATA_FORMATS = frozenset({"BUFR", "GRIB", "HDF5", "MPEG", "PDF"})
"""Formats that Pillow registers and cannot turn into pixels; their files are data beside the images."""


@cache
def image_extensions() -> frozenset[str]:
    """Return the extensions, in lower case, of the files that count as images: those that Pillow registers."""
    return frozenset(extension for extension, kind in Image.registered_extensions().items() if kind not in DATA_FORMATS)


def find_images(folder: str | os.PathLike[str]) -> list[str]:
    """Return the paths of all images under a folder, at any depth, in natural order (2 before 10).

    Hidden files and folders (a leading dot) and files without the extension of an image are left out. Whatever has the
    extension stays, also broken links and files that will not decode: those are reported when they are read.

    Raises
    ------
    InvalidInputError
        A folder cannot be listed or links back to a folder above it (all of them named), or there is no image.
    """
    problems: list[str] = []
    found = list(_walk(os.fspath(folder), frozenset(), problems))
    if problems:
        raise InvalidInputError(f"These folders under {folder} cannot be searched for images:\n{listed(problems)}")
    return _not_empty(found, os.fspath(folder))


def only_images(paths: Sequence[str], folder: str) -> list[str]:
    """Return the paths or addresses below a folder that count as images; InvalidInputError if there is none."""
    images = [path for path in paths if PurePath(path).suffix.lower() in image_extensions()]
    hidden = [path for path in images if "/." in path.removeprefix(folder)]
    return _not_empty(sorted(set(images) - set(hidden), key=_natural), folder)


def _not_empty(found: list[str], folder: str) -> list[str]:
    if not found:
        raise InvalidInputError(
            f"The folder {folder} has no images. Files count by their extension: .jpg, .png, .webp and the others that "
            "Pillow registers; hidden files do not count."
        )
    return found


def find_labelled_images(folder: str | os.PathLike[str]) -> tuple[list[str], list[str]]:
    """Return the paths of all images in a folder of class folders, and the class of each: the name of its folder.

    Raises
    ------
    InvalidInputError
        As `find_images`; or there are no class folders, images outside of them, or class folders without an image.
    """
    paths = find_images(folder)
    inside = [PurePath(path).relative_to(folder).parts for path in paths]
    classes = [entry.name for entry in sorted(Path(folder).iterdir()) if entry.is_dir() and entry.name[0] != "."]
    if not classes:
        raise InvalidInputError(
            f"The folder {folder} has images but no class folders, so there are no labels. Sort the images into one "
            f"folder for each class ({PurePath(folder).name}/cat/1.jpg), or pass a list of paths together with y."
        )
    problems = [
        f"{path}: outside of every class folder" for path, parts in zip(paths, inside, strict=True) if len(parts) == 1
    ]
    problems += [f"{name}: a class folder without an image" for name in sorted(set(classes) - {p[0] for p in inside})]
    if problems:
        raise InvalidInputError(f"The labels in {folder} are not clear. Move or remove these:\n{listed(problems)}")
    return paths, [parts[0] for parts in inside]


def _walk(folder: str, above: frozenset[tuple[int, int]], problems: list[str]) -> Iterator[str]:
    """Yield the images under a folder and note what cannot be listed; ``above`` breaks circles of links."""
    try:
        found = os.stat(folder)  # noqa: PTH116 (a folder may hold millions of entries: no Path for each)
        with os.scandir(folder) as listing:
            entries = sorted(listing, key=lambda entry: _natural(entry.name))
    except OSError as exc:
        problems.append(f"{folder}: {exc.strerror}")
        return
    here = (found.st_dev, found.st_ino)
    if here in above:
        problems.append(f"{folder}: a link back to a folder above it")
        return
    for entry in entries:
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            yield from _walk(entry.path, above | {here}, problems)
        elif _counts_as_image(entry):
            yield entry.path


def _counts_as_image(entry: os.DirEntry[str]) -> bool:
    """Say whether an entry is a file, or a link that leads nowhere, with the extension of an image."""
    has_extension = PurePath(entry.name).suffix.lower() in image_extensions()
    return has_extension and (entry.is_file() or entry.is_symlink())


def _natural(name: str) -> tuple[list[tuple[str, int]], str]:
    """Return a key that sorts ``img2`` before ``img10``; the name itself settles ties."""
    parts = re.findall(r"([^0-9]*)([0-9]*)", name)
    return [(text.casefold(), int(number or -1)) for text, number in parts], name
