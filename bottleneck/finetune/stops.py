"""What may end a fine-tuning before its end, and how that is said."""

import torch

from bottleneck.errors import BudgetError, InvalidInputError
from bottleneck.finetune.ranks import RankStopError

FAILURES = (torch.OutOfMemoryError, FloatingPointError, BudgetError, InvalidInputError)
STOPS = (KeyboardInterrupt, RankStopError, *FAILURES)
"""After these the best classifier so far is delivered."""

RESUMABLE = (KeyboardInterrupt, BudgetError)
"""Those after which the same call can go on from a checkpoint; the others would come again."""


def reason_of(stop: BaseException) -> str:
    """Say for people what stopped a fine-tuning."""
    match stop:
        case KeyboardInterrupt():
            return "it was interrupted"
        case torch.OutOfMemoryError():
            return "the device ran out of memory; a smaller FineTuneSettings.batch_size needs less"
        case _:
            return str(stop)
