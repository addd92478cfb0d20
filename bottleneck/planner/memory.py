"""How much memory the parts of a run take, and how a limit on it is shared out among them."""

from dataclasses import dataclass

from bottleneck.planner.records import Profile

FLOAT_BYTES = 4
NETWORK_COPIES, RESTING_COPIES = 3, 2
"""The network as it was loaded, prepared for the pass, and once more while the inputs of BatchNorm are looked at; the
first two stay."""
TRAINING_COPIES = 7
"""Weights, their gradient, the optimizer's momentum, their moving average, the probe's weights, which the blend goes
back to, those of the fold that the last training goes on from, and weights as they are folded or cast for a pass."""
LOADED_BYTES = 80_000_000
"""Code that a training is the first to load: torch's optimizers import its compiler, seen at 76 MB of resident memory.
With a small network that is more than everything else. It is not the GPU's, of whose memory it is next to nothing."""
HEAD_BYTES = 24
"""What a head that is fitted in memory holds for each number of the features at its peak (heads.blocks)."""
SCREEN_BYTES = 32
"""The same for the rows that are screened: as read, side by side, normalised, and in the basis of their axes. Seen at
20 for each number, numpy's arrays alone."""
SQUARE_BYTES = 24
"""Three square matrices in double precision: of products, of eigenvectors, and what LAPACK works in."""
MOST_SCREENED, LEAST_SCREENED = 4096, 512
"""Rows that are screened, and as few as that where memory is short."""
STREAM_BYTES = 96 * 2**20
"""Three blocks of 32 MiB: as stored, in single precision, and normalised."""
HISTORY_BYTES, MOST_HISTORY = 5 * 10 * 24 * FLOAT_BYTES, 2**28
"""Five folds at ten Cs, of each of which L-BFGS remembers 24 vectors; more than the limit run one after the other."""
NETWORK_SHARE = 0.25
"""Share of a limit, less the network, that images on their way through it may take, if what is left will do."""
TRAINING_SHARE = 0.5
"""Share of what training has left that one part of a batch may take; decoded images get the other."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RunSizes:
    """The numbers that memory follows from; ``image_bytes`` and ``train_image_bytes`` are those of one more image."""

    n_samples: int
    n_classes: int
    n_features: int
    n_features_all_stages: int
    n_parameters: int
    image_bytes: int
    train_image_bytes: int = 0

    @property
    def network_bytes(self) -> int:
        """Memory of the network's copies, as long as nothing is trained."""
        return NETWORK_COPIES * FLOAT_BYTES * self.n_parameters

    @property
    def training_bytes(self) -> int:
        """Memory of all copies of the network while it is trained, and of the code that does it."""
        return (RESTING_COPIES + TRAINING_COPIES) * FLOAT_BYTES * self.n_parameters + LOADED_BYTES

    @property
    def features_bytes(self) -> int:
        """Memory of the features alone, of all layers."""
        return FLOAT_BYTES * self.n_samples * self.n_features_all_stages


@dataclass(frozen=True, kw_only=True, slots=True)
class MemoryShares:
    """What the parts of a run may take of a limit, in bytes.

    ``network`` is for images on their way through the network, ``features`` for the features and the head that is
    fitted on them, ``pixels`` for images that were decoded for training. ``images_at_once`` is the largest part of a
    training batch.
    """

    network: int
    features: int
    screened_rows: int
    pixels: int
    images_at_once: int


def sizes_of(profile: Profile) -> RunSizes:
    """Return the sizes of the run that was profiled."""
    return RunSizes(
        n_samples=profile.n_samples,
        n_classes=profile.n_classes,
        n_features=profile.n_features,
        n_features_all_stages=profile.n_features_all_stages,
        n_parameters=profile.n_parameters,
        image_bytes=profile.forward_bytes_per_image,
        train_image_bytes=max(profile.train_bytes_per_image, profile.forward_bytes_per_image),
    )


def probe_bytes(sizes: RunSizes, *, on_disk: bool) -> int:
    """Return the least memory that a probe takes; ``on_disk`` says whether its features can be streamed."""
    return sizes.network_bytes + sizes.image_bytes + _least_features(sizes, on_disk=on_disk)


