"""The contenders of the extraction benchmark: ours, what people write today, and the limits of the machine.

Each is a function of a ``Task`` that gets everything ready and returns what is timed: from image files to one file of
features. What is ready before the clock starts is the same for all: imports, and a network with its weights.
"""

import contextlib
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset

from bottleneck import FeatureExtractor, cache_features, load_backbone
from bottleneck.images import as_image_source, load_batches
from bottleneck.torchvision_door import torchvision

BATCH_SIZE = 32
LIMIT_BATCHES = 6
TIMM_NAMES = {"mobilenet_v2": "mobilenetv2_100"}
"""timm's name of the same architecture, where it is another."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Task:
    """What every contender is given: image files, a torchvision network, its weights, and a folder to write to."""

    files: tuple[str, ...]
    network: str
    weights: str
    folder: Path
    precision: str = "auto"

    @property
    def device(self) -> torch.device:
        """Where all of them compute."""
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")


Job = Callable[[], dict[str, object]]
"""What is timed; returns facts to report."""


class NotInstalledError(Exception):
    """A contender that this environment lacks; the message says how to install it."""


class PillowDataset(Dataset):
    """The Dataset that everybody writes."""

    def __init__(self, files: tuple[str, ...], transform: Callable[[Image.Image], torch.Tensor]) -> None:
        self.files = files
        self.transform = transform

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> torch.Tensor:
        with Image.open(self.files[index]) as image:
            return self.transform(image.convert("RGB"))


def ours(task: Task) -> Job:
    """``cache_features`` into an empty cache, with its defaults."""
    from bottleneck.extraction import ExtractionSettings

    backbone = load_backbone(task.network, task.weights)
    cache_dir = task.folder / "cache"
    settings = ExtractionSettings(precision=task.precision)

    def job() -> dict[str, object]:
        report = cache_features(list(task.files), backbone, cache_dir, settings=settings)
        return {"precision": report.precision, "extracted": report.rows_extracted}

    return job


def our_features(task: Task) -> NDArray[np.float32]:
    """Return what ``ours`` has put on the disk."""
    extractor = FeatureExtractor(
        task.network, weights=task.weights, cache_dir=task.folder / "cache", precision=task.precision
    )
    return extractor.fit_transform(list(task.files))


def textbook(task: Task, *, workers: int) -> Job:
    """The loop of torchvision's documentation: Pillow, a DataLoader, an eager float32 forward, one array."""
    models = torchvision().models
    network = models.get_model(task.network, weights=None)
    network.load_state_dict(torch.load(task.weights, weights_only=True))
    drop_classifier(network)
    transform = models.get_model_weights(task.network).DEFAULT.transforms()
    return eager_loop(task, network, transform, workers=workers, context=torch.no_grad)


def timm_loop(task: Task, *, workers: int) -> Job:
    """Run timm as its documentation has it: ``num_classes=0`` and the transform of the model's own configuration."""
    timm = require_timm()
    network = timm.create_model(TIMM_NAMES.get(task.network, task.network), pretrained=False, num_classes=0)
    configuration = timm.data.resolve_data_config({}, model=network)
    transform = timm.data.create_transform(**configuration, is_training=False)
    return eager_loop(task, network, transform, workers=workers, context=torch.inference_mode)


def embetter_pipeline(task: Task) -> Job:
    """Run the pipeline of `embetter`: ``ImageLoader`` and ``TimmEncoder``, on the processor as it always is.

    Its constructor downloads weights; random ones of the same architecture take their place, and nothing else changes.
    """
    timm = require_timm()
    try:
        from embetter.vision import ImageLoader, TimmEncoder
    except ImportError as exc:
        raise NotInstalledError("pip install --no-deps embetter (or to a folder on the PYTHONPATH)") from exc
    from sklearn.pipeline import make_pipeline

    create, given = timm.create_model, TIMM_NAMES.get(task.network, task.network)
    timm.create_model = lambda name, pretrained, **options: create(name, pretrained=False, **options)
    try:
        pipeline = make_pipeline(ImageLoader(), TimmEncoder(name=given))
    finally:
        timm.create_model = create

    def job() -> dict[str, object]:
        np.save(task.folder / "features.npy", pipeline.fit_transform(list(task.files)))
        return {}

    return job


def eager_loop(
    task: Task,
    network: nn.Module,
    transform: Callable[[Image.Image], torch.Tensor],
    *,
    workers: int,
    context: Callable[[], contextlib.AbstractContextManager[None]],
) -> Job:
    network = network.eval().to(task.device)

    def job() -> dict[str, object]:
        loader = DataLoader(
            PillowDataset(task.files, transform),
            batch_size=BATCH_SIZE,
            num_workers=workers,
            pin_memory=task.device.type == "cuda",
        )
        features = []
        with context():
            for images in loader:
                features.append(network(images.to(task.device)).cpu().numpy())
        np.save(task.folder / "features.npy", np.concatenate(features))
        return {}

    return job


