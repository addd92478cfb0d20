"""From image files to features on disk: ours against what people write today and against the limits of the machine.

    python tests/benchmarks/extract.py [--data FOLDER] [--network resnet18] [--n N] [--repeats 3] [--json FILE]

- ours: ``cache_features`` with its defaults into an empty cache, compiling included (no compiled code is kept from
  earlier runs); "ours again" does the same where an earlier process has left its compiled code.
- (a) textbook: Pillow, ``weights.transforms()``, a DataLoader (0 and 2 workers, the better counts), an eager float32
  forward, ``np.concatenate``, ``np.save``.
- (b) embetter: ``TimmEncoder`` behind ``ImageLoader``. (c) timm: the loop of its documentation (0 and 2 workers).
- (d) limits: the prepared network alone on tensors, bare decoding in one thread, and from both the rate that all
  cores would reach if they did nothing else and nothing twice: cores / (t_decode + t_forward).

Every run is a process of its own; imports and weights are ready before the clock starts, for all alike. Runs
alternate; medians count. Weights are random, which serves for speed: all networks are of the same architecture. Our
features are compared with those of (a), row by row. Without ``--n`` all files are taken, with a larger n copies whose
content differs behind the end of the image. Prints one JSON object.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).parent))
import contenders
from contenders import RIVALS, NotInstalledError, Task

SHARED = Path(__file__).resolve().parents[3] / "shared"
NETWORKS = ("mobilenet_v2", "resnet18", "resnet50")
SAME_FEATURES = 0.999
"""Least cosine of our features, row by row, with those of the textbook loop."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=SHARED / "data" / "clothing" / "train")
    parser.add_argument("--network", choices=NETWORKS, default="resnet18")
    parser.add_argument("--n", type=int, help="images; all of the folder by default")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--precision", default="auto", help="of ours")
    parser.add_argument("--only", nargs="+", metavar="RIVAL", help=f"some of: {', '.join(RIVALS)}")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--run", nargs=2, metavar=("CONTENDER", "TASK"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.run:
        run_contender(*given.run)
        return
    with tempfile.TemporaryDirectory() as folder:
        outcome = compare(given, Path(folder))
    text = json.dumps(outcome, indent=2)
    print(text)
    if given.json:
        given.json.write_text(text + "\n")


