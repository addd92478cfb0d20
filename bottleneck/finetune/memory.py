"""How many images go through the network at once: as many as the memory of the device turns out to hold."""

from collections.abc import Iterator


class MicroBatch:
    """The largest part of a batch that is computed at once; without a limit of ``most`` until memory was short."""

    def __init__(self, most: int | None = None) -> None:
        self.most = most

    def parts(self, n_images: int) -> Iterator[slice]:
        """Yield the parts of a batch, as equal as can be."""
        n_parts = 1 if self.most is None else -(-n_images // self.most)
        for part in range(n_parts):
            yield slice(part * n_images // n_parts, (part + 1) * n_images // n_parts)

    def size_up_to(self, n_images: int) -> int:
        """Return how many of so many images may be computed at once."""
        return n_images if self.most is None else min(self.most, n_images)

    def halve(self, n_images: int) -> bool:
        """Allow half as many at once; False if that was a single image already."""
        largest = self.size_up_to(n_images)
        self.most = max(1, (largest + 1) // 2)
        return largest > 1
