"""The caching job among killed processes, hostile files and failing disks: nothing lost, nothing wrong, one message.

The whole, with hundreds of kills and thousands of images, is ``tests/benchmarks/damage.py``.
"""

import errno
import json
import os
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

from bottleneck import FeatureCache, FeatureExtractor, cache_features
from bottleneck.cli.main import run
from bottleneck.errors import CacheError, SkippedImagesWarning
from bottleneck.extraction import ExtractionSettings
from bottleneck.features import chunks
from tests.conftest import write_image_folder

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
SHORT = {"kills": 3, "signals": 2, "pairs": 2, "images": 60, "shards": 21, "job-images": 64}
SETTINGS = ExtractionSettings(device="cpu", precision="float32", batch_size=4)


@pytest.fixture(scope="module")
def damaged() -> dict[str, dict[str, object]]:
    """Return what the short form of the damage benchmark found."""
    options = [word for name, n in SHORT.items() for word in (f"--{name}", str(n))]
    command = [sys.executable, str(BENCHMARKS / "damage.py"), *options]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(BENCHMARKS.parents[1])}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=240)
    assert done.stdout, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("damage", ["kills", "signals", "pairs", "images", "shards"])
def test_nothing_is_lost_and_nothing_is_wrong_after_random(damage, damaged):
    assert damaged[damage]["failed"] == []


@pytest.fixture
def command(tmp_path, monkeypatch):
    """Return a function that runs one command and returns its exit status, standard output and standard error."""

    def call(*arguments: object) -> tuple[int, str, str]:
        told = [tmp_path / "stdout.txt", tmp_path / "stderr.txt"]
        # The very streams that Python opens: names that are not UTF-8 are an error on one and escaped on the other.
        with (
            told[0].open("w", encoding="utf-8") as out,
            told[1].open("w", encoding="utf-8", errors="backslashreplace") as err,
            monkeypatch.context() as patch,
            warnings.catch_warnings(),
        ):
            patch.setattr(sys, "stdout", out)
            patch.setattr(sys, "stderr", err)
            warnings.simplefilter("default")  # as for users
            status = run([str(argument) for argument in arguments])
        return status, *(path.read_text(encoding="utf-8") for path in told)

    return call


@pytest.fixture
def many_shards(monkeypatch) -> None:
    """Write a shard after every batch."""
    monkeypatch.setattr(chunks, "SHARD_SECONDS", 0.0)


