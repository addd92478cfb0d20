"""A fit that was stopped while it fine-tuned: where its checkpoints are, and what had been decided when it began.

They lie in ``checkpoints/KEY`` in the cache folder, and are removed when the fit is over. KEY is a hash of everything
that the caller gave but the time budget; what the planner made of it, from rates that it measured, is in
``begun.json`` beside them, and stays as it was.
"""

import hashlib
import json
import logging
import shutil
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from bottleneck.backbones import Backbone
from bottleneck.cache.files import write_whole
from bottleneck.features.keyed import KeyedRows
from bottleneck.finetune import FineTuneSettings
from bottleneck.finetune.checkpoints import checksum_of
from bottleneck.finetune.identity import digest

if TYPE_CHECKING:
    from bottleneck.estimators.run import Run

FOLDER = "checkpoints"
BEGUN = "begun.json"
VERSION = 2
"""Of what is noted there. In 1 steps were those of each training; now they are those of the delivered network."""
STALE_SECONDS = 30 * 24 * 3600
"""A fit that was stopped so long ago is not taken up any more; its folder goes when another one begins."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Begun:
    """What was decided when fine-tuning began: all settings, and the number of threads that torch computes with."""

    settings: FineTuneSettings
    threads: int


def checkpoint_folder(run: "Run", backbone: Backbone) -> Path:
    """Return where the checkpoints of a run that trains this backbone are, if it was stopped, or would be."""
    keyed = KeyedRows(
        source=run.source, rows=np.arange(len(run.source)), cache=run.cache, workers=run.extractor.workers
    )
    keyed.resolve()
    classes, codes = np.unique(run.labels, return_inverse=True)
    facts = {
        "images": digest(keyed.keys),
        "labels": [repr(classes.tolist()), digest(codes)],
        "sample weights": None if run.sample_weight is None else digest(run.sample_weight),
        "groups": None if run.groups is None else digest(run.groups),
        "backbone": [backbone.weights_digest, repr(backbone.preprocess)],
        "head": repr(run.head),
        "settings": repr(run.settings),
        "risk": run.budget.risk,
        "precision": run.precision,
        "seed": run.seed,
        "torch": torch.__version__,
    }
    key = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]
    return run.cache.cache_dir / FOLDER / key


def begin(folder: Path, planned: Begun) -> Begun:
    """Return what a stopped fit had decided; where there was none, note what is decided now and return that."""
    remove_stale(folder.parent)
    found = read_begun(folder / BEGUN)
    if found is not None:
        return found
    described = {"version": VERSION, "settings": asdict(planned.settings), "threads": planned.threads}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(described | {"checksum": checksum_of(described)}, indent=1)
        write_whole(folder / BEGUN, text.encode())
    except (OSError, TypeError) as exc:  # what JSON cannot say is only found again if the plan is the same
        logger.info("%s is not written: %s", folder / BEGUN, exc)
    return planned


def read_begun(path: Path) -> Begun | None:
    """Return what ``begin`` wrote, or None if that is missing, damaged or of another version."""
    try:
        described: dict[str, Any] = json.loads(path.read_bytes())
        if described.pop("checksum") != checksum_of(described) or described["version"] != VERSION:
            return None
        settings: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in described["settings"].items()
        }
        return Begun(settings=FineTuneSettings(**settings), threads=described["threads"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as exc:
        logger.debug("%s is not used: %s", path, exc)
        return None


def finish(folder: Path) -> None:
    """Remove the checkpoints of a fit that is over."""
    shutil.rmtree(folder, ignore_errors=True)


def remove_stale(folders: Path) -> None:
    """Remove what fits left there that were stopped long ago and never taken up again."""
    for folder in folders.iterdir() if folders.is_dir() else ():
        try:
            newest = max(path.stat().st_mtime for path in (folder, *folder.iterdir()))
        except OSError as exc:  # another process is removing it
            logger.debug("%s stays: %s", folder, exc)
            continue
        if time.time() - newest > STALE_SECONDS:
            finish(folder)
