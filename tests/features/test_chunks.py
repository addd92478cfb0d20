"""Cache and extraction together: every image at most once, every row in its place."""

import os
import shutil
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from bottleneck.cache import FeatureCache, FeatureRows
from bottleneck.errors import CacheError
from bottleneck.extraction import ExtractionSettings, Extractor
from bottleneck.features import chunks as chunks_module
from bottleneck.features import count_cached, feature_chunks, feature_space
from bottleneck.images import as_image_source, content_keys
from tests.conftest import coloured_images, make_tiny_backbone, write_image_folder

CPU = ExtractionSettings(device="cpu", precision="float32", workers=0)
LAYERS = ("penultimate", "stage1")


def run(backbone, images, cache, layers=LAYERS):
    extractor = Extractor(backbone, CPU)
    done = list(feature_chunks(as_image_source(images), extractor, cache, precision="float32", layers=layers))
    features = {layer: np.concatenate([chunk.layers[layer] for chunk in done]) for layer in layers}
    return features, done, extractor


@pytest.fixture
def cache(tmp_path: Path) -> FeatureCache:
    return FeatureCache(tmp_path / "cache")


def test_cached_features_equal_uncached_ones_bit_for_bit(tiny_backbone, cache):
    images, _ = coloured_images(20)

    uncached, *_ = run(tiny_backbone, images, None)
    cold, *_ = run(tiny_backbone, images, cache)
    warm, *_ = run(tiny_backbone, images, cache)

    for layer in LAYERS:
        assert np.array_equal(uncached[layer], cold[layer])
        assert np.array_equal(uncached[layer], warm[layer])


def test_second_pass_in_another_order_makes_no_forward_pass(tiny_backbone, cache):
    images, _ = coloured_images(20)
    order = np.random.RandomState(0).permutation(20)
    first, *_ = run(tiny_backbone, images, cache)

    second, _, extractor = run(tiny_backbone, images[order], cache)

    assert extractor.forward_passes == 0
    assert np.array_equal(second["penultimate"], first["penultimate"][order])


def test_subset_and_superset_extract_only_what_is_new(tiny_backbone, cache):
    images, _ = coloured_images(20)
    run(tiny_backbone, images[:12], cache)

    _, subset_done, _ = run(tiny_backbone, images[3:9], cache)
    _, superset_done, _ = run(tiny_backbone, images, cache)

    assert [chunk.rows_extracted for chunk in subset_done] == [0]
    assert [chunk.rows_extracted for chunk in superset_done] == [8]


def test_repeated_image_is_extracted_once_and_fills_every_row(tiny_backbone, cache):
    images, _ = coloured_images(4)
    repeated = images[[0, 1, 0, 2, 0, 3]]

    features, (chunk,), _ = run(tiny_backbone, repeated, cache)

    assert chunk.rows_extracted == 4
    assert np.array_equal(features["penultimate"][[0, 0]], features["penultimate"][[2, 4]])


def test_renamed_file_is_a_hit_and_changed_content_a_miss(tiny_backbone, cache, image_folder):
    paths = sorted(image_folder.rglob("*.png"))
    run(tiny_backbone, paths, cache)
    paths[0] = paths[0].rename(paths[0].with_name("renamed.png"))
    paths[1].write_bytes(paths[2].read_bytes()[:-12] + b"changed-content!")

    _, (chunk,), _ = run(tiny_backbone, paths, cache)

    assert chunk.rows_extracted + len(chunk.failures) == 1


def test_same_name_with_new_content_gets_new_features(tiny_backbone, cache, image_folder):
    paths = sorted(image_folder.rglob("*.png"))
    before, *_ = run(tiny_backbone, paths, cache)
    first, second = paths[0].read_bytes(), paths[-1].read_bytes()
    paths[0].write_bytes(second)
    paths[-1].write_bytes(first)

    after, (chunk,), _ = run(tiny_backbone, paths, cache)

    assert chunk.rows_extracted == 0
    assert np.array_equal(after["penultimate"][[0, -1]], before["penultimate"][[-1, 0]])


