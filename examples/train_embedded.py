"""Train the embedded backbone anew: its weights from a folder of images, or from Tiny ImageNet in one HDF5 file.

    python examples/train_embedded.py tiny_imagenet_64.h5 --out embedded.safetensors --checkpoint-dir run
    python examples/train_embedded.py pictures/train --validation pictures/val --epochs 30 --out mine.safetensors

Stopped at any moment, the same command goes on from the last checkpoint. The file that it writes is what
``load_backbone("embedded", weights=FILE)`` takes.

Images are cropped at random to 48 pixels for training and seen whole at 64 afterwards: objects then have about the same
size in both (Touvron et al. 2019, Fixing the train-test resolution discrepancy), and training takes little more than
half the time. The statistics of BatchNorm are then estimated anew from whole images, for the zeros around the maps
count for less in larger ones.
"""

import argparse
import json
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import h5py
import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch.optim.swa_utils import update_bn

from bottleneck import FineTuneSettings, Preprocess, load_backbone
from bottleneck.finetune import ScratchResult, train_from_scratch
from bottleneck.images import ImageSource, as_image_source, as_labelled_source, load_batches
from bottleneck.progress import ProgressCallback, progress_bars

TRAINED_AT = Preprocess(resize=64, crop=(48, 48), mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
SEEN_AT = Preprocess(resize=64, crop=(64, 64), mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
BATCH_SIZE = 128
DECODERS = 2
"""Threads."""
STATISTICS_IMAGES = 10_000

Labelled = tuple[ImageSource, NDArray[np.generic]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="a folder of class folders, or the HDF5 file")
    parser.add_argument("--validation", type=Path, help="a folder like it; the HDF5 file has its own")
    parser.add_argument("--out", type=Path, default=Path("embedded.safetensors"))
    parser.add_argument("--epochs", type=int, default=52)
    parser.add_argument("--checkpoint-dir", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"))
    arguments = parser.parse_args()

    began = time.monotonic()
    source, labels = read(arguments.data, "train")
    with progress_bars() as progress:
        trained = train(
            source,
            labels,
            n_epochs=arguments.epochs,
            seed=arguments.seed,
            device=arguments.device,
            checkpoint_dir=arguments.checkpoint_dir,
            progress=progress,
        )
    see_whole_images(trained, source)
    facts: dict[str, object] = {"steps": trained.steps, "seconds": round(time.monotonic() - began)}
    if (validation := validation_of(arguments.data, arguments.validation)) is not None:
        facts["top1"] = top1(trained, *validation)
    write_weights(trained, arguments.out)
    history = [{"epoch": one.epoch, "loss": one.loss, "accuracy": one.accuracy} for one in trained.history]
    print(json.dumps({**facts, "history": history[-3:], "bytes": arguments.out.stat().st_size}))


def read(data: Path, part: str) -> Labelled:
    """Return images and labels of a folder, or of one part of the HDF5 file."""
    if data.is_dir():
        return as_labelled_source(data, None)
    with h5py.File(data) as file:
        joined, offsets = file[f"{part}/bytes"][:], file[f"{part}/offsets"][:]
        encoded = [joined[start:end].tobytes() for start, end in pairwise(offsets.tolist())]
        return as_image_source(encoded), file["wnids"][:][file[f"{part}/labels"][:]].astype(str)


def validation_of(data: Path, validation: Path | None) -> Labelled | None:
    """Return the images to validate on, if there are any."""
    if validation is not None:
        return read(validation, "val")
    return None if data.is_dir() else read(data, "val")


def train(
    source: ImageSource,
    labels: NDArray[np.generic],
    *,
    n_epochs: int,
    seed: int,
    device: torch.device,
    checkpoint_dir: Path | None,
    progress: ProgressCallback,
) -> ScratchResult:
    """Train the network from random weights with the recipe of the model card."""
    return train_from_scratch(
        source,
        labels,
        backbone=load_backbone("embedded", weights=None, preprocess=TRAINED_AT),
        settings=FineTuneSettings(
            batch_size=BATCH_SIZE,
            steps=n_epochs * max(1, len(source) // BATCH_SIZE),
            lr=0.2,
            warmup_fraction=0.04,
            weight_decay=5e-4,
            label_smoothing=0.1,
            min_crop_scale=0.25,
            flip=True,
            augment="crop",
            mixup=0.1,
            cutmix=0.0,
            ema=0.999,
            precision="bfloat16",
        ),
        seed=seed,
        device=device,
        progress=progress,
        checkpoint_dir=checkpoint_dir,
    )


def see_whole_images(trained: ScratchResult, source: ImageSource) -> None:
    """Give BatchNorm the statistics of images as they will be seen."""
    network = trained.backbone.network
    update_bn(whole_images(source), network)
    network.eval()


def whole_images(source: ImageSource) -> Iterator[torch.Tensor]:
    """Yield some images as the backbone will see them, float32 (n, 3, 64, 64)."""
    rows = np.random.default_rng(0).permutation(len(source))[:STATISTICS_IMAGES]
    for batch in load_batches(source, rows, preprocess=SEEN_AT, batch_size=BATCH_SIZE, workers=DECODERS):
        yield SEEN_AT.normalise(torch.from_numpy(batch.pixels))


@torch.inference_mode()
def top1(trained: ScratchResult, source: ImageSource, labels: NDArray[np.generic]) -> float:
    """Return the share of images, seen whole, whose class is the most likely one."""
    backbone, head, n_correct = trained.backbone, trained.head, 0
    for batch in load_batches(source, range(len(source)), preprocess=SEEN_AT, batch_size=BATCH_SIZE, workers=DECODERS):
        features = backbone.network(SEEN_AT.normalise(torch.from_numpy(batch.pixels)))
        n_correct += int((head.predict(features.numpy()) == labels[batch.rows]).sum())
    return n_correct / len(source)


def write_weights(trained: ScratchResult, path: Path) -> None:
    """Write network and classification layer in float16, with the preprocessing that they expect."""
    tensors = dict(trained.backbone.network.state_dict())
    tensors["head.weight"] = torch.from_numpy(trained.head.coef_)
    tensors["head.bias"] = torch.from_numpy(trained.head.intercept_)
    halved = {
        name: tensor.half().contiguous() if tensor.is_floating_point() else tensor for name, tensor in tensors.items()
    }
    metadata = {
        "arch": "bottleneck embedded",
        "mean": json.dumps(SEEN_AT.mean),
        "std": json.dumps(SEEN_AT.std),
        "resize": str(SEEN_AT.resize),
        "crop": str(SEEN_AT.crop[0]),
        "classes": json.dumps([str(name) for name in trained.head.classes_]),
    }
    save_file(halved, path, metadata=metadata)


if __name__ == "__main__":
    main()
