"""What users pass to the estimators, as the inside wants it."""

import warnings
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils import check_random_state

from bottleneck.cache import FeatureCache
from bottleneck.errors import CacheWarning, InvalidInputError, wrong_parameter
from bottleneck.estimators.kept import keep_cache
from bottleneck.features import default_cache_dir
from bottleneck.planner import Budget


def open_cache(cache_dir: str | Path | None) -> FeatureCache:
    """Return the cache in that folder, or in the default one; if that cannot be written, in one for this process.

    Raises
    ------
    CacheError
        A folder was named and cannot be used.
    """
    if cache_dir is not None:
        return keep_cache(Path(cache_dir).expanduser().absolute())
    return keep_cache(_usable_default(default_cache_dir()).absolute())


@cache
def _usable_default(folder: Path) -> Path:
    """Return the default folder if it can be written, else a temporary one that lives as long as this process."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        TemporaryDirectory(dir=folder).cleanup()
    except OSError as exc:
        _process_folders.append(TemporaryDirectory(prefix="bottleneck-"))
        warnings.warn(
            f"The default cache {folder} cannot be written ({exc.strerror or exc}): features are kept for this "
            "process only. Name a folder with cache_dir= to keep them.",
            CacheWarning,
            stacklevel=5,
        )
        return Path(_process_folders[-1].name)
    return folder


_process_folders: list[TemporaryDirectory[str]] = []


def parse_budget(
    time_budget: float | None, risk: str, *, memory_limit: float | None = None, disk_limit: float | None = None
) -> Budget:
    """Return the planner's budget.

    Raises
    ------
    InvalidInputError
        One of them is outside its values.
    """
    is_number = isinstance(time_budget, int | float | np.number) and not isinstance(time_budget, bool)
    if time_budget is not None and not (is_number and 0 < time_budget < float("inf")):
        raise wrong_parameter("TransferClassifier", "time_budget", "None or a positive number of seconds", time_budget)
    if risk not in ("balanced", "safe"):
        raise wrong_parameter("TransferClassifier", "risk", "'balanced' or 'safe'", risk)
    return Budget(
        seconds=None if time_budget is None else float(time_budget),
        memory_bytes=_parse_bytes(memory_limit, "memory_limit", least=1),
        disk_bytes=_parse_bytes(disk_limit, "disk_limit", least=0),
        risk=risk,  # type: ignore[arg-type]  # it is one of them
    )


def _parse_bytes(limit: float | None, param: str, *, least: int) -> int | None:
    """Return whole bytes; 2e9 is a number of bytes too."""
    if limit is None:
        return None
    is_number = isinstance(limit, int | float | np.number) and not isinstance(limit, bool)
    if not (is_number and least <= limit < float("inf") and limit == int(limit)):
        allowed = f"None or a whole number of bytes of at least {least}"
        raise wrong_parameter("TransferClassifier", param, allowed, limit, "2e9 are 2 GB.")
    return int(limit)


def parse_seed(random_state: int | np.random.RandomState | None) -> int:
    """Return one seed for everything random in a run."""
    if isinstance(random_state, int | np.integer) and not isinstance(random_state, bool):
        return int(random_state)
    return int(check_random_state(random_state).randint(2**31 - 1))


def parse_sample_weight(sample_weight: ArrayLike | None, n_samples: int) -> NDArray[np.float64] | None:
    """Return one finite weight of at least 0 a sample, or None.

    Raises
    ------
    InvalidInputError
        There are more or fewer weights than images, or some cannot be used.
    """
    if sample_weight is None:
        return None
    weights = np.asarray(sample_weight, dtype=np.float64)
    if weights.shape != (n_samples,):
        raise InvalidInputError(f"sample_weight must hold one number an image: {n_samples}. Got shape {weights.shape}.")
    if not np.isfinite(weights).all() or (weights < 0).any():
        rows = np.flatnonzero(~np.isfinite(weights) | (weights < 0))
        raise InvalidInputError(f"sample_weight must be finite and not negative. Rows {rows[:20].tolist()} are not.")
    return weights
