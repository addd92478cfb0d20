"""How the time that is left is shared among the parts of a job, from what parts of the same kind took."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from bottleneck.errors import BudgetError
from bottleneck.progress import Progress, ProgressCallback

SPARE = 0.01
"""Share of the time that is left for what nobody measures: networks that are copied, files that are removed."""


@dataclass(kw_only=True, slots=True)
class Timing:
    """Seconds that parts of a job took.

    Lately: the head of a fold, a training step, an image that was predicted. In all: the folds with what comes before
    them, and the training on all images.
    """

    head: float = 0.0
    step: float = 0.0
    prediction: float = 0.0
    folds: float = 0.0
    refit: float = 0.0

    def take(self, known: Mapping[str, float]) -> None:
        """Take what parts took before the job was stopped."""
        self.head, self.step, self.prediction = known["head"], known["step"], known["prediction"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Ahead:
    """What is still to be done: heads of folds, images to predict outside of training, and trainings.

    These are counted in the next one: one that takes twice its steps counts as two.
    """

    trainings: float
    heads: int = 0
    images: int = 0

    def seconds_a_training(self, seconds: float, timing: Timing) -> float:
        """Return how long the next training may take if all is to be over in ``seconds``."""
        others = self.heads * timing.head + self.images * timing.prediction
        return ((1 - SPARE) * seconds - others) / self.trainings


def shortfall(ahead: Ahead, seconds: float, timing: Timing, *, images_a_training: float) -> str:
    """Say what is lacking if trainings on so few images do not fit into ``seconds``, else nothing.

    Learning from an image takes no less time than predicting one of its size, also where only learning is in bfloat16:
    a backward pass takes about two forward passes. A smaller image counts as the share of pixels that it has.
    """
    least = images_a_training * timing.prediction
    if ahead.seconds_a_training(seconds, timing) >= least:
        return ""
    needed = ahead.trainings * least + ahead.images * timing.prediction
    return f"the shortest trainings worth comparing need more than {needed:.1f} s, and {max(seconds, 0):.1f} s are left"


def ending_at(deadline: float | None, clock: Callable[[], float], progress: ProgressCallback) -> ProgressCallback:
    """Return a progress callback that also ends what it watches once the deadline has passed, with a BudgetError."""
    if deadline is None:
        return progress

    def tell(event: Progress) -> None:
        progress(event)
        if clock() >= deadline and event.done < event.total:
            raise BudgetError(f"no time was left after {event.done} of {event.total} ({event.stage})")

    return tell
