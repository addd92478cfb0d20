"""The tasks that planners are proved on: images and labels to draw training images from, and a fixed test set.

Tasks of the shared data keep its split into training and test images where the test part has 400 images or more (and
for hymenoptera, which has no more); ``clothing`` and ``digits`` are split anew, by class. Of Tiny ImageNet

- ``tiny_near`` are 20 random classes, ``tiny_fine`` the 11 breeds of dogs and cats and other big cats: training images
  to learn from. The embedded backbone was trained on these very images, with their labels, so it has no such cells;
- ``tiny_kinds`` are nine kinds of things (dogs, insects, vehicles, ...) in validation images alone, which no backbone
  has seen. Its classes are coarser than, but made of, those that the embedded backbone and MobileNetV2 learned.

The generated tasks of `planner_pictures` are 64 pixels wide: quarter turns of clothing and hymenoptera, and shapes
and gratings on validation images of Tiny ImageNet. MobileNetV2 has seen ImageNet's training images, of which Tiny
ImageNet's are scaled copies: its cells of ``tiny_near`` and ``tiny_fine`` do not exist either.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from io import BytesIO
from itertools import pairwise
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from tests.benchmarks.planner_pictures import Pictures, counts, gratings, hues, places, turned

SIZES = (50, 200, 800, 3000)
SIDE = 64
SEED = 20_250
"""Of everything that is the same in all cells: splits, classes, pictures."""
N_PICTURES, N_TEST_PICTURES = 4200, 1000
FEWEST_PER_CLASS = 2

DOGS = ("n02085620", "n02094433", "n02099601", "n02099712", "n02106662", "n02113799")
CATS = ("n02123045", "n02123394", "n02124075", "n02125311", "n02129165")
VEHICLES = (
    *("n02814533", "n02917067", "n03100240", "n03393912", "n03444034", "n03670208"),
    *("n03796401", "n03977966", "n04146614", "n04285008", "n04465501", "n04487081"),
)
KINDS: dict[str, tuple[str, str] | tuple[str, ...]] = {
    "cold-blooded": ("n01443537", "n01742172"),
    "dog": ("n02085620", "n02113799"),
    "cat": ("n02123045", "n02129165"),
    "insect": ("n02165456", "n02281406"),
    "hoofed": ("n02395406", "n02437312"),
    "ape or monkey": ("n02480495", "n02486410"),
    "food": ("n07579787", "n07920052"),
    "landscape": ("n09193705", "n09428293"),
    "vehicle": VEHICLES,
}
"""WordNet ids, as first and last of a range (animals, food and landscapes are numbered by kind) or one by one."""

Images = Sequence[str] | Sequence[bytes] | NDArray[np.generic]
Labels = NDArray[np.generic]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class TaskImages:
    """Images to draw from with their labels, and those to be measured on, of which none is among the first."""

    pool: Images
    labels: Labels
    test: Images
    test_labels: Labels

    @property
    def n_classes(self) -> int:
        """How many classes there are to learn."""
        return len(np.unique(self.labels))


Reader = Callable[[Path], TaskImages]


@dataclass(frozen=True, kw_only=True, slots=True)
class Task:
    """A set of images to classify; ``generated`` ones have exact labels. Backbones that saw its images are excluded."""

    name: str
    read: Reader
    generated: bool = False
    seen_by: tuple[str, ...] = ()


def draw(labels: Labels, n: int, *, seed: int) -> NDArray[np.int64] | None:
    """Return ``n`` random rows with at least two of each class, in random order; None if there are not so many."""
    _, codes = np.unique(labels, return_inverse=True)
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(codes))
    first = [order[codes[order] == code][:FEWEST_PER_CLASS] for code in range(codes.max() + 1)]
    if n > len(codes) or any(len(rows) < FEWEST_PER_CLASS for rows in first) or sum(map(len, first)) > n:
        return None
    needed = np.concatenate(first)
    others = order[~np.isin(order, needed)]
    return rng.permutation(np.concatenate([needed, others[: n - len(needed)]]))


def take(images: Images, rows: NDArray[np.int64]) -> Images:
    """Return some of the images."""
    return images[rows] if isinstance(images, np.ndarray) else [images[row] for row in rows]


def _of_folder(name: str, *, most_test: int | None = None) -> Reader:
    """Return a reader of a data set with its own test part, of which at most some images are used."""

    def read(shared: Path) -> TaskImages:
        pool, labels = _files(shared / "data" / name / "train")
        test, test_labels = _files(shared / "data" / name / "test")
        rows = np.random.default_rng(SEED).permutation(len(test))[:most_test]
        return TaskImages(pool=pool, labels=labels, test=take(test, rows), test_labels=test_labels[rows])

    return read


def _clothing(shared: Path) -> TaskImages:
    """Read clothing, of whose own test part too few images are left to tell planners apart."""
    files, labels = _files(shared / "data" / "clothing")
    return _split(files, labels, n_test=750)


def _digits(shared: Path) -> TaskImages:
    """Read scikit-learn's handwritten digits of 8 x 8 pixels."""
    digits = load_digits()
    return _split((digits.images / 16).astype(np.float32), digits.target, n_test=750)


def _tiny_near(shared: Path) -> TaskImages:
    """Read 20 random classes of Tiny ImageNet."""
    wnids = np.unique(tiny_imagenet(shared, "val")[1])
    return _tiny(shared, np.random.default_rng(SEED).permutation(wnids)[:20], n_test_of_pool=0)


def _tiny_fine(shared: Path) -> TaskImages:
    """Read the classes of Tiny ImageNet that are dogs or cats."""
    return _tiny(shared, np.array((*DOGS, *CATS)), n_test_of_pool=275)


