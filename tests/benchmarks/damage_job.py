"""The caching job that the damage benchmark damages, what is expected of it, and what it gave undisturbed."""

import os
import resource
import sys
import tempfile
import time
import warnings
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).parent))
from children import FORK, run_in_child

from bottleneck import FeatureCache, FeatureExtractor, cache_features, load_backbone
from bottleneck.errors import CacheWarning, SkippedImagesWarning
from bottleneck.extraction import ExtractionSettings
from bottleneck.features import chunks
from bottleneck.images import content_key

BACKBONE = load_backbone("embedded")
SETTINGS = ExtractionSettings(device="cpu", batch_size=8)
EXACT = ExtractionSettings(device="cpu", batch_size=8, precision="float32")
"""Where the first images are bad, another arithmetic may be chosen for all: what is compared must not depend on it."""
LEAST_SHARDS = 3
ROUNDING = {"rtol": 2e-3, "atol": 2e-3}
"""What an image's feature may owe to the others of its batch: a last digit of float16."""


@dataclass(kw_only=True)
class Section:
    """Counts of one kind of damage, and what failed, each with the seed or the file that shows it again."""

    counts: Counter[str] = field(default_factory=Counter)
    failed: list[str] = field(default_factory=list)

    def expect(self, holds: bool, otherwise: str) -> None:
        """Note a promise that was not kept."""
        if not holds:
            self.failed.append(otherwise)


class Job:
    """A folder of images to be cached, and what an undisturbed run makes of them."""

    def __init__(self, folder: Path, contents: dict[str, bytes]) -> None:
        self.folder = folder
        self.paths = [str(folder / name) for name in contents]
        keys = [content_key(content) for content in contents.values()]
        self.keys = np.frombuffer(b"".join(keys), np.uint8).reshape(-1, 16)
        self.n_distinct = len(set(keys))
        write_images(folder, contents)
        began = time.monotonic()
        with tempfile.TemporaryDirectory(dir=folder.parent) as cache_dir:
            undisturbed = run_in_child(cache_job, self.paths, cache_dir)
            self.seconds = time.monotonic() - began
            if undisturbed.trouble:
                raise SystemExit(f"The undisturbed run failed: {undisturbed.trouble}")
            written = sum(len(path.read_bytes().splitlines()) for path in Path(cache_dir).rglob("manifest.jsonl"))
            if written < LEAST_SHARDS:
                raise SystemExit("The job writes too few shards to be damaged: does SHARD_SECONDS still count?")
            self.space, self.features = undisturbed.result["space"], np.empty((0, 0), np.float32)
            self.features = self.stored(cache_dir)[1]
            self.exact_features = run_in_child(transform_job, self.paths, cache_dir).result[0]

    def stored(self, cache_dir: str) -> tuple[NDArray[np.bool_], NDArray[np.float32], int]:
        """Return which images have a row in the cache, those rows, and how many rows the cache has."""
        cache = FeatureCache(cache_dir)
        spaces = [space for space in cache.spaces() if space.digest == self.space]
        if not spaces:
            return np.zeros(len(self.keys), bool), self.features[:0], 0
        store = cache.space(spaces[0])
        positions = store.find(self.keys)
        return positions >= 0, store.read(positions[positions >= 0], "penultimate"), store.n_rows

    def check(self, cache_dir: str, section: Section, what: str, *, finished: bool) -> int:
        """Compare a cache with the undisturbed run; return how many different images it holds."""
        there, features, n_rows = self.stored(cache_dir)
        section.expect(not finished or bool(there.all()), f"{what}: {(~there).sum()} rows lost")
        expected = self.features[there]
        section.expect(np.allclose(features, expected, **ROUNDING), f"{what}: features differ")
        section.counts["rounded otherwise"] += int((features != expected).any(axis=1).sum())
        n_stored = len({key.tobytes() for key in self.keys[there]})
        section.counts["rows twice" if finished else "rows twice after a kill"] += n_rows - n_stored
        section.expect(not finished or n_rows == n_stored, f"{what}: {n_rows} rows of {n_stored} images")
        bad = FeatureCache(cache_dir).verify().bad
        section.expect(not bad, f"{what}: verify finds {bad}")
        return n_stored


def cache_job(
    paths: list[str], cache_dir: str, counter: object = None, settings: ExtractionSettings = SETTINGS
) -> dict[str, object]:
    chunks.SHARD_SECONDS = 0.0  # a shard a batch, so that a kill meets every state of writing one
    counter = FORK.RawValue("q") if counter is None else counter

    def count(event: object) -> None:
        counter.value = event.done

    report = cache_features(paths, BACKBONE, cache_dir, settings=settings, on_error="skip", progress=count)
    return {"extracted": report.rows_extracted, "cached": report.rows_cached, "space": report.space}


def read_job(paths: list[str], cache_dir: str) -> NDArray[np.float32]:
    """Return features in float32 arithmetic, NaN where there are none; any warning but our own is an error."""
    warnings.simplefilter("error")
    for ours in (SkippedImagesWarning, CacheWarning):
        warnings.simplefilter("ignore", ours)
    exact = {"device": "cpu", "batch_size": 8, "precision": "float32"}
    return FeatureExtractor(BACKBONE, cache_dir=cache_dir, on_error="skip", **exact).fit_transform(paths)


def transform_job(paths: list[str], cache_dir: str) -> tuple[NDArray[np.float32], dict[int, str], int]:
    """Return features, the reasons by row where there are none, and the peak memory in MiB."""
    features = read_job(paths, cache_dir)
    report = cache_features(paths, BACKBONE, cache_dir, settings=EXACT, on_error="skip")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    return features, {failure.row: failure.reason for failure in report.failures}, peak


def write_images(folder: Path, contents: dict[str, bytes]) -> None:
    """Write files that are an hour old, which the index of known files trusts."""
    folder.mkdir()
    hour_ago = time.time() - 3600
    for name, content in contents.items():
        path = folder / name
        path.write_bytes(content)
        os.utime(path, (hour_ago, hour_ago))
