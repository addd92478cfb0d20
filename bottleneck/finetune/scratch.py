"""Training from random weights: every layer anew, from images and labels alone."""

import copy
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from bottleneck.backbones import Backbone
from bottleneck.finetune.groups import recipe_for
from bottleneck.finetune.identity import with_checkpoints
from bottleneck.finetune.job import EpochCallback, EpochRecord, ignore, open_job
from bottleneck.finetune.path import check_time_left, fit_path, share_of_time
from bottleneck.finetune.probe_network import as_backbone, as_head
from bottleneck.finetune.ranks import ALONE, Ranks
from bottleneck.finetune.settings import FineTuneSettings
from bottleneck.finetune.timing import Ahead
from bottleneck.heads import LogisticHead
from bottleneck.images import ImageSource
from bottleneck.progress import ProgressCallback, silent

logger = logging.getLogger(__name__)

STAGE = "training from random weights"


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class ScratchResult:
    """A network that was trained from random weights.

    Attributes
    ----------
    backbone : Backbone
        Its network has the trained weights.
    head : LogisticHead
        For the features of this backbone.
    history : tuple of EpochRecord
    steps : int
        Optimizer steps taken.
    """

    backbone: Backbone
    head: LogisticHead
    history: tuple[EpochRecord, ...]
    steps: int


def train_from_scratch(
    source: ImageSource,
    labels: NDArray[np.generic],
    *,
    backbone: Backbone,
    settings: FineTuneSettings = FineTuneSettings(),  # noqa: B008  frozen, so one for all is safe
    seed: int = 0,
    device: torch.device = torch.device("cpu"),  # noqa: B008  immutable
    workers: int = 0,
    memory_limit: int | None = None,
    deadline: float | None = None,
    progress: ProgressCallback = silent,
    clock: Callable[[], float] = time.monotonic,
    checkpoint_dir: str | Path | None = None,
    on_epoch: EpochCallback = ignore,
    ranks: Ranks = ALONE,
) -> ScratchResult:
    """Train the network of ``backbone``, its weights drawn anew, and a fresh head on all images.

    Settings that are "auto" become those for random weights: ten times the learning rate, the same in all layers,
    BatchNorm in train mode, weights that decay, smoothed labels. Images are mirrored unless ``flip`` is False: there
    is no probe that could tell whether they may be.

    Parameters
    ----------
    source : ImageSource
    labels : array (n_samples,)
        One label an image.
    backbone : Backbone
        Says what the network is; its weights do not matter.
    settings : FineTuneSettings
    seed : int
        The same seed gives the same weights; on CUDA up to operations that are not deterministic there.
    device : torch.device
    workers : int
        Decoding threads.
    memory_limit : int or None
        Bytes that decoded images may take in memory; None is a quarter of what is available.
    deadline : float or None
        Value of ``clock`` by which all shall be over. The schedule is shortened to end in time.
    progress : callable
    clock : callable
        Seconds.
    checkpoint_dir : path or None
        A folder for checkpoints, of this training and others. The same call made again goes on from the last one,
        to the same weights on the same machine with the same number of threads (with a deadline, in the time that
        it leaves). It is written every 30 seconds, or less often where that would take more than 2 % of the time,
        and when a KeyboardInterrupt or SIGTERM ends the training. It stays when the training is over: remove the
        folder when the result is safe.
    on_epoch : callable
        Told the ``EpochRecord`` of each epoch when it is over; not again of those before a checkpoint.
    ranks : Ranks
        The processes that do this together, each with the same arguments: all get the same result.

    Raises
    ------
    InvalidInputError
        A setting is not allowed.
    UnreadableImagesError
        An image cannot be read.
    BudgetError
        Fewer steps fit before the deadline than are worth taking.
    FloatingPointError
        The loss is no longer a number.

    Warns
    -----
    CacheWarning
        A checkpoint is damaged or of another training, and the training begins anew; or none can be written.
    """
    recipe = recipe_for(backbone, replace(settings, refit="anew"), n_images=len(source), from_scratch=True)
    untrained = backbone.with_network(reinitialised(backbone.network, seed=seed))
    job = open_job(
        source,
        backbone=untrained,
        recipe=recipe,
        weights=np.ones(len(source), dtype=np.float32),
        device=device,
        seed=seed,
        workers=workers,
        memory_limit=memory_limit,
        deadline=deadline,
        clock=clock,
        progress=progress,
        history=[],
    )
    job = replace(job, on_epoch=on_epoch, ranks=ranks)
    if checkpoint_dir is not None:
        job = with_checkpoints(job, Path(checkpoint_dir), source, labels, workers=workers, method=STAGE)
    classes, codes = np.unique(labels, return_inverse=True)
    head = blank_head(classes, n_features=backbone.n_features)
    ahead = Ahead(trainings=1)
    if not job.has_checkpoint:
        check_time_left(job, head, ahead)
    pace = share_of_time(job, recipe.steps, ahead)
    path = fit_path(job, head, np.arange(len(source)), codes=codes, stage=STAGE, pace=pace)
    network = path.at(1.0)
    return ScratchResult(
        backbone=as_backbone(network, untrained),
        head=as_head(network, head),
        history=tuple(job.history),
        steps=path.steps,
    )


def blank_head(classes: NDArray[np.generic], *, n_features: int) -> LogisticHead:
    """Return a head for which all classes are equally likely."""
    blank: LogisticHead = LogisticHead.from_arrays(
        classes=classes, coef=np.zeros((len(classes), n_features)), intercept=np.zeros(len(classes))
    )
    return blank


def reinitialised(network: nn.Module, *, seed: int) -> nn.Module:
    """Return a copy of a network with random weights: convolutions as He et al. (2015), all else as torch does it.

    Parameters that a module holds beside its layers (tokens, scales) have no rule, and stay.
    """
    fresh = copy.deepcopy(network)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        for name, module in fresh.named_modules():
            reset = getattr(module, "reset_parameters", None)
            if callable(reset):
                reset()
            elif any(True for _ in module.parameters(recurse=False)):
                logger.info("%s has parameters that keep their values", name or "the network")
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return fresh