@pytest.fixture
def small_disk(tmp_path):
    """Return a file system of 160 KiB and a function that mounts it anew with other options, or skip."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def mount(options: str) -> None:
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], capture_output=True, text=True)
        if done.returncode != 0:
            pytest.skip(f"a small disk cannot be mounted here: {done.stderr.strip()}")

    if shutil.which("mount") is None:
        pytest.skip("there is no command to mount a small disk with")
    mount("size=160k")
    try:
        yield folder, mount
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def counts(printed: str) -> tuple[int, int, int]:
    found = json.loads(printed.splitlines()[-1])
    return found["rows_extracted"], found["rows_cached"], found["rows_skipped"]


def expected_features(images: Path) -> np.ndarray:
    extractor = FeatureExtractor(device="cpu", precision="float32", batch_size=4, cache_dir=images.parent / "expected")
    return extractor.fit_transform(images)


def assert_holds_all(cache_dir: Path, images: Path, backbone: str = "embedded") -> None:
    expected = expected_features(images)
    extractor = FeatureExtractor(backbone, device="cpu", precision="float32", batch_size=4, cache_dir=cache_dir)
    assert np.array_equal(extractor.fit_transform(images), expected)
    assert FeatureCache(cache_dir).verify().bad == ()


def hostile_files(folder: Path) -> dict[str, str]:
    """Put bad files among good ones; return part of the reason expected for each."""
    sys.path.insert(0, str(BENCHMARKS))
    try:
        from mutations import BOMBS, HTML, sound_images
    finally:
        sys.path.remove(str(BENCHMARKS))
    jpeg = next(iter(sound_images(1).values()))
    (folder / "cut.jpg").write_bytes(jpeg[: len(jpeg) // 2])
    (folder / "page.jpg").write_bytes(HTML)
    (folder / "nothing.png").write_bytes(b"")
    (folder / "link.jpg").symlink_to("nowhere.jpg")
    os.mkfifo(folder / "pipe.jpg")  # neither this nor the folder counts as an image
    (folder / "folder.jpg").mkdir()
    Path(os.fsdecode(os.fsencode(folder) + b"/caf\xe9.jpg")).write_bytes(jpeg)
    Path(os.fsdecode(os.fsencode(folder) + b"/caf\xe9-cut.jpg")).write_bytes(jpeg[:-300])
    reasons = {
        "cut.jpg": "cut off|truncated|damaged",
        "page.jpg": "an HTML page",
        "nothing.png": "empty",
        "link.jpg": "broken symbolic link",
        "-cut.jpg": "cut off|truncated|damaged",
    }
    for bomb in BOMBS:
        (folder / f"{bomb.__name__}.{bomb.__name__[:-5]}").write_bytes(bomb())
        reasons[f"{bomb.__name__}.{bomb.__name__[:-5]}"] = "too large|decompression bomb"
    return reasons


def test_command_lists_every_hostile_file_with_its_reason_and_caches_all_others(image_folder, tmp_path, command):
    reasons = hostile_files(image_folder / "bluish")
    arguments = ("cache", image_folder, "--cache-dir", tmp_path / "cache", "--json", "-q")

    raised, _, complaint = command(*arguments)
    status, printed, warned = command(*arguments, "--on-error", "skip")

    assert raised == 2
    assert "Traceback" not in complaint
    assert complaint.startswith(f"error: {len(reasons)} images cannot be read")
    for told in (complaint, warned):
        lines = told.splitlines()
        for name, reason in reasons.items():
            (line,) = [line for line in lines if name in line and (name != "cut.jpg" or "-cut" not in line)]
            assert any(words in line for words in reason.split("|"))
    assert status == 0
    assert counts(printed) == (0, 25, len(reasons))


def test_folder_or_forbidden_file_called_x_jpg_is_named(image_folder, tmp_path):
    folder = image_folder / "x.jpg"
    folder.mkdir()
    paths = [*map(str, sorted(image_folder.rglob("*.png"))), str(folder)]

    with pytest.warns(SkippedImagesWarning, match="this is a folder"):
        report = cache_features(paths, load("embedded"), tmp_path / "cache", settings=SETTINGS, on_error="skip")

    assert [failure.row for failure in report.failures] == [24]


def load(name: str):
    from bottleneck import load_backbone

    return load_backbone(name)


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="permissions do not bind the administrator")
def test_file_without_permission_is_named_and_the_others_are_cached(image_folder, tmp_path, command):
    (image_folder / "bluish" / "000.png").chmod(0)

    status, printed, warned = command(
        "cache", image_folder, "--cache-dir", tmp_path / "cache", "--json", "-q", "--on-error", "skip"
    )

    assert status == 0
    assert "permission denied" in warned
    assert counts(printed) == (23, 0, 1)


@pytest.mark.usefixtures("many_shards")
def test_file_that_vanishes_in_the_middle_is_named_and_the_others_stay_aligned(image_folder, tmp_path):
    expected = expected_features(image_folder)
    paths = [str(path) for path in sorted(image_folder.rglob("*.png"))]
    cache_dir = tmp_path / "cache"

    def vanish(event: object) -> None:
        Path(paths[-1]).unlink(missing_ok=True)

    with pytest.warns(SkippedImagesWarning, match="no such file"):
        report = cache_features(paths, load("embedded"), cache_dir, settings=SETTINGS, on_error="skip", progress=vanish)

    assert [failure.row for failure in report.failures] == [23]
    extractor = FeatureExtractor(device="cpu", precision="float32", cache_dir=cache_dir)
    assert np.array_equal(extractor.fit_transform(paths[:-1]), expected[:-1])


@pytest.mark.usefixtures("many_shards")
def test_full_disk_is_one_message_and_with_room_the_rest_follows(small_disk, tmp_path, command):
    images = write_image_folder(tmp_path / "images", n=120)
    disk, mount = small_disk
    arguments = ("cache", images, "--cache-dir", disk / "cache", "--json", "-q", "--batch-size", "4")
    arguments += ("--precision", "float32")

    status, _, complaint = command(*arguments)
    on_disk = sum(FeatureCache(disk / "cache").space(space).n_rows for space in FeatureCache(disk / "cache").spaces())
    mount("remount,size=16m")
    again, printed, _ = command(*arguments)

    assert status == 2
    assert os.strerror(errno.ENOSPC) in complaint
    assert len([line for line in complaint.splitlines() if line.startswith("error: ")]) == 1
    assert 0 < on_disk < 120
    assert again == 0
    assert counts(printed) == (120 - on_disk, on_disk, 0)
    assert_holds_all(disk / "cache", images)


def test_read_only_cache_is_one_message_and_what_it_holds_can_still_be_read(small_disk, image_folder, command):
    disk, mount = small_disk
    extracting = ("cache", image_folder, "--json", "-q", "--cache-dir")
    command(*extracting, disk / "cache")
    mount("remount,ro")

    status, _, complaint = command(*extracting, disk / "other")
    warm, printed, _ = command(*extracting, disk / "cache")

    assert status == 2
    assert os.strerror(errno.EROFS) in complaint
    assert len(complaint.splitlines()) == 1
    assert warm == 0
    assert counts(printed) == (0, 24, 0)


def test_file_in_the_place_of_the_cache_is_one_message(image_folder, tmp_path, command):
    (tmp_path / "cache").write_text("this is no folder")

    status, _, complaint = command("cache", image_folder, "-q", "--cache-dir", tmp_path / "cache")

    assert status == 2
    assert str(tmp_path / "cache") in complaint
    assert len(complaint.splitlines()) == 1


@pytest.mark.usefixtures("many_shards")
@pytest.mark.parametrize("replaced", [False, True])
@pytest.mark.filterwarnings("ignore::bottleneck.errors.CacheWarning")
def test_cache_that_disappears_in_the_middle_is_one_message_or_made_anew(image_folder, tmp_path, replaced):
    cache_dir = tmp_path / "cache"
    seen = []

    def disappear(event: object) -> None:
        seen.append(event)
        if len(seen) == 3:
            shutil.rmtree(cache_dir)
            if replaced:
                cache_dir.write_text("another thing")

    try:
        cache_features(image_folder, load("embedded"), cache_dir, settings=SETTINGS, progress=disappear)
    except CacheError as exc:
        assert str(cache_dir) in str(exc)  # noqa: PT017 (both ends are good)
    else:
        assert not replaced

    if replaced:
        cache_dir.unlink()
    cache_features(image_folder, load("embedded"), cache_dir, settings=SETTINGS)
    assert_holds_all(cache_dir, image_folder)