def training_bytes(sizes: RunSizes, *, on_disk: bool) -> int:
    """Return the least memory that a training takes, one image at a time, and the probe before it."""
    if on_disk:  # features that take less than to be read in blocks are kept all the same
        kept = sizes.features_bytes if in_memory_bytes(sizes) <= streamed_bytes(sizes) else 0
    else:
        kept = 2 * sizes.features_bytes
    return max(probe_bytes(sizes, on_disk=on_disk), sizes.training_bytes + sizes.train_image_bytes + kept)


def network_share(sizes: RunSizes, limit: int, *, on_disk: bool) -> int:
    """Return what images in the network may take: room for one at least."""
    room = limit - sizes.network_bytes
    spare = room - _least_features(sizes, on_disk=on_disk)
    return max(sizes.image_bytes, min(int(NETWORK_SHARE * room), spare))


def share_out(sizes: RunSizes, limit: int, *, on_disk: bool) -> MemoryShares:
    """Return the shares of a limit that is enough for a probe at least."""
    network = network_share(sizes, limit, on_disk=on_disk)
    held = 0 if on_disk else sizes.features_bytes
    room = max(limit - sizes.network_bytes - network - held, 0)
    fits = in_memory_bytes(sizes) <= room
    # Told so much, heads and features come to the same conclusion.
    features = (
        room if fits or not on_disk else min(room, HEAD_BYTES * sizes.n_samples * sizes.n_features_all_stages - 1)
    )
    held += sizes.features_bytes if fits else 0
    left = max(limit - sizes.training_bytes - held, 0)
    image = max(sizes.train_image_bytes, 1)
    at_once = max(int(TRAINING_SHARE * left) // image, 1)
    beside_heads = room - (in_memory_bytes(sizes) if fits else streamed_bytes(sizes)) + network
    return MemoryShares(
        network=network,
        features=features,
        screened_rows=_screened_rows(sizes, room),
        pixels=max(0, min(left - at_once * image, beside_heads)),
        images_at_once=at_once,
    )


def in_memory_bytes(sizes: RunSizes) -> int:
    """Return what features and heads take in memory."""
    head = HEAD_BYTES * sizes.n_samples * sizes.n_features_all_stages
    return sizes.features_bytes + max(head, _screen_bytes(sizes, _fewest_screened(sizes)))


def streamed_bytes(sizes: RunSizes) -> int:
    """Return what features take that are read from the disk in blocks, and a head that is fitted on them."""
    history = min(HISTORY_BYTES * sizes.n_classes * sizes.n_features, MOST_HISTORY)
    gram = 2 * SQUARE_BYTES * sizes.n_features**2
    return STREAM_BYTES + max(history + gram, _screen_bytes(sizes, _fewest_screened(sizes)))


def _least_features(sizes: RunSizes, *, on_disk: bool) -> int:
    """Return what features take at least. What the disk may not have is in memory twice: as extracted, and in order."""
    whole = in_memory_bytes(sizes)
    return min(whole, streamed_bytes(sizes)) if on_disk else whole + sizes.features_bytes


def _screened_rows(sizes: RunSizes, room: int) -> int:
    """Return as many rows as fit beside the features, or the fewest: halved until they do."""
    rows = MOST_SCREENED
    beside = sizes.features_bytes if in_memory_bytes(sizes) <= room else STREAM_BYTES
    while rows > LEAST_SCREENED and _screen_bytes(sizes, rows) > room - beside:
        rows //= 2
    return rows


def _fewest_screened(sizes: RunSizes) -> int:
    return min(sizes.n_samples, LEAST_SCREENED)


def _screen_bytes(sizes: RunSizes, rows: int) -> int:
    """Return what screening so many rows of all layers takes, at most all there are."""
    rows = min(rows, sizes.n_samples)
    squares = SQUARE_BYTES * min(rows, sizes.n_features_all_stages) ** 2
    return SCREEN_BYTES * rows * sizes.n_features_all_stages + squares
