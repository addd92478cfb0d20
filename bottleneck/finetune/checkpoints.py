"""The last checkpoint of a run of trainings in a folder, so that the run goes on after whatever stopped it.

``NAME.json`` says how far the run is and what it is a run of; ``NAME-a.safetensors`` or ``NAME-b.safetensors`` holds
the tensors, and the JSON says which, with its SHA-256. A checkpoint is written beside the one before it, and becomes
the last one when the JSON is replaced. NAME is a hash of everything that the trained weights depend on. Version 1.
"""

import hashlib
import json
import math
import os
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save_file
from torch import Tensor

from bottleneck.cache.files import PARTIAL, fresh_sha256_of, sync_folder, write_whole
from bottleneck.errors import CacheWarning, UnreadableImagesError

FORMAT = "bottleneck-checkpoint"
VERSION = 1

LEAST_SECONDS = 30.0
"""Between two checkpoints: what a run that is killed has to do again."""

WRITES_APART = 50
"""And so many times what it takes to write one, so that a run spends at most 2 % of its time on them."""

WRITES_BEFORE_END = 10
"""No checkpoint is begun unless so many would fit before the deadline: a busy disk may be as much slower."""

BYTES_A_SECOND = 100e6
"""How fast the first one is expected to be written: what a hard disk or a network does."""

NAME_CHARACTERS = 16
ANY_NAME = "?" * NAME_CHARACTERS + ".json"
UNDER_WAY = "under way"
OF = ": "
"""Between the name of a part and that of a tensor in it."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Snapshot:
    """A training, or a finished part of a run, as plain values (what JSON can say) and tensors by name."""

    facts: Mapping[str, Any]
    tensors: Mapping[str, Tensor] = field(default_factory=dict)


class Checkpoints:
    """The finished parts of a run and the training that is under way, as far as they are on the disk.

    Without a checkpoint there, or with one that is damaged, a run begins anew.

    Parameters
    ----------
    folder : Path
        Made when the first checkpoint is written. Checkpoints of several runs may lie there.
    identify : callable returning a dict of str to str
        Says everything that the trained weights depend on, each in plain words or as a hash. Called when it is first
        needed, because it reads every image.
    clock : callable returning seconds
    writes : bool
        Whether this process writes; of several that train together only one does, and all read.

    Attributes
    ----------
    parts : dict of str to Snapshot
        The finished parts.
    training : Snapshot or None
        The training that was under way, until it goes on.
    history : list of dict
        Records of the epochs up to the checkpoint that was found.
    has_written : bool
        Whether there is a checkpoint of this run.
    went_on_from : str
        Where the run was when it was found, in words; empty if it was not.
    """

    def __init__(
        self,
        folder: Path,
        identify: Callable[[], Mapping[str, str]],
        *,
        clock: Callable[[], float] = time.monotonic,
        writes: bool = True,
    ) -> None:
        self.folder = folder
        self.writes = writes
        self.parts: dict[str, Snapshot] = {}
        self.training: Snapshot | None = None
        self.history: list[dict[str, Any]] = []
        self.has_written = False
        self.went_on_from = ""
        self._identify = identify
        self._clock = clock
        self._write_seconds: float | None = None
        self._has_failed = False
        if any(folder.glob(ANY_NAME)):
            self._read()
        self._last = clock()

    @cached_property
    def identity(self) -> dict[str, str]:
        """Everything that the trained weights depend on."""
        return dict(self._identify())

    @property
    def path(self) -> Path:
        """The JSON of the last checkpoint."""
        name = hashlib.sha256(json.dumps(self.identity, sort_keys=True).encode()).hexdigest()[:NAME_CHARACTERS]
        return self.folder / f"{name}.json"

    def is_due(self, n_bytes: int, *, seconds_left: float = math.inf) -> bool:
        """Say whether it is time for another checkpoint, of about ``n_bytes``, and worth it so near to the end."""
        seconds = n_bytes / BYTES_A_SECOND if self._write_seconds is None else self._write_seconds
        is_time = self._clock() - self._last >= max(LEAST_SECONDS, WRITES_APART * seconds)
        return self.writes and is_time and seconds_left >= WRITES_BEFORE_END * seconds

    def prepare(self) -> None:
        """Find out the identity of the run before its time is shared out: that reads every image."""
        if self.writes:
            try:
                _ = self.identity
            except UnreadableImagesError as exc:  # decoded into memory before, and gone now
                self._give_up(exc)

    def take_up(self, stage: str) -> Snapshot | None:
        """Return the training that was under way, once, if that is the one of this ``stage``."""
        snapshot = self.training
        if snapshot is None or snapshot.facts["stage"] != stage:
            return None
        self.training = None
        return snapshot

    def finish(self, finished: Mapping[str, Snapshot], *, history: list[dict[str, Any]]) -> None:
        """Take in what finished parts of the run gave, and write them if the run is long enough for checkpoints."""
        self.parts.update(finished)
        if self.has_written or self.is_due(0):
            self.write(None, history=history)

    def write(self, training: Snapshot | None, *, history: list[dict[str, Any]]) -> None:
        """Write the finished parts and the training under way.

        A folder that cannot be written costs a warning, not the training.
        """
        if not self.writes:
            return
        snapshots = self.parts if training is None else {**self.parts, UNDER_WAY: training}
        try:
            described = {
                "format": FORMAT,
                "version": VERSION,
                "identity": self.identity,
                "history": history,
                "snapshots": {name: dict(snapshot.facts) for name, snapshot in snapshots.items()},
            }
            began = self._clock()
            write_checkpoint(self.path, described, named_tensors(snapshots))
            self.has_written = True
            if training is not None:  # parts are smaller, and tell little of how long a training takes
                self._write_seconds = self._clock() - began
        except OSError as exc:
            self._warn_once(exc.strerror or str(exc))
        except UnreadableImagesError as exc:
            self._give_up(exc)
        self._last = self._clock()

    def _give_up(self, exc: UnreadableImagesError) -> None:
        self._warn_once(str(exc))
        self.writes = False

    def _warn_once(self, reason: str) -> None:
        if not self._has_failed:
            warnings.warn(
                f"No checkpoint can be written in {self.folder}: {reason.rstrip('.')}. The training goes on; stopped "
                "now, it would not go on from here.",
                CacheWarning,
                stacklevel=4,
            )
        self._has_failed = True

    def _read(self) -> None:
        """Take up the run that is in the folder, if all of it is as it was written."""
        if not self.path.exists():
            warnings.warn(
                f"{self.folder} has checkpoints of another training ({self._differences()}). This one begins anew; "
                "they stay.",
                CacheWarning,
                stacklevel=2,
            )
            return
        try:
            described = read_description(self.path)
            snapshots = read_snapshots(self.path, described)
            if described["identity"] != self.identity:
                raise ValueError("it is one of another training")
        except (OSError, ValueError) as exc:
            warnings.warn(
                f"The checkpoint {self.path} cannot be used: {exc}. The training begins anew.",
                CacheWarning,
                stacklevel=2,
            )
            return
        self.training = snapshots.pop(UNDER_WAY, None)
        self.parts, self.history, self.has_written = snapshots, described["history"], True
        where = "what was finished" if self.training is None else "step {step} of {stage}".format(**self.training.facts)
        self.went_on_from = where

    def _differences(self) -> str:
        """Say in what the most similar run in the folder is another."""
        differences = ["its checkpoint is damaged"]
        for path in self.folder.glob(ANY_NAME):
            try:
                other = read_description(path)["identity"]
            except (OSError, ValueError):
                continue
            found = [f"other {name}" for name, value in self.identity.items() if other.get(name) != value]
            differences = min(differences, found, key=len) if differences[0].startswith("other") else found
        return ", ".join(differences)


def named_tensors(snapshots: Mapping[str, Snapshot]) -> dict[str, Tensor]:
    """Return copies of all tensors in memory of their own, as safetensors wants them, by part and name."""
    return {
        f"{part}{OF}{name}": tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        for part, snapshot in snapshots.items()
        for name, tensor in snapshot.tensors.items()
    }


def write_checkpoint(path: Path, described: Mapping[str, Any], tensors: dict[str, Tensor]) -> None:
    """Make this the last checkpoint: the one before it stays until this one is on the disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    slots = [path.with_name(f"{path.stem}-{slot}.safetensors") for slot in "ab"]
    try:
        last = read_description(path)["tensors"]
    except (OSError, ValueError):
        last = slots[1].name
    target, old = slots if last == slots[1].name else slots[::-1]
    partial = target.with_name(f"{target.name}{PARTIAL}")
    try:
        save_file(tensors, partial)
        with partial.open("rb+", buffering=0) as file:
            os.fsync(file.fileno())
            digest = fresh_sha256_of(file)
        partial.replace(target)
    except SafetensorError as exc:  # this is how it says that the disk is full
        raise OSError(str(exc)) from exc
    finally:
        partial.unlink(missing_ok=True)
    sync_folder(path.parent)
    whole = {**described, "tensors": target.name, "sha256": digest}
    write_whole(path, json.dumps({**whole, "checksum": checksum_of(whole)}, indent=1).encode())
    old.unlink(missing_ok=True)


