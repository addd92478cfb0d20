"""May images be mirrored in training, or do left and right tell the classes apart? The probe knows."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from bottleneck.finetune.job import Job
from bottleneck.finetune.path import predict_proba
from bottleneck.finetune.probe import Probe
from bottleneck.finetune.probe_network import build_network
from bottleneck.heads.evidence import mean_and_se

MIRROR_Z = 2.0
"""Standard errors by which the probe must do worse on mirrored images before these are left out."""

N_FOLDS = 3
"""One in so many images is mirrored and predicted by the probe of the others."""

MOST_LEARNED, MOST_MIRRORED = 2000, 500
"""Images that suffice for such a probe, and to see a loss of a few points."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MirrorCheck:
    """How a probe did on images that it had not seen, and on their mirror images.

    Attributes
    ----------
    n_images : int
    accuracy, mirrored_accuracy : float
    standard_error : float
        Of their difference.
    allowed : bool
        Whether training images may be mirrored.
    """

    n_images: int
    accuracy: float
    mirrored_accuracy: float
    standard_error: float
    allowed: bool


def judge_mirroring(
    correct: NDArray[np.bool_], mirrored_correct: NDArray[np.bool_], weights: NDArray[np.float32]
) -> MirrorCheck:
    """Decide from correctness (n,) on the images and on their mirror images."""
    lost, error = mean_and_se(correct.astype(float) - mirrored_correct, weights)
    return MirrorCheck(
        n_images=len(weights),
        accuracy=float(np.average(correct, weights=weights)),
        mirrored_accuracy=float(np.average(mirrored_correct, weights=weights)),
        standard_error=error,
        allowed=lost <= MIRROR_Z * error,
    )


def check_mirroring(job: Job, probe: Probe) -> MirrorCheck:
    """Let a probe of some images predict others, and their mirror images."""
    rng = np.random.default_rng(job.seed)
    folds = probe.deal_folds(N_FOLDS, rng)
    learned = rng.permutation(np.flatnonzero(folds.train[0]))[:MOST_LEARNED]
    held = rng.permutation(np.flatnonzero(folds.held_out[0]))[:MOST_MIRRORED]
    head = probe.refitted_on(np.sort(learned), seed=job.seed)
    recipe = replace(job.recipe, fresh_head=False)
    network = build_network(job.backbone, head, recipe=recipe, device=job.device).eval()
    # Both from pixels, so that nothing but the mirror makes a difference.
    plain, mirrored = (
        head.classes_[predict_proba(job, network, held, mirrored=mirrored).argmax(axis=1)] == probe.labels[held]
        for mirrored in (False, True)
    )
    return judge_mirroring(plain, mirrored, job.weights[held])
