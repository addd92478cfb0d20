"""Damage of every kind to a caching job, its images and its cache: nothing lost, nothing wrong, no traceback.

    python tests/benchmarks/damage.py [--kills 200] [--signals 40] [--pairs 40] [--images 2000] [--shards 500]
                                      [--seed 0] [--job-images 240] [--keep FOLDER] [--json FILE]

- kills: a job is killed by SIGKILL at a random moment and started again until it finishes. Rows that were on the disk
  are never lost, changed or extracted again; the finished cache equals that of an undisturbed run bit for bit.
- signals: Ctrl-C and SIGTERM at random moments of ``bottleneck cache``: one message, and the rerun is exact.
- pairs: two jobs on one cache at once, in three of four rounds one of them killed: the other finishes, no row twice.
- images: mutated image files among sound ones: each gives features or a reason, never a crash, a hang or a traceback,
  and the sound ones have the features that they have alone.
- shards: damaged shards, manifests, descriptions and indexes: ``verify`` names what is damaged, and what is read
  afterwards is exactly right.

Prints one JSON object and ends with status 1 if anything failed. ``--keep`` takes the images that did harm.
"""

import argparse
import json
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"  # before anything loads OpenMP, whose threads do not survive a fork

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

sys.path.insert(0, str(Path(__file__).parent))
from children import FORK, Child, run_in_child
from damage_job import EXACT, ROUNDING, Job, Section, cache_job, read_job, transform_job, write_images
from mutations import CACHE_DAMAGES, NEVER_IMAGES, SHARD_DAMAGES, damage_cache, mutated_images, sound_images

from bottleneck import FeatureCache
from bottleneck.cli.main import run
from bottleneck.errors import TransferError

N_TEMPLATE = 28
"""Images of the caches that are damaged: three shards of 8 rows and one of 4, which are not yet merged."""
BEGUN = 0.02
"""Seconds after which a forked command answers signals itself: until then they end it as they end any process."""
APART = 0.05
"""How far, relative to their norm, features may be from those of the pixels that Pillow decodes."""
ALWAYS_NAMED = (*SHARD_DAMAGES, "manifest: zeroed", "manifest: deleted", "manifest: checksums swapped")
"""What ``verify`` cannot miss: a manifest may also be cut between lines, or have a bit flipped that says nothing."""
UNCLEAR = re.compile(r"Traceback|Error\(|Exception|object at 0x|<class|\n")
"""What a reason for people does not hold."""


def command_job(*arguments: str) -> None:
    sys.exit(run(list(arguments)))


def kill_jobs(n: int, job: Job, seed: int) -> Section:
    section, draw = Section(), random.Random(seed)
    while section.counts["kills"] < n:
        with tempfile.TemporaryDirectory(dir=job.folder.parent) as cache_dir:
            known, before, outcome = 0, 0, None
            while outcome is None:
                counter = FORK.RawValue("q")
                child = Child(cache_job, job.paths, cache_dir, counter)
                what = f"kill {section.counts['kills']} of seed {seed}"
                if section.counts["kills"] < n and not child.wait(draw.uniform(0, 0.8 * job.seconds)):
                    child.send(signal.SIGKILL)
                    child.finish()
                    section.counts["kills"] += 1
                    known = None
                    if draw.random() < 0.7:  # looking mends: the others are left to the next run alone
                        known = job.check(cache_dir, section, what, finished=False)
                        section.expect(known >= before, f"{what}: {before - known} rows lost")
                        before = known
                        in_flight = max(0, int(counter.value) - int(job.stored(cache_dir)[0].sum()))
                        section.counts["most_in_flight"] = max(section.counts["most_in_flight"], in_flight)
                else:
                    outcome = child.finish()
            section.counts["finished"] += 1
            section.expect(not outcome.trouble, f"{what}: {outcome.trouble}")
            if outcome.result and known is not None:
                again = outcome.result["extracted"] - (job.n_distinct - known)
                section.counts["extracted_again"] += abs(again)
                section.expect(again == 0, f"{what}: {again} rows extracted again")
            job.check(cache_dir, section, what, finished=True)
    section.expect(section.counts["rounded otherwise"] == 0, "resumed features are not bit for bit those of one run")
    return section


def send_signals(n: int, job: Job, seed: int) -> Section:
    section, draw = Section(), random.Random(seed)
    for trial in range(n):
        number = (signal.SIGINT, signal.SIGTERM)[trial % 2]
        what = f"{number.name} {trial} of seed {seed}"
        with tempfile.TemporaryDirectory(dir=job.folder.parent) as cache_dir:
            child = Child(command_job, "cache", str(job.folder), "--cache-dir", cache_dir, "--batch-size", "8")
            if not child.wait(draw.uniform(BEGUN, 0.6 * job.seconds)):
                child.send(number)
            outcome = child.finish()
            section.counts[f"{number.name} ended with status {outcome.status}"] += 1
            lines = outcome.complaint.strip().splitlines()
            section.expect("Traceback" not in outcome.complaint, f"{what}: {outcome.trouble}")
            section.expect(outcome.status in (0, 128 + number), f"{what}: status {outcome.status}")
            section.expect(outcome.status == 0 or len(lines) == 1, f"{what}: not one message but {lines}")
            known = job.check(cache_dir, section, what, finished=False)
            section.counts[f"{number.name}: rows kept"] += known
            rerun = run_in_child(cache_job, job.paths, cache_dir)
            section.expect(not rerun.trouble, f"{what}, rerun: {rerun.trouble}")
            if rerun.result:
                again = rerun.result["extracted"] - (job.n_distinct - known)
                section.expect(again == 0, f"{what}: {again} rows extracted again")
            job.check(cache_dir, section, what, finished=True)
    return section


