"""What a job is, so that it is found again: everything that its weights depend on, in plain words or as a hash."""

import hashlib
import json
import logging
import warnings
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from bottleneck.errors import FallbackWarning, UnreadableImagesError
from bottleneck.finetune.checkpoints import LEAST_SECONDS, Checkpoints
from bottleneck.finetune.job import EpochRecord, Job
from bottleneck.images import ImageSource, content_keys

logger = logging.getLogger(__name__)


def with_checkpoints(
    job: Job, folder: Path, source: ImageSource, labels: NDArray[np.generic], *, workers: int, **also: str
) -> Job:
    """Return the job with what it has done before, if ``folder`` has a checkpoint of it, and kept there from now on.

    ``also``: on what else the weights depend. Of several processes together the first one writes, and all read.
    """
    checkpoints = Checkpoints(
        folder,
        lambda: {**identify_job(job, source, labels, workers=workers), **also},
        clock=job.clock,
        writes=job.ranks.is_first,
    )
    found = (list(checkpoints.parts), checkpoints.training and checkpoints.training.facts)
    if not job.ranks.is_same(repr(found).encode()):
        if job.ranks.is_first:
            message = f"The processes have different checkpoints in {folder}, which is not one folder for all of them."
            warnings.warn(f"{message} They begin anew, and keep none.", FallbackWarning, stacklevel=3)
        return job
    if job.deadline is not None and job.deadline - job.clock() > LEAST_SECONDS:
        checkpoints.prepare()
    job.history.extend(
        EpochRecord(**{**record, "learning_rates": tuple(record["learning_rates"])}) for record in checkpoints.history
    )
    if checkpoints.went_on_from:
        logger.info("going on from %s, kept in %s", checkpoints.went_on_from, folder)
    return replace(job, checkpoints=checkpoints)


def identify_job(job: Job, source: ImageSource, labels: NDArray[np.generic], *, workers: int) -> dict[str, str]:
    """Say what is trained. The number of threads is no part of it, though it may change the last bits.

    Raises
    ------
    UnreadableImagesError
        An image cannot be read.
    """
    keys, failures = content_keys(source, np.arange(len(source)), workers=workers)
    if failures:
        raise UnreadableImagesError(failures)
    classes, codes = np.unique(labels, return_inverse=True)
    backbone = job.backbone
    return {
        "images": digest(keys),
        "labels": hashlib.sha256(repr(classes.tolist()).encode() + codes.tobytes()).hexdigest(),
        "image weights": digest(job.weights),
        "backbone": f"{backbone.name}, {backbone.weights_digest}",
        "preprocess": repr(backbone.preprocess),
        "layer groups": hashlib.sha256(repr(backbone.layer_groups).encode()).hexdigest(),
        "settings": json.dumps(asdict(job.recipe)),
        "seed": str(job.seed),
        "device": job.device.type,
        "torch": torch.__version__,
    }


def digest(array: NDArray[np.generic]) -> str:
    """Return the SHA-256 of an array's values."""
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()