def bare_decoding(task: Task) -> dict[str, object]:
    """Return how many images a second one thread reads, decodes and resizes, with nothing else to do."""
    backbone = load_backbone(task.network, task.weights)
    source = as_image_source(list(task.files[: LIMIT_BATCHES * BATCH_SIZE]))
    given = {"preprocess": backbone.preprocess, "decode_min_side": resized_side(backbone)}
    for rows in (range(min(4, len(source))), range(len(source))):  # the first few warm up
        began = time.perf_counter()
        for _ in load_batches(source, rows, batch_size=BATCH_SIZE, workers=0, **given):
            pass
    return {"decode_a_core": len(source) / (time.perf_counter() - began)}


def resized_side(backbone: object) -> int | None:
    resize = backbone.preprocess.resize
    return max(resize) if isinstance(resize, tuple) else resize


def bare_forward(task: Task, *, precision: str, n_threads: int) -> dict[str, object]:
    """Return images a second of the prepared network alone, eager and compiled, and how long compiling took."""
    from torch.fx.experimental.optimization import fuse

    torch.set_num_threads(n_threads)
    network = torchvision().models.get_model(task.network, weights=None)
    network.load_state_dict(torch.load(task.weights, weights_only=True))
    drop_classifier(network)
    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
    network = fuse(network.eval()).to(task.device, dtype).to(memory_format=torch.channels_last)
    images = torch.randn(BATCH_SIZE, 3, 224, 224, device=task.device, dtype=dtype)
    images = images.contiguous(memory_format=torch.channels_last)
    rates: dict[str, object] = {f"forward_eager_{n_threads}": images_per_second(network, images)}
    import torch._inductor.config as inductor

    inductor.freezing = True
    compiled = torch.compile(network)
    began = time.perf_counter()
    with torch.no_grad():
        compiled(images)
    rates[f"compile_seconds_{n_threads}"] = time.perf_counter() - began
    rates[f"forward_compiled_{n_threads}"] = images_per_second(compiled, images)
    return rates


def images_per_second(network: Callable[[torch.Tensor], torch.Tensor], images: torch.Tensor) -> float:
    seconds = []
    with torch.no_grad():
        for _ in range(2 + LIMIT_BATCHES):
            began = time.perf_counter()
            network(images)
            if images.is_cuda:
                torch.cuda.synchronize()
            seconds.append(time.perf_counter() - began)
    return len(images) / statistics.median(seconds[2:])


def write_random_weights(task: Task, path: Path) -> None:
    """Write random weights whose BatchNorm has the statistics of the first images, so that features have unit scale."""
    models = torchvision().models
    torch.manual_seed(0)
    network = models.get_model(task.network, weights=None)
    transform = models.get_model_weights(task.network).DEFAULT.transforms()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    images = torch.stack([PillowDataset(task.files, transform)[i] for i in range(min(BATCH_SIZE, len(task.files)))])
    with torch.no_grad():
        network.train()(images)
    torch.save(network.state_dict(), path)


def drop_classifier(network: nn.Module) -> None:
    """Replace the classification layer by nothing, as the tutorials do."""
    network.set_submodule("fc" if hasattr(network, "fc") else "classifier", nn.Identity())


def require_timm() -> object:
    torchvision()  # timm imports it, which fails beside a torch without CUDA unless ours has come first
    try:
        import timm
    except ImportError as exc:
        raise NotInstalledError("pip install timm") from exc
    return timm


RIVALS: dict[str, Callable[[Task], Job]] = {
    "textbook, 0 workers": lambda task: textbook(task, workers=0),
    "textbook, 2 workers": lambda task: textbook(task, workers=2),
    "timm, 0 workers": lambda task: timm_loop(task, workers=0),
    "timm, 2 workers": lambda task: timm_loop(task, workers=2),
    "embetter": embetter_pipeline,
}


def copies(files: list[str], n: int, folder: Path) -> Iterator[str]:
    """Yield n files of different content: those given, then copies with a number behind the end of the image."""
    for i in range(n):
        original = Path(files[i % len(files)])
        if i < len(files):
            yield str(original)
        else:
            copy = folder / f"{i:06d}-{original.name}"
            copy.write_bytes(original.read_bytes() + i.to_bytes(8, "big"))
            yield str(copy)
