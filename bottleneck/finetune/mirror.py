"""Whether images may be mirrored in training, or left and right tell the classes apart.

A network that was trained without mirror images knows. A probe often does not: its features are averaged over places,
and were learned from mirror images. Seen with a ResNet-20 and 800 images: a probe that found four positions alike on
images and mirror images (13.5 %), where the network was right on 84 and 29 %. With few images, networks that were
trained without mirror images learn too little, and the probe must do.
"""

from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from bottleneck.finetune.compare import HeldOut
from bottleneck.finetune.job import Job
from bottleneck.finetune.path import predict_proba
from bottleneck.finetune.probe import Probe, codes_of
from bottleneck.finetune.probe_network import build_network
from bottleneck.finetune.recipe import Recipe
from bottleneck.heads.evidence import mean_and_se

NETWORK_Z, PROBE_Z = 1.0, 2.0
"""Standard errors by which a network, or a probe, must do worse on mirrored images before these are left out.

Where left and right matter, learning from mirror images cost a network 16 to 35 points (positions and quarter turns,
200 to 3,000 images), and where they do not, learning from none about one: a network's doubt is enough. With two
standard errors three of six such draws of 200 images were missed (embedded backbone). Probes rarely know anything."""

N_FOLDS = 3
"""One in so many images is mirrored and predicted by the probe of the others, in turn."""

ENOUGH = 50
"""Images that must have been looked at before further folds may be mirrored."""

FEW_IMAGES = 100
"""Images below which probes decide. With 50 photographs of clothes (ResNet-20, three draws) folds without mirror images
refused fine-tuning twice, and 4 and 11 points were lost."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MirrorCheck:
    """How what was learned without mirror images did on images it had not seen, and on their mirror images.

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
    correct: NDArray[np.bool_], mirrored_correct: NDArray[np.bool_], weights: NDArray[np.float32], *, z: float
) -> MirrorCheck:
    """Decide from correctness (n,) on the images and on their mirror images; no ``z`` standard errors may be lost."""
    lost, error = mean_and_se(correct.astype(float) - mirrored_correct, weights)
    return MirrorCheck(
        n_images=len(weights),
        accuracy=float(np.average(correct, weights=weights)),
        mirrored_accuracy=float(np.average(mirrored_correct, weights=weights)),
        standard_error=error,
        allowed=lost <= z * error,
    )


def check_with_probes(job: Job, probe: Probe) -> MirrorCheck:
    """Let probes predict the images that they were not fitted on, and their mirror images."""
    folds, recipe = probe.deal_folds(N_FOLDS, np.random.default_rng(job.seed)), replace(job.recipe, fresh_head=False)
    right = []
    for train, held_out in zip(folds.train, folds.held_out, strict=True):
        head, held = probe.refitted_on(np.flatnonzero(train), seed=job.seed), np.flatnonzero(held_out)
        network = build_network(job.backbone, head, recipe=recipe, device=job.device).eval()
        codes = codes_of(probe.labels, head)[held]
        # Both from pixels, so that nothing but the mirror makes a difference.
        both = (predict_proba(job, network, held, mirrored=mirrored).argmax(axis=1) for mirrored in (False, True))
        right.append((*(guessed == codes for guessed in both), job.weights[held]))
    return judge_mirroring(*map(np.concatenate, zip(*right, strict=True)), z=PROBE_Z)


def mirroring_before(job: Job, probe: Probe) -> "Mirroring":
    """Return what is known before the first fold."""
    if job.recipe.check_flip and len(probe.labels) < FEW_IMAGES:
        return Mirroring(check=check_with_probes(job, probe), settled=True)
    return Mirroring(settled=not job.recipe.check_flip)


@dataclass(kw_only=True, slots=True)
class Mirroring:
    """What folds without mirror images say of these, one after the other, unless it was ``settled`` before.

    ``seen`` are the correctness (n,) on images and on mirror images, and the weights.
    """

    check: MirrorCheck | None = None
    settled: bool = False
    seen: list[tuple[NDArray[np.bool_], NDArray[np.bool_], NDArray[np.float32]]] = field(default_factory=list)
    n_folds: int = 0

    def in_next_fold(self, recipe: Recipe) -> Recipe:
        """Return the recipe for the next fold: with mirror images only after enough images showed that it may."""
        if self.check is None:
            return replace(recipe, flip=recipe.flip and self.settled, check_flip=not self.settled)
        known = self.settled or self.check.n_images >= ENOUGH
        return replace(recipe, flip=known and self.check.allowed, check_flip=not self.settled)

    def note(self, part: HeldOut, mirrored_correct: Tensor | None) -> None:
        """Take in a fold, with the mirror images that its network is right on if it saw none in training."""
        self.n_folds += 1
        if mirrored_correct is not None:
            self.seen.append((part.correct[:, -1], mirrored_correct.numpy(), part.weights))
            self.check = judge_mirroring(*map(np.concatenate, zip(*self.seen, strict=True)), z=NETWORK_Z)

    def adds_to(self, recipe: Recipe) -> bool:
        """Say whether the next fold would be the first one that learns from mirror images, too."""
        return not self.settled and self.in_next_fold(recipe).flip and len(self.seen) == self.n_folds