def _tiny(shared: Path, wnids: NDArray[np.str_], *, n_test_of_pool: int) -> TaskImages:
    """Read some classes: validation images to test, and some training images too where those are few."""
    images, labels = _of_classes(*tiny_imagenet(shared, "train"), wnids)
    test, test_labels = _of_classes(*tiny_imagenet(shared, "val"), wnids)
    if not n_test_of_pool:
        return TaskImages(pool=images, labels=labels, test=test, test_labels=test_labels)
    split = _split(images, labels, n_test=n_test_of_pool)
    return TaskImages(
        pool=split.pool,
        labels=split.labels,
        test=[*test, *split.test],
        test_labels=np.concatenate([test_labels, split.test_labels]),
    )


def _tiny_kinds(shared: Path) -> TaskImages:
    """Read nine kinds of things among the validation images of Tiny ImageNet."""
    images, wnids = tiny_imagenet(shared, "val")
    kinds = np.array([kind_of(wnid) for wnid in wnids.tolist()])
    rows = np.flatnonzero(kinds != "")
    return _split(take(images, rows), kinds[rows], n_test=550)


def kind_of(wnid: str) -> str:
    """Return which of the nine kinds a class belongs to; nothing for the others."""
    for kind, ids in KINDS.items():
        if wnid in ids or (len(ids) == 2 and ids[0] <= wnid <= ids[1]):
            return kind
    return ""


def _turned(shared: Path) -> TaskImages:
    """Make quarter turns of all photographs of clothing and of ants and bees."""
    files = [file for name in ("clothing", "hymenoptera") for file in _files(shared / "data" / name)[0]]
    return _generated(np.stack([small_square(file) for file in files]), turned)


def _on_photographs(make: Callable[[NDArray[np.uint8], np.random.Generator], Pictures]) -> Reader:
    """Return a reader that makes pictures on validation images of Tiny ImageNet."""

    def read(shared: Path) -> TaskImages:
        images, _ = tiny_imagenet(shared, "val")
        rows = np.random.default_rng(SEED).permutation(len(images))[:N_PICTURES]
        return _generated(np.stack([small_square(BytesIO(images[row])) for row in rows]), make)

    return read


def _generated(
    photographs: NDArray[np.uint8], make: Callable[[NDArray[np.uint8], np.random.Generator], Pictures]
) -> TaskImages:
    rng = np.random.default_rng(SEED)
    pictures, labels = make(rng.permutation(photographs), rng)
    return _split(pictures, labels, n_test=N_TEST_PICTURES)


def small_square(file: str | BytesIO) -> NDArray[np.uint8]:
    """Return the middle square of a photograph, ``SIDE`` pixels wide."""
    with Image.open(file) as image:
        cut = min(image.size)
        left, top = (image.width - cut) // 2, (image.height - cut) // 2
        square = image.convert("RGB").resize(
            (SIDE, SIDE), Image.Resampling.BILINEAR, box=(left, top, left + cut, top + cut)
        )
        return np.asarray(square)


@cache
def tiny_imagenet(shared: Path, part: str) -> tuple[list[bytes], NDArray[np.str_]]:
    """Return the encoded images of one part, "train" or "val", and the WordNet ids of their classes."""
    with h5py.File(shared / "data" / "tiny_imagenet_64.h5") as file:
        joined, offsets = file[f"{part}/bytes"][:], file[f"{part}/offsets"][:]
        encoded = [joined[start:end].tobytes() for start, end in pairwise(offsets.tolist())]
        return encoded, file["wnids"][:][file[f"{part}/labels"][:]].astype(str)


def _of_classes(images: list[bytes], labels: NDArray[np.str_], wnids: NDArray[np.str_]) -> tuple[Images, Labels]:
    rows = np.flatnonzero(np.isin(labels, wnids))
    return take(images, rows), labels[rows]


def _files(folder: Path) -> tuple[list[str], NDArray[np.str_]]:
    """Return the files below a folder and the names of the folders that they lie in."""
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    return [str(file) for file in files], np.array([file.parent.name for file in files])


def _split(images: Images, labels: Labels, *, n_test: int) -> TaskImages:
    """Split by class, always in the same way."""
    rows, test = train_test_split(np.arange(len(labels)), test_size=n_test, stratify=labels, random_state=SEED)
    return TaskImages(pool=take(images, rows), labels=labels[rows], test=take(images, test), test_labels=labels[test])


TASKS = {
    task.name: task
    for task in (
        Task(name="fashion_mnist", read=_of_folder("fashion_mnist", most_test=1000)),
        Task(name="clothing", read=_clothing),
        Task(name="dtd10", read=_of_folder("dtd10")),
        Task(name="hymenoptera", read=_of_folder("hymenoptera")),
        Task(name="digits", read=_digits),
        Task(name="tiny_near", read=_tiny_near, seen_by=("embedded", "mobilenet_v2")),
        Task(name="tiny_fine", read=_tiny_fine, seen_by=("embedded", "mobilenet_v2")),
        Task(name="tiny_kinds", read=_tiny_kinds),
        Task(name="rotation", read=_turned, generated=True),
        Task(name="colour", read=_on_photographs(hues), generated=True),
        Task(name="texture", read=_on_photographs(gratings), generated=True),
        Task(name="position", read=_on_photographs(places), generated=True),
        Task(name="counting", read=_on_photographs(counts), generated=True),
    )
}


@cache
def task_images(name: str, shared: Path) -> TaskImages:
    """Return the images of a task, read or made once in this process."""
    return TASKS[name].read(shared)
