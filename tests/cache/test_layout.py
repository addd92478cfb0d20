"""The folder as somebody without this library reads it: with json, hashlib and h5py."""

import hashlib
import json
import re

import h5py
import numpy as np

from .rows import LAYERS, SPACE, as_stored, features_of, filled


def test_space_is_described_in_plain_words(tmp_path):
    filled(tmp_path)

    (folder,) = tmp_path.iterdir()
    described = json.loads((folder / "space.json").read_text())

    assert described.pop("about").startswith("Features of images, computed once by bottleneck-features.")
    assert described == {
        "format_version": 1,
        "digest": folder.name,
        "weights": "ab" * 32,
        "layers": {"penultimate": 24, "stage1": 5},
        "pooling": "mean",
        "preprocess": {"crop": [224, 224]},
        "dtype": "float16",
        "precision": "float32",
    }


def test_digest_is_the_hash_of_the_settings_in_canonical_json(tmp_path):
    filled(tmp_path)

    (folder,) = tmp_path.iterdir()
    described = json.loads((folder / "space.json").read_text())
    settings = {name: value for name, value in described.items() if name not in ("about", "format_version", "digest")}
    canonical = json.dumps(settings, sort_keys=True, separators=(",", ":"))

    assert folder.name == hashlib.sha256(canonical.encode()).hexdigest()[:16]


def test_manifest_lists_every_shard_with_its_checksum(tmp_path):
    _, keys = filled(tmp_path)

    (folder,) = tmp_path.iterdir()
    lines = [json.loads(line) for line in (folder / "manifest.jsonl").read_text().splitlines()]

    assert sorted(path.name for path in folder.iterdir()) == ["manifest.jsonl", "shards", "space.json", "write.lock"]
    assert [line["file"] for line in lines] == sorted(path.name for path in (folder / "shards").iterdir())
    for number, line in enumerate(lines):
        content = (folder / "shards" / line["file"]).read_bytes()
        assert line == {
            "format_version": 1,
            "file": f"{number:05d}-{hashlib.sha256(content).hexdigest()[:32]}.h5",
            "sha256": hashlib.sha256(content).hexdigest(),
            "keys_sha256": hashlib.sha256(keys[8 * number : 8 * number + 8].tobytes()).hexdigest(),
            "rows": 8,
            "bytes": len(content),
        }


def test_shard_is_plain_hdf5(tmp_path):
    _, keys = filled(tmp_path, n_shards=1)

    (path,) = tmp_path.glob("*/shards/*.h5")
    assert re.fullmatch(r"00000-[0-9a-f]{32}\.h5", path.name)
    assert path.read_bytes()[8] == 0  # version of the superblock: readable by every HDF5 since 1.0
    with h5py.File(path) as file:
        assert dict(file.attrs) == {"format_version": 1, "space": SPACE.digest}
        assert sorted(file) == ["keys", "penultimate", "stage1"]
        np.testing.assert_array_equal(file["keys"][:], keys)
        for layer, n_features in LAYERS:
            assert (file[layer].dtype, file[layer].shape) == (np.float16, (8, n_features))
            np.testing.assert_array_equal(file[layer][:].astype(np.float32), as_stored(features_of(keys, layer)))


def test_layer_can_be_memory_mapped_at_its_offset(tmp_path):
    _, keys = filled(tmp_path, n_shards=1)

    (path,) = tmp_path.glob("*/shards/*.h5")
    with h5py.File(path) as file:
        offset, shape = file["penultimate"].id.get_offset(), file["penultimate"].shape

    mapped = np.memmap(path, "<f2", "r", offset=offset, shape=shape)
    np.testing.assert_array_equal(mapped.astype(np.float32), as_stored(features_of(keys)))
