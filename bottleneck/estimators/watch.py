"""What the parts of a run take, measured while it runs."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch

from bottleneck.cache import FeatureCache, FeatureSpace
from bottleneck.memory import peak_memory, resident_memory
from bottleneck.planner import Part


@dataclass(frozen=True, kw_only=True, slots=True)
class MemoryMark:
    """Bytes in use at one moment, and the most that ever were; None where the system does not say."""

    now: int | None
    peak: int | None


def mark_memory(device: torch.device) -> MemoryMark:
    """Return what this process has of the memory that the network runs in."""
    if device.type == "cuda":
        return MemoryMark(now=torch.cuda.memory_allocated(device), peak=torch.cuda.max_memory_allocated(device))
    return MemoryMark(now=resident_memory(), peak=peak_memory())


@dataclass(frozen=True, kw_only=True, slots=True)
class Watch:
    """The seconds of each part so far, and what there was of memory and disk at the beginning."""

    began: float
    device: torch.device
    cache: FeatureCache
    space: FeatureSpace
    memory: MemoryMark
    stored_bytes: int
    seconds: dict[Part, float] = field(default_factory=dict)

    @contextmanager
    def timing(self, part: Part) -> Iterator[None]:
        """Add to a part the time that what follows takes."""
        began = time.monotonic()
        try:
            yield
        finally:
            self.add(part, time.monotonic() - began)

    def add(self, part: Part, seconds: float) -> None:
        """Add to what a part took; of nothing there is nothing to note."""
        if seconds > 0:
            self.seconds[part] = self.seconds.get(part, 0.0) + seconds

    def actual(self) -> dict[Part, float]:
        """Return what each part took by now, in seconds and bytes.

        The memory is what the process grew by, and is not known where it had been as large before.
        """
        found: dict[Part, float] = {**self.seconds, "total": time.monotonic() - self.began}
        found["disk"] = float(max(0, self.cache.space(self.space).n_bytes - self.stored_bytes))
        before, after = self.memory, mark_memory(self.device)
        if None not in (before.now, before.peak, after.peak) and after.peak > before.peak:  # type: ignore[operator]
            found["memory"] = float(after.peak - before.now)  # type: ignore[operator]
        return found


def start_watch(
    began: float, device: torch.device, memory: MemoryMark, cache: FeatureCache, space: FeatureSpace
) -> Watch:
    """Return a watch of a run that began a moment ago, with as much memory in use as was marked then."""
    stored_bytes = cache.space(space).n_bytes
    return Watch(began=began, device=device, cache=cache, space=space, memory=memory, stored_bytes=stored_bytes)