def read_description(path: Path) -> dict[str, Any]:
    """Return what the JSON of a checkpoint says.

    Raises
    ------
    OSError
        It cannot be read.
    ValueError
        It is damaged, of another version, or something else.
    """
    try:
        described = json.loads(path.read_bytes())
    except RecursionError as exc:
        raise ValueError("it is not JSON") from exc
    if not isinstance(described, dict) or described.get("format") != FORMAT:
        raise ValueError("it is no checkpoint of this library")
    if described.get("version") != VERSION:
        raise ValueError(f"it has version {described.get('version')!r} of the format, and this library reads {VERSION}")
    if described.pop("checksum", None) != checksum_of(described):
        raise ValueError("its checksum is another than when it was written")
    return described


def checksum_of(described: Mapping[str, Any]) -> str:
    """Return the SHA-256 of a description, whatever its white space."""
    return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()


def read_snapshots(path: Path, described: Mapping[str, Any]) -> dict[str, Snapshot]:
    """Return the snapshots of a checkpoint whose JSON is at ``path``.

    Raises
    ------
    OSError
        The tensors cannot be read.
    ValueError
        They are not what was written.
    """
    tensors_path = path.with_name(described["tensors"])
    content = tensors_path.read_bytes()
    if hashlib.sha256(content).hexdigest() != described["sha256"]:
        raise ValueError(f"{tensors_path.name} has another checksum than when it was written")
    tensors: dict[str, dict[str, Tensor]] = {part: {} for part in described["snapshots"]}
    for full_name, tensor in load(content).items():
        part, _, name = full_name.partition(OF)
        tensors[part][name] = tensor
    return {name: Snapshot(facts=facts, tensors=tensors[name]) for name, facts in described["snapshots"].items()}