def run_pairs(n: int, job: Job, seed: int) -> Section:
    section, draw = Section(), random.Random(seed)
    for trial in range(n):
        what = f"pair {trial} of seed {seed}"
        with tempfile.TemporaryDirectory(dir=job.folder.parent) as cache_dir:
            pair = [Child(cache_job, job.paths, cache_dir) for _ in range(2)]
            killed = trial % 4 != 0 and not pair[0].wait(draw.uniform(0, 1.5 * job.seconds))
            if killed:
                pair[0].send(signal.SIGKILL)
            outcomes = [child.finish() for child in pair]
            section.counts["killed"] += killed
            for outcome in outcomes[killed:]:
                section.expect(not outcome.trouble, f"{what}: {outcome.trouble}")
            extracted = sum(outcome.result["extracted"] for outcome in outcomes if outcome.result)
            if not killed:
                section.counts["extracted_twice"] += extracted - job.n_distinct
            job.check(cache_dir, section, what, finished=True)
    return section


def mutate_images(n: int, job: Job, seed: int, keep: Path | None = None) -> Section:
    section = Section()
    sound = dict(zip(job.paths, job.exact_features, strict=True))
    for start in range(0, n, BATCH := 60):
        mutated = mutated_images(min(BATCH, n - start), seed=seed + start)
        draw = random.Random(seed + start)
        with tempfile.TemporaryDirectory(dir=job.folder.parent) as folder:
            images = Path(folder) / "images"
            write_images(images, mutated)
            paths = [str(images / name) for name in mutated] + draw.sample(job.paths, 12)
            draw.shuffle(paths)
            outcome = run_in_child(transform_job, paths, f"{folder}/cache")
            section.counts["images"] += len(mutated)
            if outcome.trouble:
                name_culprits(section, images, f"{folder}/alone", keep, outcome.trouble)
                continue
            features, reasons, peak = outcome.result
            views = dict(zip(paths, run_in_child(pillow_views, paths, f"{folder}/views").result, strict=True))
            section.counts["peak_mib"] = max(section.counts["peak_mib"], peak)
            for row, path in enumerate(paths):
                where = f"{Path(path).name} of seed {seed + start}"
                failed = bool(np.isnan(features[row]).all())
                section.expect(failed == (row in reasons), f"{where}: features and report disagree")
                section.expect(failed or bool(np.isfinite(features[row]).all()), f"{where}: features not finite")
                if path in sound:
                    section.counts["sound, rounded otherwise"] += not np.array_equal(features[row], sound[path])
                    same = np.allclose(features[row], sound[path], **ROUNDING)
                    section.expect(same, f"{where}: a sound image differs")
                else:
                    note_verdict(section, where, reasons.get(row), whole=views[path] is not None)
                if not failed and isinstance(seen := views[path], np.ndarray):
                    apart = float(np.linalg.norm(features[row] - seen) / np.linalg.norm(seen))
                    section.counts["compared with Pillow's pixels"] += 1
                    section.expect(apart < APART, f"{where}: {apart:.3f} apart from what Pillow sees")
    return section


def note_verdict(section: Section, where: str, reason: str | None, *, whole: bool) -> None:
    """Judge what became of one mutated image; a strict Pillow is the measure of what can be decoded."""
    what = where.split("-")[1]
    section.counts["refused" if reason else "decoded"] += 1
    section.expect(reason is None or is_clear(reason), f"{where}: unclear {reason!r}")
    section.expect(reason is not None or what not in NEVER_IMAGES, f"{where}: decoded, and is no image")
    section.counts["refused, and Pillow decodes it"] += bool(whole and reason)
    section.expect(whole or reason is not None, f"{where}: decoded, and Pillow refuses it")


def is_clear(reason: str) -> bool:
    """Whether a reason is one sentence for people."""
    return bool(reason) and not UNCLEAR.search(reason)


def pillow_views(paths: list[str], folder: str) -> list[NDArray[np.float32] | str | None]:
    """Return the features of the pixels that Pillow decodes: None if it refuses, "" if colours are arguable."""
    warnings.simplefilter("ignore")
    Path(folder).mkdir()
    views: dict[str, str | None] = {}
    for path in paths:
        try:
            with Image.open(path) as image:
                plain = image.mode in ("RGB", "L")
                upright = ImageOps.exif_transpose(image).convert("RGB")
        except Exception:  # noqa: BLE001 (whatever Pillow raises on damaged files, which is nearly everything)
            views[path] = None
        else:
            views[path] = f"{folder}/{Path(path).name}.png" if plain else ""
            if plain:
                upright.save(views[path])
    written = [view for view in views.values() if view]
    features = dict(zip(written, read_job(written, f"{folder}/cache"), strict=True)) if written else {}
    return [features.get(view, view) for view in views.values()]


