"""What the planner is told, and the pieces of its answer. Records only: nothing here decides."""

from dataclasses import dataclass
from typing import Literal

from bottleneck.errors import wrong_parameter
from bottleneck.planner.checks import check_number, check_whole
from bottleneck.planner.wishes import NO_WISHES, Wishes

Layers = Literal["penultimate", "all_stages"]
Regime = Literal["near", "far"]
Risk = Literal["balanced", "safe"]
StrategyName = Literal["auto", "probe", "all_stages_probe", "finetune", "scratch"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Profile:
    """Measured facts about the images, the backbone and the machine, before anything is extracted.

    Parameters
    ----------
    n_samples, n_classes : int
        Labelled images and classes.
    smallest_class, largest_class : int
        Images in the rarest and in the most frequent class.
    n_features, n_features_all_stages : int
        Width of the penultimate layer, and of all pooled stages together with it. Equal widths mean that the
        backbone has no further stage.
    n_parameters : int
        Parameters of the backbone.
    image_side : int
        Side in pixels of the image that the backbone sees.
    pretrained : bool
        Whether the backbone carries pretrained weights.
    device : str
        Where the network runs, for people.
    decode_seconds_per_image, forward_seconds_per_image : float
        Wall time of reading and decoding one image, and of its forward pass.
    train_seconds_per_image : float
        Wall time of one training step divided by its batch size: augmentation, both passes and the update.
    memory_available_bytes : int
        Free memory of the device.
    train_bytes_per_image : int
        Memory that one more image in a training batch takes.
    feature_bytes_per_image : int
        Bytes of one cached row, all layers together.
    rows_cached : int
        Images whose features are in the cache already, all layers of them.
    takes_smaller_images : bool
        Whether the network also runs on images of a smaller side, so that training may be on those.
    has_layer_norm : bool
        Whether the network normalises by LayerNorm, as transformers and ConvNeXt do: it is then trained by AdamW, at
        rates of its own.
    forward_bytes_per_image : int
        Memory that one more image in a forward pass takes; 0 if that is not known.
    preparation_seconds : float
        Wall time of the run up to this profile: data looked through, the network loaded, rates measured.
    untrainable : str
        Why no training step can be taken on this network; empty if one can.

    Raises
    ------
    InvalidInputError
        A value is outside its range.
    """

    n_samples: int
    n_classes: int
    smallest_class: int
    largest_class: int
    n_features: int
    n_features_all_stages: int
    n_parameters: int
    image_side: int
    pretrained: bool
    device: str
    decode_seconds_per_image: float
    forward_seconds_per_image: float
    train_seconds_per_image: float
    memory_available_bytes: int
    train_bytes_per_image: int
    feature_bytes_per_image: int
    rows_cached: int = 0
    takes_smaller_images: bool = False
    has_layer_norm: bool = False
    forward_bytes_per_image: int = 0
    preparation_seconds: float = 0.0
    untrainable: str = ""

    def __post_init__(self) -> None:
        for param in ("n_samples", "smallest_class", "n_features", "n_parameters", "image_side"):
            check_whole("Profile", param, getattr(self, param), low=1)
        check_whole("Profile", "n_classes", self.n_classes, low=2)
        check_whole("Profile", "largest_class", self.largest_class, low=self.smallest_class, high=self.n_samples)
        check_whole("Profile", "n_features_all_stages", self.n_features_all_stages, low=self.n_features)
        check_whole("Profile", "rows_cached", self.rows_cached, low=0, high=self.n_samples)
        for param in (
            "memory_available_bytes",
            "train_bytes_per_image",
            "feature_bytes_per_image",
            "forward_bytes_per_image",
        ):
            check_whole("Profile", param, getattr(self, param), low=0)
        for param in (
            "decode_seconds_per_image",
            "forward_seconds_per_image",
            "train_seconds_per_image",
            "preparation_seconds",
        ):
            check_number("Profile", param, getattr(self, param), low=0)


@dataclass(frozen=True, kw_only=True, slots=True)
class Budget:
    """What a run may take; ``None`` means no limit of the user's own.

    Parameters
    ----------
    seconds : float or None
        Wall time of the whole run.
    memory_bytes : int or None
        Memory that the run may take: networks, images in them, features, decoded images, code that training loads.
    disk_bytes : int or None
        What the run may add to the cache and to checkpoints.
    risk : {"balanced", "safe"}
        How clearly a trained network must beat the probe to replace it.

    Raises
    ------
    InvalidInputError
        A value is outside its range.
    """

    seconds: float | None = None
    memory_bytes: int | None = None
    disk_bytes: int | None = None
    risk: Risk = "balanced"

    def __post_init__(self) -> None:
        if self.seconds is not None:
            check_number("Budget", "seconds", self.seconds, low=0)
        for param in ("memory_bytes", "disk_bytes"):
            if getattr(self, param) is not None:
                check_whole("Budget", param, getattr(self, param), low=0)
        if self.risk not in ("balanced", "safe"):
            raise wrong_parameter("Budget", "risk", "'balanced' or 'safe'", self.risk)


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


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """Everything that ``plan_transfer`` was asked: the same request always gives the same plan."""

    profile: Profile
    budget: Budget
    evidence: ProbeEvidence | None
    strategy: StrategyName
    seed: int
    wishes: Wishes = NO_WISHES

    def __post_init__(self) -> None:
        check_whole("plan_transfer", "seed", self.seed, low=0)


@dataclass(frozen=True, kw_only=True, slots=True)
class LinearProbe:
    """A linear head on frozen features of the penultimate layer or of all stages."""

    layers: Layers


@dataclass(frozen=True, kw_only=True, slots=True)
class FineTune:
    """Training of all layers from the pretrained weights and the fitted probe.

    ``lr`` is the head's rate for SGD, divided by ``lr_decay`` for each layer group below it; rates that the network
    does not bear are lowered before training, and the lowest layers may be left as they are then. ``steps`` are those
    of the network that is delivered, as predicted: with a deadline it takes as many of the recipe's as fit. A third of
    them are taken in a fold, from which the last training goes on in the others; with 100 images and more it begins
    with the probe once more if there is time for all of them. ``folds`` 1 means one hold-out of a third of the images,
    of a quarter from 3,000 on; while that leaves it in doubt which is better and there is time, further ones follow,
    for which the last training may become shorter. ``image_scale`` is the side of training images as a share of that
    which the backbone sees. The result replaces the probe only if it is better by more than ``accept_z`` standard
    deviations of what is known of their difference.
    """

    lr: float
    lr_decay: float
    regime: Regime
    steps: int
    batch_size: int
    folds: int
    accept_z: float
    image_scale: float = 1.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Scratch:
    """Training of all layers from random weights, accepted as fine-tuning is, but with nothing to be expected."""

    lr: float
    steps: int
    batch_size: int
    folds: int
    accept_z: float


Strategy = LinearProbe | FineTune | Scratch


@dataclass(frozen=True, kw_only=True, slots=True)
class Estimate:
    """A predicted value and the bounds that it should stay within."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Alternative:
    """One strategy and what is known of it: out-of-fold accuracy (``None``: unknown), and the cost of the whole run.

    ``why_not`` is empty when the strategy is feasible.
    """

    strategy: Strategy
    accuracy: Estimate | None
    seconds: Estimate
    memory_bytes: int
    disk_bytes: int
    why_not: str

    @property
    def feasible(self) -> bool:
        """Whether the strategy fits the budget and makes sense here."""
        return not self.why_not


@dataclass(frozen=True, kw_only=True, slots=True)
class TrialPlan:
    """A few steps of fine-tuning on one fold with each of some recipes, which the decision waits for."""

    recipes: tuple[FineTune, ...]
    seconds: Estimate


@dataclass(frozen=True, kw_only=True, slots=True)
class Reason:
    """A stable rule id, and one sentence with its numbers."""

    rule: str
    sentence: str


@dataclass(frozen=True, kw_only=True, slots=True)
class RuleOfThumb:
    """What the rule of thumb chooses, by the name that ``strategy=`` takes, and its sentence."""

    strategy: StrategyName
    sentence: str