def test_other_weights_are_another_space(cache):
    images, _ = coloured_images(4)
    run(make_tiny_backbone(seed=0), images, cache)

    _, (chunk,), _ = run(make_tiny_backbone(seed=1), images, cache)

    assert chunk.rows_extracted == 4
    assert len(cache.spaces()) == 2


def test_bad_image_is_reported_and_shifts_no_row(tiny_backbone, cache, image_folder):
    paths = sorted(image_folder.rglob("*.png"))
    expected, *_ = run(tiny_backbone, paths, None)
    paths[5].write_bytes(b"<html>not an image</html>")
    paths[7].unlink()

    for store in (cache, cache, None):
        features, (chunk,), _ = run(tiny_backbone, paths, store)

        assert [failure.row for failure in chunk.failures] == [5, 7]
        assert [str(paths[row]) for row in (5, 7)] == [failure.id for failure in chunk.failures]
        good = [i for i in range(len(paths)) if i not in (5, 7)]
        assert chunk.rows.tolist() == good
        assert np.array_equal(features["penultimate"], expected["penultimate"][good])


def test_progress_counts_images_found_and_unreadable_ones(tiny_backbone, cache, image_folder):
    paths = sorted(str(path) for path in image_folder.rglob("*.png"))
    run(tiny_backbone, paths[1:], cache)
    Path(paths[0]).write_bytes(b"<html>")
    notes = []

    extractor = Extractor(tiny_backbone, CPU)
    source = as_image_source(paths)
    list(feature_chunks(source, extractor, cache, precision="float32", progress=lambda event: notes.append(event.note)))

    assert notes[-1] == f"{len(paths) - 1} found, 1 unreadable"


def test_every_copy_of_a_bad_image_is_reported(tiny_backbone, cache):
    images = [b"not an image"] * 3

    _, (chunk,), _ = run(tiny_backbone, images, cache)

    assert [failure.row for failure in chunk.failures] == [0, 1, 2]


def test_chunks_and_shards_of_any_size_give_the_same_features(tiny_backbone, cache, monkeypatch):
    images, _ = coloured_images(23)
    expected, *_ = run(tiny_backbone, images, None)
    monkeypatch.setattr(chunks_module, "CHUNK_ROWS", 7)
    monkeypatch.setattr(chunks_module, "SHARD_SECONDS", 0.0)

    features, done, _ = run(tiny_backbone, images, cache)

    assert len(done) == 4
    np.testing.assert_allclose(features["penultimate"], expected["penultimate"], rtol=2e-3, atol=1e-4)


def test_damaged_shard_is_extracted_again(tiny_backbone, cache):
    images, _ = coloured_images(12)
    expected, *_ = run(tiny_backbone, images, cache)
    (shard,) = cache.cache_dir.rglob("*.h5")
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 0xFF
    shard.chmod(0o644)
    shard.write_bytes(content)

    with pytest.warns(UserWarning, match=shard.name):
        features, (chunk,), _ = run(tiny_backbone, images, FeatureCache(cache.cache_dir))

    assert chunk.rows_extracted == 12
    assert np.array_equal(features["penultimate"], expected["penultimate"])


def test_count_cached_counts_rows_without_a_forward_pass(tiny_backbone, cache):
    images, _ = coloured_images(10)
    extractor = Extractor(tiny_backbone, CPU)
    run(tiny_backbone, images[:6], cache)

    found = count_cached(as_image_source(images), extractor, cache, precision="float32")

    assert found == 6
    assert extractor.forward_passes == 0


def test_space_names_everything_that_changes_a_feature(tiny_backbone):
    space = feature_space(tiny_backbone, "float32")

    assert space.weights == tiny_backbone.weights_digest
    assert dict(space.layers)["penultimate"] == 16
    assert feature_space(tiny_backbone, "bfloat16").digest != space.digest
    assert feature_space(make_tiny_backbone(seed=1), "float32").digest != space.digest


