"""Every exception and warning of the library.

::

    TransferError                      whatever this library raises on purpose
    |- InvalidInputError (ValueError)  an argument, a folder or labels that cannot be used
    |  '- UnreadableImagesError        images that cannot be read or decoded, all of them listed
    |- BackboneError (ValueError)      unknown name, no penultimate layer, missing preprocessing
    |  '- WeightsError                 weights that cannot be found, downloaded or loaded
    |- CacheError (OSError)            a cache folder that cannot be used
    |  '- CorruptShardError            a shard whose content is not what was written
    |- ModelFileError (ValueError)     a saved classifier that cannot be read
    |- BudgetError (ValueError)        limits on time, memory or disk too small for any strategy
    |- RankError (RuntimeError)        another process of a distributed training failed, or is gone
    |- WorkerError (RuntimeError)      workers of a parallel job that failed, are gone, or cannot be reached
    '- MissingDependencyError (ImportError)
    TransferWarning (UserWarning)
    |- SkippedImagesWarning            images left out because ``on_error="skip"``
    |- FallbackWarning                 something slower or safer was done than was asked for
    '- CacheWarning                    a cache entry was ignored and will be computed again
"""

from collections.abc import Sequence
from dataclasses import dataclass

MAX_LISTED = 20
"""How many offending items a message spells out before it counts the rest."""


class TransferError(Exception):
    """Base of everything that this library raises on purpose."""


class InvalidInputError(TransferError, ValueError):
    """An argument, a folder or labels that cannot be used."""


class BackboneError(TransferError, ValueError):
    """A backbone that is unknown or cannot be taken apart."""


class WeightsError(BackboneError):
    """Weights that cannot be found, downloaded or loaded."""


class CacheError(TransferError, OSError):
    """A cache folder that cannot be used."""


class CorruptShardError(CacheError):
    """A shard whose content is not what was written."""


class ModelFileError(TransferError, ValueError):
    """A saved classifier that cannot be read."""


class BudgetError(TransferError, ValueError):
    """Limits on time, memory or disk that are too small for any strategy."""


class RankError(TransferError, RuntimeError):
    """Another process of a distributed training failed, or is gone."""


class WorkerError(TransferError, RuntimeError):
    """Workers of a parallel job that failed, are gone, or cannot be reached."""


class MissingDependencyError(TransferError, ImportError):
    """An optional package that is not installed."""


class TransferWarning(UserWarning):
    """Base of every warning of this library."""


class SkippedImagesWarning(TransferWarning):
    """Images were left out because ``on_error="skip"``."""


class FallbackWarning(TransferWarning):
    """Something slower or safer was done than was asked for."""


class CacheWarning(TransferWarning):
    """A cache entry was ignored and will be computed again."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageFailure:
    """One image that could not be used: its row, its name for people, and why."""

    row: int
    id: str
    reason: str


class UnreadableImagesError(InvalidInputError):
    """Images that cannot be read or decoded, all of them in ``failures``.

    With ``any_left=False`` there is no other image, so that there is nothing to go on with.
    """

    def __init__(self, failures: Sequence[ImageFailure], any_left: bool = True) -> None:
        self.failures = tuple(failures)
        self.any_left = any_left
        plural = "image" if len(self.failures) == 1 else "images"
        found = (
            f"{len(self.failures)} {plural} cannot" if any_left else f"None of the {len(self.failures)} {plural} can"
        )
        rest = 'or pass on_error="skip" to go on without them' if any_left else "or name others"
        super().__init__(
            f"{found} be read:\n"
            + listed([f"{failure.id}: {failure.reason}" for failure in self.failures])
            + f"\nRemove or repair them, {rest}."
        )

    def __reduce__(self) -> tuple[type, tuple[tuple[ImageFailure, ...], bool]]:
        return type(self), (self.failures, self.any_left)


def listed(items: Sequence[str]) -> str:
    """Return the items one a line, at most ``MAX_LISTED`` of them, then the number left out."""
    lines = [f"  - {item}" for item in items[:MAX_LISTED]]
    if len(items) > MAX_LISTED:
        lines.append(f"  ... and {len(items) - MAX_LISTED} more")
    return "\n".join(lines)


def wrong_parameter(owner: str, param: str, allowed: str, value: object, hint: str = "") -> InvalidInputError:
    """Return the error for a parameter outside its allowed values, in scikit-learn's sentence."""
    sentence = f"The {param!r} parameter of {owner} must be {allowed}. Got {value!r} instead."
    return InvalidInputError(f"{sentence} {hint}".rstrip())


def did_you_mean(value: str, known: Sequence[str]) -> str:
    """Return "Did you mean 'x', 'y'?" for the names nearest to ``value``, or an empty string."""
    from difflib import get_close_matches

    near = get_close_matches(value, known, n=3, cutoff=0.6)
    return f"Did you mean {', '.join(map(repr, near))}?" if near else ""
