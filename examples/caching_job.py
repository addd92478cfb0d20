"""The batch job: features of a folder of images into a cache; stopped at any moment, it goes on where it was."""

import tempfile
from pathlib import Path

import h5py
import numpy as np
from PIL import Image

from bottleneck import cache_features, load_backbone

with tempfile.TemporaryDirectory() as folder:
    images, cache_dir = Path(folder) / "images", Path(folder) / "cache"
    images.mkdir()
    rng = np.random.default_rng(0)
    for i in range(64):
        Image.fromarray(rng.integers(0, 256, (48, 48, 3), dtype=np.uint8)).save(images / f"{i:03d}.png")

    backbone = load_backbone("embedded")
    first = cache_features(images, backbone, cache_dir)
    second = cache_features(images, backbone, cache_dir)
    print(f"first run:  {first.rows_extracted} extracted, {first.rows_cached} found")
    print(f"second run: {second.rows_extracted} extracted, {second.rows_cached} found")

    # The files are plain HDF5.
    for shard in sorted(cache_dir.glob("*/shards/*.h5")):
        with h5py.File(shard) as file:
            print(shard.name, {name: (data.shape, str(data.dtype)) for name, data in file.items()})
