"""Photographs to pixels for a crop of 224, on one core: images a second, and how many times the textbook's way.

    python tests/benchmarks/decode.py FOLDER [--images 400] [--rounds 5]

Prints one JSON line for each of the folders "clothing" and "large_photos" in FOLDER that is there, or for FOLDER
itself. Rivals, in alternating rounds over the same files: "whole", Pillow decoding every pixel, then torchvision's
resize and crop as its documentation has them; "draft", Pillow decoding JPEG files at 1/2, 1/4 or 1/8, then Pillow's
resize and crop; "ours", from reading the file to the batch. Medians over the rounds.
"""

import argparse
import json
import os
import random
import time
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from statistics import median

import numpy as np
import torch
from PIL import Image, ImageOps

from bottleneck import Preprocess
from bottleneck.images import as_image_source, load_batch
from bottleneck.torchvision_door import torchvision

RESIZE, CROP, BATCH = 256, 224, 32
PREPROCESS = Preprocess(resize=RESIZE, crop=(CROP, CROP), mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
BILINEAR = Image.Resampling.BILINEAR


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=400, help="drawn at random from larger folders")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    keep_to_one_core()
    parts = [arguments.folder / name for name in ("clothing", "large_photos")]
    for folder in [part for part in parts if part.is_dir()] or [arguments.folder]:
        print(json.dumps(measure(folder, arguments.images, arguments.rounds)), flush=True)


def keep_to_one_core() -> None:
    torch.set_num_threads(1)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})


def measure(folder: Path, n_images: int, rounds: int) -> dict[str, object]:
    paths = sorted(str(path) for path in folder.rglob("*.jpg"))
    paths = random.Random(0).sample(paths, n_images) if len(paths) > n_images else paths
    rivals: dict[str, Callable[[list[str]], None]] = {"whole": whole, "draft": draft, "ours": ours}
    seconds: dict[str, list[float]] = {name: [] for name in rivals}
    for _ in range(rounds + 1):
        for name, load in rivals.items():
            began = time.perf_counter()
            for start in range(0, len(paths), BATCH):
                load(paths[start : start + BATCH])
            seconds[name].append(time.perf_counter() - began)
    warm = {name: measured[1:] for name, measured in seconds.items()}
    return {
        "folder": folder.name,
        "n_images": len(paths),
        "images_per_second": {name: round(len(paths) / median(measured), 1) for name, measured in warm.items()},
        "ours_times_whole": median_ratio(warm["whole"], warm["ours"]),
        "ours_times_draft": median_ratio(warm["draft"], warm["ours"]),
    }


def median_ratio(slow: list[float], fast: list[float]) -> float:
    return round(median(a / b for a, b in zip(slow, fast, strict=True)), 2)


def whole(paths: list[str]) -> None:
    torch.stack([whole_one(path) for path in paths])


def whole_one(path: str) -> torch.Tensor:
    functional = torchvision().transforms.functional
    with Image.open(path) as opened:
        image = ImageOps.exif_transpose(opened).convert("RGB")
    return functional.pil_to_tensor(functional.center_crop(functional.resize(image, [RESIZE]), [CROP]))


def draft(paths: list[str]) -> None:
    np.stack([draft_one(Path(path).read_bytes()) for path in paths])


def draft_one(data: bytes) -> np.ndarray:
    image = Image.open(BytesIO(data))
    image.draft(None, (2 * RESIZE, 2 * RESIZE))
    image = ImageOps.exif_transpose(image).convert("RGB")
    scale = RESIZE / min(image.size)
    image = image.resize((int(image.width * scale), int(image.height * scale)), BILINEAR)
    left, top = (image.width - CROP) // 2, (image.height - CROP) // 2
    return np.asarray(image.crop((left, top, left + CROP, top + CROP))).transpose(2, 0, 1)


def ours(paths: list[str]) -> None:
    load_batch(as_image_source(paths), range(len(paths)), preprocess=PREPROCESS, decode_min_side=RESIZE)


if __name__ == "__main__":
    main()
