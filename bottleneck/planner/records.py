"""What the planner is told, and the pieces of its answer. Records only: nothing here decides."""

from dataclasses import dataclass
from typing import Literal

from bottleneck.errors import wrong_parameter
from bottleneck.planner.checks import check_number, check_whole
from bottleneck.planner.evidence import Layers, ProbeEvidence, Regime
from bottleneck.planner.wishes import NO_WISHES, Wishes

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
        Wall time of one training step divided by its batch size: augmentation, both passes and the update, of the layer
        groups that learn.
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
        Whether the network normalises by LayerNorm, as transformers and ConvNeXt do: it is then trained by AdamW,
        unless somebody asked for SGD.
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

    ``lr`` is the head's rate, divided by ``lr_decay`` for each layer group below it (with AdamW by 10 for the first
    of them, unless the user settled it); rates that the network does not bear are lowered before training, and the
    lowest layers may be left as they are then. ``steps`` are those of the network that is delivered, as predicted:
    with a deadline it takes as many of the recipe's, or of those asked for, as fit. A third of them are taken in a
    fold, from which the last training goes on in the others; with 100 images and more it begins with the probe once
    more if there is time for all of them. ``folds`` 1 means one hold-out of a third of the images, of a quarter
    from 3,000 on; while that leaves it in doubt which is better and there is time, further ones follow, for which
    the last training may become shorter. What the request's wishes say of refitting and further folds comes first.
    ``image_scale`` is the side of training images as a share of that which the backbone sees. The result replaces
    the probe only if it, or else the network a quarter of the way to it, is better by more than ``accept_z`` standard
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
