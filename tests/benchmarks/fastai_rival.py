"""fastai as its tutorials use it: ``vision_learner`` and ``fine_tune(5)``, on the weights that ours starts from."""

import time
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import nn

from bottleneck.torchvision_door import torchvision

SIZE, RESIZED = 224, 256
N_WATCHED = 8
"""Copies of training images that stand for fastai's validation set, so that it may learn from every image."""


class NotInstalledError(Exception):
    """fastai is not in this environment."""


def fastai_accuracy(
    train: tuple[list[str], NDArray[np.generic]],
    test: tuple[list[str], NDArray[np.generic]],
    *,
    weights: Path,
    seed: int,
    epochs: int = 5,
) -> tuple[float, float]:
    """Return the test accuracy of ``fine_tune(epochs)`` on MobileNetV2, and its seconds from files to weights.

    Raises
    ------
    NotInstalledError
        fastai is not installed.
    """
    torchvision()  # fastai imports it too, and beside a CPU-only torch this is the way in
    try:
        import fastai.callback.schedule  # noqa: F401  gives learners fine_tune
        from fastai.callback.progress import ProgressCallback
        from fastai.data.block import CategoryBlock, DataBlock
        from fastai.data.transforms import IndexSplitter, Normalize
        from fastai.torch_core import set_seed
        from fastai.vision.augment import Resize, aug_transforms
        from fastai.vision.data import ImageBlock
        from fastai.vision.learner import default_split, model_meta, vision_learner
    except ModuleNotFoundError as exc:
        raise NotInstalledError(f"fastai cannot be imported ({exc}): pip install fastai") from exc

    files, labels = train
    label_of = dict(zip(files, labels.tolist(), strict=True))
    set_seed(seed, reproducible=True)
    began = time.perf_counter()
    block = DataBlock(
        blocks=(ImageBlock, CategoryBlock(vocab=sorted(set(label_of.values())))),
        get_items=lambda items: items,
        get_y=lambda file: label_of[file],
        splitter=IndexSplitter(range(N_WATCHED)),
        item_tfms=Resize(RESIZED),
        batch_tfms=[*aug_transforms(size=SIZE), Normalize.from_stats([0.5] * 3, [0.5] * 3)],
    )
    loaders = block.dataloaders([*files[:N_WATCHED], *files], num_workers=2)

    def network(*, pretrained: bool) -> nn.Module:
        model: nn.Module = torchvision().models.mobilenet_v2()
        if pretrained:
            model.load_state_dict(load_file(weights))
        return model

    model_meta[network] = {"cut": -1, "split": default_split}  # vision_learner does not hand its own ``cut`` on
    learner = vision_learner(loaders, network, normalize=False)
    learner.logger = lambda *_: None
    learner.remove_cb(ProgressCallback)
    learner.fine_tune(epochs)
    seconds = time.perf_counter() - began
    proba, _ = learner.get_preds(dl=loaders.test_dl(test[0], num_workers=2))
    predicted = np.array(list(loaders.vocab))[proba.argmax(dim=1).numpy()]
    torch.use_deterministic_algorithms(False)  # set_seed asked for them, and ours is in the same process
    return float((predicted == test[1]).mean()), seconds
