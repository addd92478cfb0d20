"""What else is cheap to know before fine-tuning: neighbours, and how strange the images are to BatchNorm."""

import copy
import logging
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from bottleneck.backbones import Backbone
from bottleneck.errors import UnreadableImagesError
from bottleneck.estimators.frozen import FrozenFeatures, rows_of
from bottleneck.estimators.limits import images_at_once
from bottleneck.estimators.screening import screened_rows
from bottleneck.extraction import decode_min_side, using_threads
from bottleneck.features import feature_space
from bottleneck.features.keyed import KeyedRows
from bottleneck.finetune.identity import digest
from bottleneck.finetune.pixels import Pixels, StreamedPixels
from bottleneck.heads import normalize_rows
from bottleneck.planner import n_shift_images

if TYPE_CHECKING:
    from bottleneck.estimators.run import Run

BATCH_SIZE = 32
N_NEIGHBOURS = 5
MOST_ROWS = 2_000
"""Rows among which neighbours are looked for: a second on one core, and a standard error of at most 1.1 points."""
BLOCK_ROWS = 1_024
"""Rows whose cosines with all others are in memory at a time."""
SHIFT_NOTE = "batch_norm_shift"

logger = logging.getLogger(__name__)


def neighbours_accuracy(features: NDArray[np.float32], labels: NDArray[np.generic]) -> float:
    """Return how often the five nearest other rows, by cosine, vote for the right class; nearer ones count more."""
    classes, codes = np.unique(labels, return_inverse=True)
    unit, n = normalize_rows(features, "l2").astype(np.float32, copy=False), len(codes)
    n_neighbours = min(N_NEIGHBOURS, n - 1)
    n_right = 0
    for start in range(0, n, BLOCK_ROWS):
        rows = np.arange(start, min(start + BLOCK_ROWS, n))
        cosines = unit[rows] @ unit.T
        cosines[np.arange(len(rows)), rows] = -np.inf  # no row votes for itself
        nearest = np.argpartition(-cosines, n_neighbours - 1, axis=1)[:, :n_neighbours]
        votes = np.zeros((len(rows), len(classes)))
        voters = np.broadcast_to(np.arange(len(rows))[:, None], nearest.shape)
        np.add.at(votes, (voters, codes[nearest]), np.take_along_axis(cosines, nearest, axis=1))
        n_right += int((votes.argmax(axis=1) == codes[rows]).sum())
    return n_right / n


@torch.inference_mode()
def batch_norm_shift(
    backbone: Backbone,
    pixels: Pixels,
    rows: NDArray[np.int64],
    *,
    device: torch.device = torch.device("cpu"),  # noqa: B008  immutable
    batch_size: int = BATCH_SIZE,
) -> float | None:
    """Return how far, in standard deviations, the inputs of BatchNorm layers lie from what these expect.

    A mean over channels and layers; None for a network without any.
    """
    if not any(map(_has_statistics, backbone.network.modules())):
        return None
    network, seen = copy.deepcopy(backbone.network).eval(), dict[_BatchNorm, list[Tensor]]()

    def note(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        assert isinstance(module, _BatchNorm)
        of_images = inputs[0].float().mean(dim=tuple(range(2, inputs[0].dim()))) if inputs[0].dim() > 2 else inputs[0]
        seen.setdefault(module, []).append(of_images)

    for module in network.modules():
        if _has_statistics(module):
            module.register_forward_pre_hook(note)
    network.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stub lacks it
    for images in pixels.batches(rows, batch_size=batch_size):
        inputs = backbone.preprocess.normalise(images.to(device))
        network(inputs.contiguous(memory_format=torch.channels_last))
    return float(np.mean([_shift(module, torch.cat(of_images)) for module, of_images in seen.items()]))


def _shift(module: _BatchNorm, of_images: Tensor) -> float:
    """Return how far the mean over images (n, n_channels) lies from the running one, a mean over channels."""
    assert module.running_mean is not None
    assert module.running_var is not None
    distance = (of_images.mean(dim=0) - module.running_mean).abs()
    return float((distance / (module.running_var + module.eps).sqrt()).mean())


def _has_statistics(module: nn.Module) -> bool:
    return isinstance(module, _BatchNorm) and module.running_mean is not None


def measure_neighbours(run: "Run", features: FrozenFeatures) -> float | None:
    """Return the accuracy of nearest neighbours among a sample of the penultimate rows; None with fewer than three.

    Of a group only one row is taken, so that none is vouched for by others of its group.
    """
    rows = screened_rows(run.labels, sample_weight=run.sample_weight, groups=run.groups, seed=run.seed, limit=MOST_ROWS)
    return neighbours_accuracy(rows_of(features, "penultimate", rows), run.labels[rows]) if len(rows) > 2 else None


def measure_shift(run: "Run", features: FrozenFeatures) -> float | None:
    """Return how strange a sample of the images is to BatchNorm, or what an earlier run found of the same images.

    A run that finds all features in the cache makes no forward pass: of images that no run has measured nothing is
    known then.
    """
    backbone = run.extractor.backbone
    keyed = KeyedRows(
        source=run.source, rows=np.arange(len(run.source)), cache=run.cache, workers=run.extractor.workers
    )
    keyed.resolve()
    # By content, not by place: in another order the same images are measured.
    order = np.lexsort(keyed.keys.T[::-1])
    rows = order[: n_shift_images(len(order), side=max(backbone.preprocess.crop))]
    name = digest(keyed.keys[rows])
    store = run.cache.space(feature_space(backbone, run.precision))
    note = store.read_note(SHIFT_NOTE)
    if note is not None and note.get("images") == name:
        shift = note.get("shift")
        return shift if isinstance(shift, float) else None
    if features.report.rows_extracted == 0:
        return None
    pixels = StreamedPixels(
        source=run.source,
        preprocess=backbone.preprocess,
        decode_min_side=decode_min_side(backbone),
        workers=run.extractor.workers,
    )
    try:
        with using_threads(run.rates.train_threads):
            batch_size = min(images_at_once(run) or BATCH_SIZE, BATCH_SIZE)
            shift = batch_norm_shift(backbone, pixels, rows, device=run.extractor.device, batch_size=batch_size)
    except UnreadableImagesError as exc:  # they could be read a moment ago, and their features are in hand
        logger.info("the shift of BatchNorm's inputs is not measured: %s", exc)
        return None
    if shift is not None and run.ranks.is_first:
        store.write_note(SHIFT_NOTE, {"images": name, "shift": shift})
    return shift
