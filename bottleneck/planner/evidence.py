"""What the probes and a trial of fine-tuning showed, as the planner is told."""

from dataclasses import dataclass
from typing import Literal

from bottleneck.planner.checks import check_number, check_whole

Layers = Literal["penultimate", "all_stages"]
Regime = Literal["near", "far"]


@dataclass(frozen=True, kw_only=True, slots=True)
class TrialRun:
    """What a short fine-tuning with one recipe showed on images that neither it nor its probe had seen.

    Parameters
    ----------
    regime : {"near", "far"}
        The recipe.
    gain, standard_error : float
        Mean difference from the probe that it started from, and its standard error over the images: three quarters of
        what an image counts is whether it is right, one quarter how probable its class is.
    alpha : float
        The best point of the path, 1 being the network as it was trained; 0 if the probe was as good.

    Raises
    ------
    InvalidInputError
        A value is outside its range.
    """

    regime: Regime
    gain: float
    standard_error: float
    alpha: float

    def __post_init__(self) -> None:
        check_number("TrialRun", "gain", self.gain, low=-1, high=1)
        for param in ("standard_error", "alpha"):
            check_number("TrialRun", param, getattr(self, param), low=0, high=1)


@dataclass(frozen=True, kw_only=True, slots=True)
class Trial:
    """What a trial of fine-tuning showed: a few of its steps on one fold, with each of some recipes.

    Parameters
    ----------
    runs : tuple of TrialRun
        Those that came to their end.
    steps, n_images : int
        Steps of each run, and held-out images that it was compared on.
    starts_from : {"penultimate", "all_stages"}
        The layers of the probe that the runs started from and are compared with.
    seconds : float
        Wall time of all of it.
    diverged : tuple of {"near", "far"}
        Recipes with which the network forgot what it knew.
    stopped : str
        What ended the trial early; empty if nothing did.

    Raises
    ------
    InvalidInputError
        A value is outside its range.
    """

    runs: tuple[TrialRun, ...]
    steps: int
    n_images: int
    starts_from: Layers
    seconds: float
    diverged: tuple[Regime, ...] = ()
    stopped: str = ""

    def __post_init__(self) -> None:
        check_whole("Trial", "steps", self.steps, low=0)
        check_whole("Trial", "n_images", self.n_images, low=1 if self.runs else 0)
        check_number("Trial", "seconds", self.seconds, low=0)


@dataclass(frozen=True, kw_only=True, slots=True)
class ProbeEvidence:
    """What the probes showed.

    Parameters
    ----------
    accuracy, standard_error : float
        Out-of-fold accuracy of the penultimate probe, in [0, 1], and its standard error.
    train_accuracy : float
        Accuracy of the same probe on the images it was fitted on.
    head_seconds : float
        Wall time of fitting the probes, their cross-validation included.
    all_stages_accuracy : float or None
        Out-of-fold accuracy of the probe on all stages, over the same folds; ``None`` if it was not fitted.
    learning_curve : tuple of (int, float)
        Number of images and out-of-fold accuracy, by increasing number.
    spent_seconds : float or None
        Wall time of the run so far, from its start; ``None`` lets the planner estimate it from the profile.
    early_stages_accuracy : float or None
        Out-of-fold accuracy of a probe on the earlier half of the stages alone; ``None`` if it was not measured.
    neighbours_accuracy : float or None
        How often the nearest other images, by the cosine of their penultimate features, vote for the right class.
    batch_norm_shift : float or None
        How far the inputs of BatchNorm layers lie from those of pretraining, in standard deviations of these.
    trial : Trial or None
        What a trial of fine-tuning showed; ``None`` if there was none.

    Raises
    ------
    InvalidInputError
        A value is outside its range.
    """

    accuracy: float
    standard_error: float
    train_accuracy: float
    head_seconds: float
    all_stages_accuracy: float | None = None
    learning_curve: tuple[tuple[int, float], ...] = ()
    spent_seconds: float | None = None
    early_stages_accuracy: float | None = None
    neighbours_accuracy: float | None = None
    batch_norm_shift: float | None = None
    trial: Trial | None = None

    def __post_init__(self) -> None:
        for param in ("accuracy", "standard_error", "train_accuracy"):
            check_number("ProbeEvidence", param, getattr(self, param), low=0, high=1)
        check_number("ProbeEvidence", "head_seconds", self.head_seconds, low=0)
        for param in ("all_stages_accuracy", "early_stages_accuracy", "neighbours_accuracy"):
            if getattr(self, param) is not None:
                check_number("ProbeEvidence", param, getattr(self, param), low=0, high=1)
        for param in ("spent_seconds", "batch_norm_shift"):
            if getattr(self, param) is not None:
                check_number("ProbeEvidence", param, getattr(self, param), low=0)
        for n, accuracy in self.learning_curve:
            check_whole("ProbeEvidence", "learning_curve", n, low=1)
            check_number("ProbeEvidence", "learning_curve", accuracy, low=0, high=1)

    @property
    def delta_multi(self) -> float | None:
        """Accuracy that the earlier stages add to the penultimate layer, or ``None`` if unknown."""
        return None if self.all_stages_accuracy is None else self.all_stages_accuracy - self.accuracy