def name_culprits(section: Section, images: Path, cache_dir: str, keep: Path | None, trouble: str) -> None:
    """Find which image of a batch did harm by trying each alone."""
    found = False
    for path in sorted(images.iterdir()):
        alone = run_in_child(transform_job, [str(path)], cache_dir, timeout=20)
        if alone.trouble:
            found = True
            section.failed.append(f"{path.name}: {alone.trouble}")
            if keep:
                keep.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, keep)
    section.expect(found, f"a batch failed whose images do no harm alone: {trouble}")


def verify_and_read(paths: list[str], cache_dir: str) -> dict[str, object]:
    """Return what ``verify`` says, the features read from the damaged cache, and again after ``repair``."""
    said = answer(lambda: repr(FeatureCache(cache_dir).verify()))
    features = answer(lambda: read_job(paths, cache_dir))
    repaired = answer(lambda: FeatureCache(cache_dir).repair())
    return {
        "verify": said,
        "features": features,
        "repair": repaired if isinstance(repaired, str) else "",
        "features_after": answer(lambda: read_job(paths, cache_dir)),
        "verify_after": answer(lambda: len(FeatureCache(cache_dir).verify().bad)),
    }


def answer(ask: Callable[[], object]) -> object:
    """Return the answer, or the message if it is an error of this library."""
    try:
        return ask()
    except TransferError as exc:
        return str(exc)


def damage_caches(n: int, job: Job, seed: int) -> Section:
    section = Section()
    paths, features = job.paths[:N_TEMPLATE], job.exact_features[:N_TEMPLATE]
    with tempfile.TemporaryDirectory(dir=job.folder.parent) as template:
        space = run_in_child(cache_job, paths, template, None, EXACT).result["space"]
        for trial in range(n):
            kind = CACHE_DAMAGES[trial % len(CACHE_DAMAGES)]
            what = f"{kind}, trial {trial} of seed {seed}"
            with tempfile.TemporaryDirectory(dir=job.folder.parent) as copy:
                shutil.copytree(template, copy, dirs_exist_ok=True)
                damaged = damage_cache(Path(copy) / space, kind, seed=seed + trial)
                outcome = run_in_child(verify_and_read, paths, copy)
            section.counts[kind] += 1
            section.expect(not outcome.trouble, f"{what}: {outcome.trouble}")
            if outcome.result:
                judge_reading(section, what, kind, damaged, outcome.result, features)
    return section


def judge_reading(
    section: Section, what: str, kind: str, damaged: list[str], found: dict[str, object], features: NDArray[np.float32]
) -> None:
    """Shards and their list must be named and mended; what is refused instead must be refused by its name."""
    named = all(name in str(found["verify"]) for name in damaged)
    if not named:
        section.counts[f"{kind}, not named"] += 1
    section.expect(named or kind not in ALWAYS_NAMED, f"{what}: verify does not name {damaged}: {found['verify']}")
    for when in ("features", "features_after"):
        got = found[when]
        if isinstance(got, str):
            section.counts[f"{kind}, refused"] += 1
            may = kind not in SHARD_DAMAGES and damaged[0] in got
            section.expect(may, f"{what}: {when} refused: {got}")
        else:
            section.expect(np.allclose(got, features, **ROUNDING), f"{what}: {when} are wrong")
            section.counts["rounded otherwise"] += int((got != features).any(axis=1).sum())
    mended = found["verify_after"] == 0 or isinstance(found["features_after"], str)
    section.expect(mended, f"{what}: after repair verify finds {found['verify_after']} (repair said {found['repair']})")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, n in (("kills", 200), ("signals", 40), ("pairs", 40), ("images", 2000), ("shards", 500)):
        parser.add_argument(f"--{name}", type=int, default=n)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--job-images", type=int, default=240)
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        contents = sound_images(given.job_images, seed=given.seed)
        copies = {f"copy-{name}": content for name, content in list(contents.items())[:10]}
        job = Job(Path(folder) / "images", {**contents, **copies})
        ways = {
            "kills": lambda: kill_jobs(given.kills, job, given.seed),
            "signals": lambda: send_signals(given.signals, job, given.seed),
            "pairs": lambda: run_pairs(given.pairs, job, given.seed),
            "images": lambda: mutate_images(given.images, job, given.seed, given.keep),
            "shards": lambda: damage_caches(given.shards, job, given.seed),
        }
        outcome: dict[str, object] = {}
        for name, way in ways.items():
            began = time.monotonic()
            section = way()
            seconds = round(time.monotonic() - began, 1)
            outcome[name] = {**section.counts, "seconds": seconds, "failed": section.failed}
    text = json.dumps(outcome, indent=2)
    print(text)
    if given.json:
        given.json.write_text(text + "\n")
    sys.exit(any(part["failed"] for part in outcome.values()))


if __name__ == "__main__":
    main()
