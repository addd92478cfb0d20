"""The embedded backbone: accuracy on its validation images, images a second, and linear probes beside other backbones.

    python -m tests.benchmarks.embedded [--shared FOLDER] [--parts top1 speed probes] [--n 500] [--seeds 0 1 2]

Prints one JSON line a measurement. Top-1 is of the classification layer in the weights file, on whole validation
images. Speed is of the whole job from encoded images in memory to features of all layers, against the textbook (Pillow,
eager float32 forward, batches of 64, the penultimate layer alone), in turn; medians of five. Probes are `LogisticHead`
on penultimate features, fitted on ``n`` training images drawn per seed (all where there are fewer) and measured on the
whole test set.
"""

import argparse
import json
import time
from collections.abc import Callable, Iterator
from io import BytesIO
from itertools import pairwise
from pathlib import Path

import h5py
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors import safe_open
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from bottleneck import Backbone, LogisticHead, load_backbone
from bottleneck.backbones.embedded import WEIGHTS
from bottleneck.extraction import ExtractionSettings, Extractor, Precision
from bottleneck.features.space import settle_precision
from bottleneck.images import ImageSource, as_image_source, as_labelled_source, subset
from tests.finetune.resnet20 import ResNet20

FOLDERS = ("clothing", "dtd10", "hymenoptera", "fashion_mnist")
N_TIMED = 2000

Labelled = tuple[ImageSource, NDArray[np.generic]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, default=Path(__file__).resolve().parents[3] / "shared")
    parser.add_argument("--parts", nargs="+", default=["top1", "speed", "probes"])
    parser.add_argument("--backbones", nargs="+", default=["embedded", "resnet20", "squeezenet1_0", "mobilenet_v2"])
    parser.add_argument("--n", type=int, default=500)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    arguments = parser.parse_args()
    validation = read_validation(arguments.shared / "data" / "tiny_imagenet_64.h5")
    if "top1" in arguments.parts:
        print(json.dumps(measure_top1(*validation)), flush=True)
    if "speed" in arguments.parts:
        print(json.dumps(measure_speed(validation[0][:N_TIMED])), flush=True)
    if "probes" in arguments.parts:
        for line in measure_probes(arguments.shared, arguments.backbones, n=arguments.n, seeds=arguments.seeds):
            print(json.dumps(line), flush=True)


def read_validation(path: Path) -> tuple[list[bytes], NDArray[np.str_]]:
    """Return encoded images and the names of their classes."""
    with h5py.File(path) as file:
        joined, offsets = file["val/bytes"][:], file["val/offsets"][:]
        encoded = [joined[start:end].tobytes() for start, end in pairwise(offsets.tolist())]
        return encoded, file["wnids"][:][file["val/labels"][:]].astype(str)


def measure_top1(encoded: list[bytes], labels: NDArray[np.str_]) -> dict[str, object]:
    """Return how often the classification layer in the file is right."""
    with safe_open(WEIGHTS, framework="pt") as file:
        weight, bias = file.get_tensor("head.weight").float(), file.get_tensor("head.bias").float()
        classes = np.array(json.loads(file.metadata()["classes"]))
    features = torch.from_numpy(extract(load_backbone("embedded"), as_image_source(encoded)))
    right = classes[(features @ weight.T + bias).argmax(dim=1).numpy()] == labels
    return {"measured": "top1", "n": len(labels), "top1": float(right.mean()), "bytes": WEIGHTS.stat().st_size}


def measure_speed(encoded: list[bytes]) -> dict[str, object]:
    """Return images a second of our extraction and of the textbook's, in turn."""
    backbone, source = load_backbone("embedded"), as_image_source(encoded)
    contenders: dict[str, Callable[[], object]] = {
        "ours": lambda: extract(backbone, source, precision=None),
        "ours_float32": lambda: extract(backbone, source),
        "textbook": lambda: textbook(backbone, encoded),
    }
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(6):
        for name, run in contenders.items():
            began = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - began)
    rates = {name: round(len(encoded) / float(np.median(times[1:]))) for name, times in seconds.items()}
    return {"measured": "speed", "n": len(encoded), "images_per_second": rates}


def textbook(backbone: Backbone, encoded: list[bytes]) -> NDArray[np.float32]:
    """Decode with Pillow and run the eager network on batches of 64."""
    parts = []
    with torch.inference_mode():
        for start in range(0, len(encoded), 64):
            images = [Image.open(BytesIO(data)).convert("RGB") for data in encoded[start : start + 64]]
            pixels = torch.from_numpy(np.stack([np.asarray(image) for image in images])).permute(0, 3, 1, 2)
            parts.append(backbone.network(backbone.preprocess.normalise(pixels)))
    return torch.cat(parts).numpy()


def measure_probes(shared: Path, names: list[str], *, n: int, seeds: list[int]) -> Iterator[dict[str, object]]:
    """Yield the test accuracy of each backbone on each data set, and the means over data sets."""
    means: dict[str, list[float]] = {name: [] for name in names}
    for dataset in (*FOLDERS, "digits"):
        (train, labels), (test, test_labels) = read_dataset(shared, dataset)
        drawn = [np.random.default_rng(seed).permutation(len(labels))[:n] for seed in seeds]
        used = np.unique(np.concatenate(drawn))
        for name in names:
            backbone = load_named(name, shared / "weights")
            features, test_features = extract(backbone, subset(train, used)), extract(backbone, test)
            scores = []
            for seed, rows in zip(seeds, drawn, strict=True):
                head = LogisticHead(random_state=seed).fit(features[np.searchsorted(used, rows)], labels[rows])
                scores.append(float(head.score(test_features, test_labels)))
            means[name].append(float(np.mean(scores)))
            yield {"measured": "probe", "dataset": dataset, "backbone": name, "n": min(n, len(labels)), "test": scores}
    for name, scores in means.items():
        yield {"measured": "probe mean", "backbone": name, "mean": float(np.mean(scores))}


def read_dataset(shared: Path, dataset: str) -> tuple[Labelled, Labelled]:
    """Return training and test images with their labels."""
    if dataset != "digits":
        folder = shared / "data" / dataset
        return as_labelled_source(folder / "train", None), as_labelled_source(folder / "test", None)
    digits = load_digits()
    images = (digits.images / 16).astype(np.float32)
    train, test = train_test_split(np.arange(len(images)), stratify=digits.target, random_state=0)
    source = as_image_source(images)
    return (subset(source, train), digits.target[train]), (subset(source, test), digits.target[test])


def load_named(name: str, weights: Path) -> Backbone:
    """Load one of the backbones with the weights that belong to it."""
    match name:
        case "embedded":
            return load_backbone("embedded")
        case "resnet20":
            return load_backbone(ResNet20(), weights / "resnet20_cifar10.safetensors")
        case "squeezenet1_0":
            return load_backbone(name, weights / "squeezenet1_0_imagenet.safetensors")
        case _:
            return load_backbone(name, weights / f"{name}_imagenet_tf_hmirror.safetensors")


def extract(backbone: Backbone, source: ImageSource, *, precision: Precision | None = "float32") -> NDArray[np.float32]:
    """Return penultimate features (n, n_features); without a ``precision`` in the fastest that agrees with float32."""
    extractor = Extractor(backbone, ExtractionSettings(device="cpu"))
    settled = precision or settle_precision(extractor, None, source)
    batches = extractor.extract(source, np.arange(len(source)), precision=settled)
    return np.concatenate([batch.layers["penultimate"] for batch in batches]).astype(np.float32)


if __name__ == "__main__":
    main()
