"""SIGKILL at random moments while caching: nothing lost but the unfinished shard, nothing changed.

    python tests/benchmarks/kills.py [--shared FOLDER] [--kills 20] [--images 3409]

A caching job is killed at a random moment and started again, until it finishes; then the features are compared bit
for bit with those of an uninterrupted run and the next round starts from an empty cache, until the kills are used
up. After each kill the rows on disk are counted: the rerun must extract exactly the others. Prints one JSON line.
"""

import argparse
import json
import random
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from bottleneck import FeatureExtractor, cache_features, load_backbone
from bottleneck.cache import FeatureCache
from bottleneck.images import as_image_source, subset

JOB = """
import json, sys
from bottleneck import cache_features, load_backbone
from bottleneck.images import as_image_source, subset
source = as_image_source(sys.argv[1])
source = subset(source, range(min(int(sys.argv[4]), len(source))))
report = cache_features(source, load_backbone("mobilenet_v2", sys.argv[2]), sys.argv[3])
print(json.dumps([report.rows_extracted, report.rows_cached, report.seconds]))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shared", type=Path, default=Path(__file__).resolve().parents[3] / "shared")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--images", type=int, default=3409)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    weights = str(arguments.shared / "weights" / "mobilenet_v2_imagenet_tf_hmirror.safetensors")
    images = arguments.shared / "data" / "clothing" / "train"
    source = as_image_source(images)
    source = subset(source, range(min(arguments.images, len(source))))
    backbone = load_backbone("mobilenet_v2", weights)

    def features(cache_dir: str) -> np.ndarray:
        return FeatureExtractor(backbone, cache_dir=cache_dir, layers="penultimate").fit_transform(source)

    moments = random.Random(arguments.seed)
    outcome = {"kills": 0, "finished_runs": 0, "reruns_that_failed": 0, "rows_lost": 0, "runs_that_differ": 0}
    with tempfile.TemporaryDirectory() as reference_dir:
        whole = cache_features(source, backbone, reference_dir).seconds
        reference = features(reference_dir)
    while outcome["kills"] < arguments.kills:
        with tempfile.TemporaryDirectory() as cache_dir:
            on_disk, finished = 0, False
            while not finished:
                command = [sys.executable, "-c", JOB, str(images), weights, cache_dir, str(arguments.images)]
                job = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
                spare = outcome["kills"] >= arguments.kills
                try:
                    printed, complaint = job.communicate(timeout=None if spare else moments.uniform(2, 0.8 * whole))
                except subprocess.TimeoutExpired:
                    job.send_signal(signal.SIGKILL)
                    job.wait()
                    outcome["kills"] += 1
                    on_disk = rows_on_disk(cache_dir)
                    continue
                finished = True
                if job.returncode != 0:
                    outcome["reruns_that_failed"] += 1
                    print(complaint, file=sys.stderr)
                    break
                extracted, cached, _ = json.loads(printed)
                outcome["finished_runs"] += 1
                outcome["rows_lost"] += max(0, on_disk - cached)
                outcome["runs_that_differ"] += not np.array_equal(features(cache_dir), reference)
                assert extracted + cached == len(source)
    print(json.dumps({**outcome, "images": len(source), "seconds_uninterrupted": round(whole, 1)}))


def rows_on_disk(cache_dir: str) -> int:
    cache = FeatureCache(cache_dir)
    return sum(cache.space(space).n_rows for space in cache.spaces())


if __name__ == "__main__":
    main()
