"""Fixtures that every test may use."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from bottleneck import Backbone

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """Return the folder of real weights and images, or skip."""
    if not (SHARED / "weights").is_dir():
        pytest.skip(f"the folder of shared test assets is absent: {SHARED}")
    return SHARED


@pytest.fixture(autouse=True)
def _cache_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep default caches out of the home folder of whoever runs the tests."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path_factory.getbasetemp() / "torch_home"))


@pytest.fixture(autouse=True)
def _no_workers_left() -> Iterator[None]:
    """End the processes that joblib keeps for whoever asks next.

    loky replaces one that has grown much since its first task, with a warning from a thread of its own, which warnings
    that are errors would end: the next test would wait for ever.
    """
    yield
    kept = sys.modules.get("joblib.externals.loky.reusable_executor")
    if kept is not None and kept._executor is not None:
        kept._executor.shutdown(wait=True, kill_workers=True)


@pytest.fixture(scope="session")
def tiny_backbone() -> "Backbone":
    """Return a seeded three-layer network: fast, and as real as any other backbone."""
    return make_tiny_backbone()


@pytest.fixture
def image_folder(tmp_path: Path) -> Path:
    """Return a folder of two classes of 12 generated PNG images each, that colour tells apart."""
    return write_image_folder(tmp_path / "images")


def make_tiny_backbone(seed: int = 0) -> "Backbone":
    """Build a seeded network of three convolutions with BatchNorm, for 16-pixel images."""
    import torch
    from torch import nn

    from bottleneck import Preprocess, load_backbone

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = nn.Sequential(
            nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU()),
            nn.Sequential(nn.Conv2d(8, 12, 3, stride=2, padding=1), nn.BatchNorm2d(12), nn.ReLU()),
            nn.Sequential(nn.Conv2d(12, 16, 3, stride=2, padding=1), nn.BatchNorm2d(16), nn.ReLU()),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(16, 10),
        )
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.uniform_(module.running_mean, -0.5, 0.5)
                nn.init.uniform_(module.running_var, 0.5, 2.0)
    preprocess = Preprocess(
        resize=16, crop=(16, 16), interpolation="bilinear", mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)
    )
    return load_backbone(network, preprocess=preprocess)


def coloured_images(n: int, *, seed: int = 0, side: int = 20) -> "tuple[NDArray[np.uint8], NDArray[np.int64]]":
    """Return noisy images (n, side, side, 3) that are reddish (label 0) or bluish (label 1), and their labels."""
    import numpy as np

    rng = np.random.RandomState(seed)
    labels = np.arange(n) % 2
    images = rng.randint(0, 200, size=(n, side, side, 3)).astype(np.uint8)
    images[labels == 0, :, :, 0] //= 2
    images[labels == 1, :, :, 2] //= 2
    return images, labels


def write_image_folder(folder: Path, *, n: int = 24, seed: int = 0) -> Path:
    """Write generated images as PNG into one folder a class."""
    from PIL import Image

    images, labels = coloured_images(n, seed=seed)
    for i, (pixels, label) in enumerate(zip(images, labels, strict=True)):
        path = folder / ("bluish", "reddish")[label] / f"{i:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    return folder
