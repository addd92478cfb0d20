"""The caching job at growing sizes, each in a process of its own: memory and time for a row must not grow.

    python tests/benchmarks/scale.py [--rows 10000 100000 1000000] [--folder FOLDER]

The images (8 x 8) are made when they are asked for and the network is a single convolution, so that what is measured
is the job itself: keys, look-ups, claims, shards, manifest. Prints one JSON line: for each size the peak resident
memory in MiB, that of the job alone (without what an empty job needs), microseconds a row cold and warm, and shards;
and the ratios of the largest to the smallest size.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


class GeneratedImages:
    """A map-style dataset: image i is noise that follows from i."""

    def __init__(self, n: int) -> None:
        self.n = n

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, row: int) -> "object":
        import numpy as np

        words = (np.arange(24, dtype=np.uint64) + np.uint64(row * 24 + 1)) * np.uint64(0x9E3779B97F4A7C15)
        return words.view(np.uint8).reshape(8, 8, 3)


def job(n: int, folder: str) -> None:
    """Cache the features of n images twice and print what it took."""
    import torch
    from torch import nn

    from bottleneck import Preprocess, cache_features, load_backbone
    from bottleneck.extraction import ExtractionSettings
    from bottleneck.images import as_image_source

    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 16, 3, stride=4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 2)
    )
    preprocess = Preprocess(resize=8, crop=(8, 8), interpolation="bilinear", mean=(0.5,) * 3, std=(0.5,) * 3)
    backbone = load_backbone(network, preprocess=preprocess)
    settings = ExtractionSettings(device="cpu", precision="float32", batch_size=256, workers=0)
    cache_features(as_image_source(GeneratedImages(512)), backbone, f"{folder}/warming-up", settings=settings)
    before = peak_mib()
    source = as_image_source(GeneratedImages(n))
    seconds = []
    for _ in range(2):
        began = time.perf_counter()
        report = cache_features(source, backbone, f"{folder}/cache", settings=settings)
        seconds.append(time.perf_counter() - began)
    assert report.rows_cached == n
    measured = {
        "peak_mib": round(peak_mib(), 1),
        "job_mib": round(peak_mib() - before, 1),
        "us_a_row": round(seconds[0] / n * 1e6, 1),
        "us_a_row_warm": round(seconds[1] / n * 1e6, 1),
        "shards": len(list(Path(folder, "cache").rglob("*.h5"))),
    }
    print(json.dumps(measured))


def peak_mib() -> float:
    """Return the highest resident memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--folder", help="where to put the caches; a temporary folder by default")
    parser.add_argument("--job", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.job is not None:
        job(arguments.job, arguments.folder)
        return
    found = {}
    for n in arguments.rows:
        with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
            command = [sys.executable, __file__, "--job", str(n), "--folder", folder]
            done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
        found[n] = json.loads(done.stdout.splitlines()[-1])
    first, last = found[arguments.rows[0]], found[arguments.rows[-1]]
    ratios = {name: round(last[name] / first[name], 3) for name in ("peak_mib", "us_a_row", "us_a_row_warm")}
    print(json.dumps({"rows": found, "ratio": ratios}))


if __name__ == "__main__":
    main()