def test_file_changed_between_look_up_and_decoding_is_stored_under_what_was_decoded(tiny_backbone, cache, tmp_path):
    folder = write_image_folder(tmp_path / "changing", n=4)
    paths = sorted(folder.rglob("*.png"))
    other = paths[1].read_bytes()

    class Changing:
        """A source of which the first file is replaced once its key has been taken."""

        reads = 0

        @property
        def ids(self) -> list[str]:
            return [str(path) for path in paths]

        def __len__(self) -> int:
            return len(paths)

        def read(self, row: int) -> bytes:
            self.reads += row == 0
            return other if row == 0 and self.reads > 1 else paths[row].read_bytes()

        def stat(self, row: int) -> None:
            return None

    expected, *_ = run(tiny_backbone, [paths[1], *paths[1:]], None)

    features, *_ = run(tiny_backbone, Changing(), cache)

    assert np.array_equal(features["penultimate"], expected["penultimate"])


def test_unwritable_cache_is_one_clear_error(tiny_backbone, tmp_path):
    (tmp_path / "file").write_text("in the way")
    images, _ = coloured_images(4)

    with pytest.raises(OSError, match="file") as caught:
        run(tiny_backbone, images, FeatureCache(tmp_path / "file" / "cache"))

    assert type(caught.value).__name__ == "CacheError"
    assert os.linesep not in str(caught.value)


def test_rows_that_another_process_is_at_work_on_are_left_to_it(tiny_backbone, cache, monkeypatch):
    monkeypatch.setattr(chunks_module, "CHUNK_ROWS", 8)
    images, _ = coloured_images(24)
    expected, *_ = run(tiny_backbone, images, None)
    source, extractor = as_image_source(images), Extractor(tiny_backbone, CPU)
    other = cache.space(feature_space(tiny_backbone, "float32"))
    first = next(iter(extractor.extract(source, np.arange(8), precision="float32")))
    notes, claimed = [], threading.Event()

    def work_slowly():
        with other.claim(first.keys):
            claimed.set()
            while not notes:  # until the pass has done all else and says that it waits
                time.sleep(0.01)
            other.append(FeatureRows(keys=first.keys, layers=first.layers))

    def progress(event):
        if event.note.startswith("waiting"):
            notes.append((event.done, event.note))

    worker = threading.Thread(target=work_slowly)
    worker.start()
    claimed.wait()
    done = list(feature_chunks(source, extractor, cache, precision="float32", layers=LAYERS, progress=progress))
    worker.join()

    assert [chunk.rows_extracted for chunk in done] == [0, 8, 8]
    assert notes[0] == (16, "waiting for another process (8 images)")
    np.testing.assert_array_equal(np.concatenate([chunk.rows for chunk in done]), np.arange(24))
    found = np.concatenate([chunk.layers["penultimate"] for chunk in done])
    np.testing.assert_allclose(found, expected["penultimate"], rtol=2e-3, atol=1e-4)
    assert other.n_rows <= 24


def test_claim_of_a_process_that_has_stopped_is_passed_over_after_a_while(tiny_backbone, cache, monkeypatch):
    monkeypatch.setattr(chunks_module, "PATIENCE_SECONDS", 0.2)
    images, _ = coloured_images(6)
    other = cache.space(feature_space(tiny_backbone, "float32"))
    keys, _ = content_keys(as_image_source(images), np.arange(6), workers=0)

    with other.claim(keys):
        _, (chunk,), _ = run(tiny_backbone, images, cache)

    assert chunk.rows_extracted == 6


def test_cache_that_disappears_while_it_is_filled_is_one_clear_error(tiny_backbone, cache, monkeypatch):
    monkeypatch.setattr(chunks_module, "CHUNK_ROWS", 6)
    images, _ = coloured_images(24)
    chunks = feature_chunks(as_image_source(images), Extractor(tiny_backbone, CPU), cache, precision="float32")

    next(chunks)
    shutil.rmtree(cache.cache_dir)
    with pytest.raises(CacheError, match="has disappeared while it was used"):
        list(chunks)

    assert not cache.cache_dir.exists()