def compare(given: argparse.Namespace, folder: Path) -> dict[str, object]:
    """Run everything in turn and sum up."""
    found = sorted(str(path) for path in given.data.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
    if not found:
        raise SystemExit(f"There are no images in {given.data}. Name a folder with --data.")
    n = given.n or len(found)
    chosen = [found[i] for i in np.linspace(0, len(found) - 1, min(n, len(found))).astype(int)]
    files = tuple(contenders.copies(chosen, n, folder))
    task = Task(
        files=files,
        network=given.network,
        weights=str(folder / "weights.pth"),
        folder=folder,
        precision=given.precision,
    )
    contenders.write_random_weights(task, folder / "weights.pth")
    for file in files:  # from the page cache for all alike
        Path(file).read_bytes()

    rivals = {name: [] for name in RIVALS if not given.only or name in given.only}
    runs: dict[str, list[dict[str, object]]] = {"ours": [], "ours again": [], **rivals}
    missing: dict[str, str] = {}
    kept: dict[str, NDArray[np.float32]] = {}
    for repeat in range(given.repeats):
        names = [name for name in runs if name not in missing and name != "ours again"]
        for name in names[repeat % len(names) :] + names[: repeat % len(names)]:
            for attempt in ("ours", "ours again") if name == "ours" else (name,):
                home = folder / f"home-{repeat}-{name}"
                answer = start(name, replace(task, folder=folder / f"{attempt}-{repeat}"), home)
                if "missing" in answer:
                    missing[name] = str(answer["missing"])
                    print(f"{name} is not installed: {missing[name]}", file=sys.stderr)
                    continue
                runs[attempt].append(answer)
                print(f"{attempt}: {answer['seconds']:.2f} s", file=sys.stderr)
                if attempt not in kept and answer["features"]:
                    kept[attempt] = np.load(str(answer["features"]))
    precision = str(runs["ours"][0]["precision"])
    limits = start("limits", replace(task, folder=folder / "limits", precision=precision), folder / "home-limits")
    return summary(task, runs, missing, limits, kept)


def start(name: str, task: Task, home: Path) -> dict[str, object]:
    """Run a contender in a process of its own, whose caches of compiled code are in ``home``."""
    task.folder.mkdir()
    for part in ("torch", "inductor", "tmp", "cache"):
        (home / part).mkdir(parents=True, exist_ok=True)
    environment = {
        **os.environ,
        "TORCH_HOME": str(home / "torch"),
        "TORCHINDUCTOR_CACHE_DIR": str(home / "inductor"),
        "TMPDIR": str(home / "tmp"),
        "XDG_CACHE_HOME": str(home / "cache"),
    }
    described = {name: getattr(task, name) for name in ("files", "network", "weights", "precision")}
    written = task.folder / "task.json"
    written.write_text(json.dumps({**described, "folder": str(task.folder)}))
    command = [sys.executable, __file__, "--run", name, str(written)]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    answer: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return answer


def run_contender(name: str, path: str) -> None:
    """Do one timed run in this process, and print what came of it."""
    described = json.loads(Path(path).read_text())
    task = Task(**{**described, "files": tuple(described["files"]), "folder": Path(described["folder"])})
    if name == "limits":
        print(json.dumps(limits_of(task)))
        return
    try:
        job = (contenders.ours if name == "ours" else RIVALS[name])(task)
    except NotInstalledError as exc:
        print(json.dumps({"missing": str(exc)}))
        return
    began = time.perf_counter()
    facts = job()
    seconds = time.perf_counter() - began
    features = task.folder / "features.npy"
    if name == "ours":
        np.save(features, contenders.our_features(task))
    print(json.dumps({"seconds": seconds, "features": str(features), **facts}))


def limits_of(task: Task) -> dict[str, object]:
    """Measure bare decoding and the bare forward, in one thread and in all."""
    cores = torch.get_num_threads()
    rates: dict[str, object] = {"cores": cores, "precision": task.precision}
    for n_threads in sorted({1, cores}, reverse=True):
        rates |= contenders.bare_forward(task, precision=task.precision, n_threads=n_threads)
    return {**rates, **contenders.bare_decoding(task), "device": task.device.type}


def summary(
    task: Task,
    runs: dict[str, list[dict[str, object]]],
    missing: dict[str, str],
    limits: dict[str, object],
    kept: dict[str, NDArray[np.float32]],
) -> dict[str, object]:
    """Return medians, ratios to every rival and to the limit, and how near our features are to the textbook's."""
    n = len(task.files)
    seconds = {name: statistics.median(float(run["seconds"]) for run in done) for name, done in runs.items() if done}
    best: dict[str, float] = {}
    for name, median in seconds.items():
        if not name.startswith("ours"):
            kind = name.split(",")[0]
            best[kind] = min(best.get(kind, np.inf), median)
    forward = max(limits["forward_eager_1"], limits["forward_compiled_1"])
    limit = limits["cores"] / (1 / limits["decode_a_core"] + 1 / forward)
    if limits["device"] != "cpu":
        limit = min(forward, limits["cores"] * limits["decode_a_core"])
    textbook = next((features for name, features in kept.items() if name.startswith("textbook")), None)
    cosine = None if textbook is None else round(lowest_cosine(kept["ours"], textbook), 6)
    if cosine is not None and cosine < SAME_FEATURES:
        print(f"Our features are not those of the textbook loop: a cosine of {cosine}", file=sys.stderr)
    return {
        "network": task.network,
        "n": n,
        "repeats": len(runs["ours"]),
        "device": limits["device"],
        "precision": limits["precision"],
        "images_per_second": {name: round(n / median, 2) for name, median in seconds.items()},
        "all_seconds": {name: [round(float(run["seconds"]), 3) for run in done] for name, done in runs.items() if done},
        "times_faster": {kind: round(median / seconds["ours"], 2) for kind, median in best.items()},
        "times_faster_again": {kind: round(median / seconds["ours again"], 2) for kind, median in best.items()},
        "limits": {name: round(rate, 2) if isinstance(rate, float) else rate for name, rate in limits.items()},
        "limit_images_per_second": round(limit, 2),
        "share_of_limit": round(n / seconds["ours"] / limit, 3),
        "share_of_limit_again": round(n / seconds["ours again"] / limit, 3),
        "lowest_cosine_with_textbook": cosine,
        "same_features": cosine is None or cosine >= SAME_FEATURES,
        "not_installed": missing,
    }


def lowest_cosine(ours: NDArray[np.float32], theirs: NDArray[np.float32]) -> float:
    ours, theirs = ours.astype(np.float64), theirs.astype(np.float64)
    norms = np.linalg.norm(ours, axis=1) * np.linalg.norm(theirs, axis=1)
    return float(((ours * theirs).sum(axis=1) / norms).min())


if __name__ == "__main__":
    main()
