"""The caching job at growing sizes, each in a process of its own: memory and time for a row must not grow.

    python tests/benchmarks/scale.py [--rows 10000 100000 1000000] [--folder FOLDER]
    python tests/benchmarks/scale.py --parallel 100000      one process and two: how much of the second is of use
    python tests/benchmarks/scale.py --overhead 500         what Dask's scheduler costs a shard, nothing being computed
    python tests/benchmarks/scale.py --table 1000000        a CSV table: finding its rows, reading those of one shard

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


def trivial_backbone() -> "object":
    """Return a network that costs next to nothing, so that what is measured is the job."""
    import torch
    from torch import nn

    from bottleneck import Preprocess, load_backbone

    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 16, 3, stride=4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 2)
    )
    preprocess = Preprocess(resize=8, crop=(8, 8), interpolation="bilinear", mean=(0.5,) * 3, std=(0.5,) * 3)
    return load_backbone(network, preprocess=preprocess)


def job(n: int, folder: str) -> None:
    """Cache the features of n images twice and print what it took."""
    from bottleneck import cache_features
    from bottleneck.extraction import ExtractionSettings
    from bottleneck.images import as_image_source

    backbone = trivial_backbone()
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


def parallel(n: int, folder: str) -> dict[str, object]:
    """Cache n generated images with one worker process and with two, both started beforehand."""
    from joblib import Parallel, delayed

    from bottleneck import cache_features
    from bottleneck.extraction import ExtractionSettings
    from bottleneck.images import as_image_source

    settings = ExtractionSettings(device="cpu", precision="float32", batch_size=256, workers=0)
    source, backbone = as_image_source(GeneratedImages(n)), trivial_backbone()
    seconds: dict[int, float] = {}
    for n_jobs in (1, 2):
        Parallel(n_jobs=n_jobs)(delayed(trivial_backbone)() for _ in range(4 * n_jobs))  # imports torch in each
        if n_jobs > 1:
            cache_features(GeneratedImages(512), backbone, f"{folder}/warming-up", settings=settings, n_jobs=n_jobs)
        began = time.perf_counter()
        report = cache_features(source, backbone, f"{folder}/cache-{n_jobs}", settings=settings, n_jobs=n_jobs)
        seconds[n_jobs] = time.perf_counter() - began
        assert report.rows_extracted == n
    shards = {n_jobs: len(list(Path(folder, f"cache-{n_jobs}").rglob("*.h5"))) for n_jobs in seconds}
    efficiency = round(seconds[1] / (2 * seconds[2]), 3)
    return {
        "rows": n,
        "seconds": {k: round(v, 2) for k, v in seconds.items()},
        "shards": shards,
        "efficiency": efficiency,
    }


def overhead(n_parts: int) -> dict[str, object]:
    """Hand out parts of a long table to a Dask worker that computes nothing.

    The processor time is that of the job and the scheduler, which are one process here.
    """
    import pickle

    import distributed

    from bottleneck.features.cluster import run_parts
    from bottleneck.features.parts import cut
    from bottleneck.images import part_of
    from bottleneck.images.manifest import Blocks, ManifestSource

    n = n_parts * 16384
    firsts = tuple(range(0, n, 4096))
    source = ManifestSource("/data/list.csv", ("path",), Blocks(first=firsts, start=firsts, stop=firsts), range(n))
    with (
        distributed.LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None) as cluster,
        distributed.Client(cluster) as client,
    ):
        began, cpu_began = time.perf_counter(), time.process_time()
        reports = run_parts(
            client, nothing, None, cut(range(n), lambda: 16384), lambda rows: (part_of(source, rows), rows)
        )
        n_done = sum(report is not None for report in reports)
        seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - cpu_began
    part = part_of(source, range(16384))
    return {
        "parts": n_done,
        "ms_a_part": round(seconds / n_done * 1e3, 2),
        "cpu_ms_a_part": round(cpu_seconds / n_done * 1e3, 2),
        "part_bytes": len(pickle.dumps(part)),
        "report_bytes": len(pickle.dumps(nothing(None, part, range(16384)))),
    }


def nothing(order: object, source: object, rows: range) -> "object":
    """Report a part as done without doing anything."""
    from bottleneck.features.worker import PartReport

    return PartReport(rows=rows, worker="tcp://127.0.0.1:40000", rows_extracted=len(rows), rows_readable=len(rows))


def table(n: int, folder: str) -> dict[str, object]:
    """Find the rows of a CSV table of n paths, and read the paths of one part."""
    import pickle

    from bottleneck.images import as_image_source, part_of

    path = Path(folder, "list.csv")
    with path.open("w", encoding="utf-8") as file:
        file.write("path,label\n")
        file.writelines(f"/data/images/{row // 10000:05d}/{row:09d}.jpg,cat\n" for row in range(n))
    began = time.perf_counter()
    source = as_image_source(path)
    found = time.perf_counter()
    part = part_of(source, range(n // 2, min(n // 2 + 16384, n)))
    names = list(part.ids)
    read = time.perf_counter()
    assert names[0] == f"/data/images/{n // 2 // 10000:05d}/{n // 2:09d}.jpg"
    return {
        "rows": n,
        "bytes_a_row": round(path.stat().st_size / n, 1),
        "find_us_a_row": round((found - began) / n * 1e6, 3),
        "part_ms": round((read - found) * 1e3, 1),
        "part_bytes": len(pickle.dumps(part)),
    }


def peak_mib() -> float:
    """Return the highest resident memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--folder", help="where to put the caches; a temporary folder by default")
    parser.add_argument("--job", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--parallel", type=int, metavar="ROWS")
    parser.add_argument("--overhead", type=int, metavar="PARTS")
    parser.add_argument("--table", type=int, metavar="ROWS")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        found: dict[object, object] = {}
        if arguments.parallel is not None:
            found["parallel"] = parallel(arguments.parallel, folder)
        if arguments.overhead is not None:
            found["overhead"] = overhead(arguments.overhead)
        if arguments.table is not None:
            found["table"] = table(arguments.table, folder)
    if found:
        print(json.dumps(found))
        return
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
