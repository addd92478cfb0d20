"""Peak memory of the caching job at two sizes, each in a process of its own.

    python tests/benchmarks/memory.py [--shared FOLDER] [--few 300] [--many 3409]

Prints one JSON line: peak resident memory in MiB at both sizes, and their ratio.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

JOB = """
import resource, sys
from bottleneck import cache_features, load_backbone
from bottleneck.images import as_image_source, subset
source = as_image_source(sys.argv[1])
source = subset(source, range(min(int(sys.argv[4]), len(source))))
report = cache_features(source, load_backbone("mobilenet_v2", sys.argv[2]), sys.argv[3])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, report.rows_extracted)
"""


def peak(shared: Path, n: int) -> tuple[float, int]:
    weights = shared / "weights" / "mobilenet_v2_imagenet_tf_hmirror.safetensors"
    with tempfile.TemporaryDirectory() as cache_dir:
        command = [sys.executable, "-c", JOB, shared / "data" / "clothing" / "train", weights, cache_dir, str(n)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    mebibytes, rows = done.stdout.split()
    return float(mebibytes), int(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shared", type=Path, default=Path(__file__).resolve().parents[3] / "shared")
    parser.add_argument("--few", type=int, default=300)
    parser.add_argument("--many", type=int, default=3409)
    arguments = parser.parse_args()
    few, n_few = peak(arguments.shared, arguments.few)
    many, n_many = peak(arguments.shared, arguments.many)
    print(
        json.dumps(
            {
                "peak_mib": {n_few: round(few), n_many: round(many)},
                "ratio": round(many / few, 3),
            }
        )
    )


if __name__ == "__main__":
    main()
