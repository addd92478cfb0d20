"""The cache on its own: the key index, reading, appending, and a warm pass over known files.

    python tests/benchmarks/cache.py [--keys 10000000] [--rows 50000] [--files 100000] [--folder FOLDER]

Prints one JSON line:

- ``index``: seconds to take in the keys in shards of 4,096, nanoseconds to find one, bytes a key; beside them a Python
  dict of a tenth of the keys.
- ``read``: MiB of float16 a second, of random rows, of memory-mapped blocks, and of the same rows through h5py.
- ``append``: milliseconds of the first and the last hundred appends of one row, and the shards there are in the end.
- ``warm``: seconds until all rows of known files are found, without opening one.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path

import h5py
import numpy as np

from bottleneck.cache import FeatureCache, FeatureRows, FeatureSpace
from bottleneck.cache.index import KeyIndex
from bottleneck.extraction import ExtractionSettings, Extractor
from bottleneck.features import feature_chunks, feature_space
from bottleneck.features.keyed import KeyedRows
from bottleneck.images import as_image_source

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from tests.conftest import make_tiny_backbone

SHARD_ROWS = 4096
WIDTH = 1280
SPACE = FeatureSpace(weights="ab" * 32, layers=(("penultimate", WIDTH),), pooling="mean", preprocess="{}")


def random_keys(n: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n, 16), dtype=np.uint8)


def index(n: int) -> dict[str, float]:
    keys, found = random_keys(n), KeyIndex()
    began = time.perf_counter()
    for start in range(0, n, SHARD_ROWS):
        part = keys[start : start + SHARD_ROWS]
        found.add(part, np.arange(start, start + len(part)))
    built = time.perf_counter() - began
    asked = np.random.default_rng(1).integers(0, n, min(n, 1_000_000))
    wanted = keys[asked]
    began = time.perf_counter()
    positions = found.find(wanted)
    looked_up = (time.perf_counter() - began) / len(asked)
    assert (positions == asked).all()
    some = [bytes(key) for key in keys[: n // 10]]
    began = time.perf_counter()
    dictionary = {key: position for position, key in enumerate(some)}
    dict_built = time.perf_counter() - began
    shuffled = [some[i] for i in np.random.default_rng(2).permutation(len(some))]
    began = time.perf_counter()
    for key in shuffled:
        dictionary[key]
    dict_looked_up = (time.perf_counter() - began) / len(some)
    size = sys.getsizeof(dictionary) + sum(map(sys.getsizeof, some[:1000])) / 1000 * len(some) + 32 * len(some)
    return {
        "keys": n,
        "build_s": built,
        "find_ns": looked_up * 1e9,
        "bytes_a_key": 24,
        "dict_keys": len(some),
        "dict_build_s": dict_built,
        "dict_find_ns": dict_looked_up * 1e9,
        "dict_bytes_a_key": size / len(some),
    }


def read(n: int, folder: str) -> dict[str, float]:
    keys, cache = random_keys(n), FeatureCache(folder)
    store = cache.space(SPACE)
    for start in range(0, n, SHARD_ROWS):
        part = keys[start : start + SHARD_ROWS]
        features = np.random.default_rng(start).random((len(part), WIDTH), np.float32)
        store.append(FeatureRows(keys=part, layers={"penultimate": features}))
    store.compact()
    time.sleep(3)  # checksums of files that have just changed are not remembered
    positions = store.find(keys)
    store.read(positions[:: SHARD_ROWS // 2], "penultimate")  # the checksums
    mebibytes = n * WIDTH * 2 / 2**20
    shuffled = np.random.default_rng(0).permutation(positions)

    def rate(work: "object") -> float:
        seconds = []
        for _ in range(3):
            began = time.perf_counter()
            work()
            seconds.append(time.perf_counter() - began)
        return mebibytes / sorted(seconds)[1]

    def random_rows() -> None:
        for start in range(0, n, SHARD_ROWS):
            store.read(shuffled[start : start + SHARD_ROWS], "penultimate")

    def mapped_blocks() -> None:
        for block in store.blocks(positions, "penultimate", block_rows=SHARD_ROWS):
            block.astype(np.float32)

    def through_h5py() -> None:
        for path in sorted(Path(folder).rglob("*.h5")):
            with h5py.File(path) as file:
                for start in range(0, len(file["penultimate"]), SHARD_ROWS):
                    file["penultimate"][start : start + SHARD_ROWS].astype(np.float32)

    return {
        "rows": n,
        "random_mib_s": rate(random_rows),
        "mapped_mib_s": rate(mapped_blocks),
        "h5py_mib_s": rate(through_h5py),
    }


def append(n: int, folder: str) -> dict[str, float]:
    keys, milliseconds = random_keys(n), []
    for key in keys:  # a store for each, as one call of predict has
        began = time.perf_counter()
        row = FeatureRows(keys=key[None], layers={"penultimate": np.ones((1, WIDTH), np.float32)})
        FeatureCache(folder).space(SPACE).append(row)
        milliseconds.append(1e3 * (time.perf_counter() - began))
    return {
        "appends": n,
        "first_ms": float(np.median(milliseconds[:100])),
        "last_ms": float(np.median(milliseconds[-100:])),
        "shards": len(list(Path(folder).rglob("*.h5"))),
    }


def warm(n: int, folder: str) -> dict[str, float]:
    paths = [Path(folder, "files", f"{i % 100:02d}", f"{i:06d}.png") for i in range(n)]
    for parent in {path.parent for path in paths}:
        parent.mkdir(parents=True)
    for i, path in enumerate(paths):
        path.write_bytes(b"%d" % i)
        os.utime(path, (1.7e9, 1.7e9))
    backbone = make_tiny_backbone()
    extractor = Extractor(backbone, ExtractionSettings(device="cpu", precision="float32", workers=0))
    source, cache = as_image_source([str(path) for path in paths]), FeatureCache(Path(folder, "cache"))
    store = cache.space(feature_space(backbone, "float32"))
    for start in range(0, n, SHARD_ROWS):
        keyed = KeyedRows(source=source, rows=np.arange(start, min(start + SHARD_ROWS, n)), cache=cache, workers=0)
        keyed.resolve()
        zeros = {
            layer: np.zeros((len(keyed.rows), width), np.float32) for layer, width in backbone.layer_widths.items()
        }
        store.append(FeatureRows(keys=keyed.keys, layers=zeros))
    seconds = []
    for _ in range(3):
        began = time.perf_counter()
        fresh = FeatureCache(Path(folder, "cache"))
        for chunk in feature_chunks(source, extractor, fresh, precision="float32", layers=()):
            assert chunk.rows_extracted == 0
        seconds.append(time.perf_counter() - began)
    return {"files": n, "seconds": sorted(seconds)[1]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keys", type=int, default=10_000_000)
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--appends", type=int, default=1000)
    parser.add_argument("--files", type=int, default=100_000)
    parser.add_argument("--folder", help="where to put the caches; a temporary folder by default")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        found = {
            "index": index(arguments.keys),
            "read": read(arguments.rows, f"{folder}/read"),
            "append": append(arguments.appends, f"{folder}/append"),
            "warm": warm(arguments.files, f"{folder}/warm"),
        }
    rounded = {part: {name: round(value, 2) for name, value in facts.items()} for part, facts in found.items()}
    print(json.dumps(rounded))


if __name__ == "__main__":
    main()
