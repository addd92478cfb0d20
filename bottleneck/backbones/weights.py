"""Weights as files: read them, fetch published ones, and load them into a network strictly."""

import hashlib
import http.client
import logging
import re
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from pickle import UnpicklingError
from urllib.parse import urlparse

import torch
from torch import Tensor, nn

from bottleneck.errors import WeightsError, listed

logger = logging.getLogger(__name__)

SUFFIXES = (".safetensors", ".pth", ".pt", ".th", ".bin", ".ckpt", ".tar")
"""Endings by which a string is a path and not the name of published weights."""

TORCH_STARTS = (b"PK\x03\x04", b"\x80")
"""What a file of ``torch.save`` begins with: a zip archive today, a bare pickle before torch 1.6."""

INIT_SEED = 0
"""Random networks are the same ones in every run."""


@dataclass(frozen=True, kw_only=True, slots=True)
class WeightsFile:
    """The content of a weights file; ``versions`` is what torch keeps beside a state_dict to read old ones."""

    path: Path
    tensors: Mapping[str, Tensor]
    metadata: Mapping[str, str] = field(default_factory=dict)
    versions: Mapping[str, object] | None = None


def as_weights_path(weights: str | Path | None) -> Path | None:
    """Return the path, or None for what is not one."""
    if isinstance(weights, str) and (weights.lower().endswith(SUFFIXES) or "/" in weights or "\\" in weights):
        return Path(weights)
    return weights if isinstance(weights, Path) else None


def read_weights(path: Path) -> WeightsFile:
    """Read a safetensors file, or a state_dict saved by torch without running any pickled code.

    Raises
    ------
    WeightsError
        No such file, a damaged file, or a file that holds something else than tensors.
    """
    path = path.expanduser().absolute()
    if not path.is_file():
        raise WeightsError(f"There is no weights file {str(path)!r}.")
    try:
        if path.suffix == ".safetensors":
            return _read_safetensors(path)
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError as exc:  # torch would advise to run whatever code is in there
        _check_is_torch_file(path)
        raise WeightsError(
            f"{str(path)!r} cannot be read as a state_dict: it is damaged or holds other objects than tensors, "
            "which are never loaded because that could run code."
        ) from exc
    # Damaged files raise about everything here, and nothing else runs inside.
    except Exception as exc:
        _check_is_torch_file(path)
        raise WeightsError(
            f"{str(path)!r} cannot be read as {'safetensors' if path.suffix == '.safetensors' else 'a state_dict'}: "
            f"{str(exc).splitlines()[0] if str(exc) else type(exc).__name__}"
        ) from exc
    return _parse_state_dict(path, loaded)


def load_tensors(network: nn.Module, file: WeightsFile, *, ignored: Sequence[str] = ()) -> None:
    """Copy the tensors of a file into a network, every one of them.

    Parameters
    ----------
    network : nn.Module
        Without its classification layer.
    file : WeightsFile
        Other floating types are converted.
    ignored : sequence of str
        Modules that the file may have and the network has not: the classification layer.

    Raises
    ------
    WeightsError
        Missing, unexpected or differently shaped tensors, all of them listed.
    """
    expected = network.state_dict()
    prefixes = tuple(f"{name}." for name in ignored)
    state = OrderedDict((name, tensor) for name, tensor in file.tensors.items() if not name.startswith(prefixes))
    misfits = {
        name: f"{name} is {_described(tensor)}, not {_described(expected[name])}"
        for name, tensor in state.items()
        if name in expected and not _fits(tensor, expected[name])
    }
    for name in misfits:
        del state[name]
    # Modules use this to read what their older versions wrote; MNASNet refuses a state_dict without it.
    state._metadata = file.versions or {"": {"version": network._version}}  # type: ignore[attr-defined]
    try:
        missing, unexpected = network.load_state_dict(state, strict=False)
    except RuntimeError as exc:  # shapes that differ under names that a module translated
        raise WeightsError(f"The weights in {str(file.path)!r} are not for this network: {exc}") from exc
    # Files from before torch 0.4.1 have no such counters, and nothing depends on them.
    missing = [name for name in missing if name not in misfits and not name.endswith("num_batches_tracked")]
    if problems := [
        *(f"missing: {name} {_described(expected[name])}" for name in missing),
        *(f"unexpected: {name}" for name in unexpected),
        *(f"other shape: {misfit}" for misfit in misfits.values()),
    ]:
        n_needed = sum(not name.endswith("num_batches_tracked") for name in expected)
        if len(missing) + len(misfits) == n_needed:
            raise WeightsError(
                f"The weights in {str(file.path)!r} are for another network: none of the {n_needed} tensors of this "
                f"one ({type(network).__name__}) is in there. Name their network as the backbone."
            )
        raise WeightsError(f"The weights in {str(file.path)!r} are not for this network:\n{listed(problems)}")


def fetch(url: str, *, what: str) -> Path:
    """Return the file of published weights in torch hub's cache, downloaded first if it is not there.

    Raises
    ------
    WeightsError
        The download failed, or the file is not the published one.
    """
    path = Path(torch.hub.get_dir()) / "checkpoints" / Path(urlparse(url).path).name
    stated = re.search(r"-([0-9a-f]{8,})\.", path.name)
    prefix = stated[1] if stated else ""
    if not path.is_file():
        logger.info("Downloading %s to %s", url, path)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(url, str(path), prefix)
        except (OSError, RuntimeError, http.client.HTTPException) as exc:
            raise WeightsError(
                f"The weights {what} cannot be downloaded from {url} ({exc}): put the file at {str(path)!r}, "
                "or use weights=PATH of a file that you have, weights=None (random), or backbone='embedded'."
            ) from exc
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if not digest.startswith(prefix):
        raise WeightsError(
            f"{str(path)!r} is not the published file: its SHA-256 starts with {digest[: len(prefix)]}, not {prefix}. "
            "Delete it to download it again."
        )
    return path


@contextmanager
def fixed_seed() -> Iterator[None]:
    """Initialise networks from a fixed seed and leave the caller's random numbers alone, on every device."""
    with torch.random.fork_rng(devices=[]):
        # torch.manual_seed would also seed the accelerators, which fork_rng does not restore here.
        torch.default_generator.manual_seed(INIT_SEED)
        yield


def _check_is_torch_file(path: Path) -> None:
    """Raise for a file that cannot be read and is of another kind altogether: what torch says of it would say nothing.

    Raises
    ------
    WeightsError
        It is neither called safetensors nor begins like a file that torch wrote.
    """
    with path.open("rb") as file:
        start = file.read(4)
    if path.suffix != ".safetensors" and start and not start.startswith(TORCH_STARTS):
        raise WeightsError(
            f"{str(path)!r} cannot be read as weights: it is neither a safetensors nor a torch file. "
            "Name a .safetensors file or a .pth state_dict."
        )


def _read_safetensors(path: Path) -> WeightsFile:
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
        return WeightsFile(path=path, tensors=tensors, metadata=file.metadata() or {})


def _parse_state_dict(path: Path, loaded: object) -> WeightsFile:
    state = loaded
    for wrapper in ("state_dict", "model"):
        if isinstance(state, Mapping) and isinstance(state.get(wrapper), Mapping):
            state = state[wrapper]
    named_tensors = isinstance(state, Mapping) and all(
        isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in state.items()
    )
    if not isinstance(state, Mapping) or not named_tensors or not state:
        raise WeightsError(f"{str(path)!r} holds no state_dict: a mapping of names to tensors was expected.")
    if all(name.startswith("module.") for name in state):  # saved from nn.DataParallel
        return WeightsFile(path=path, tensors={name.removeprefix("module."): state[name] for name in state})
    return WeightsFile(path=path, tensors=state, versions=getattr(state, "_metadata", None))


def _fits(given: Tensor, expected: Tensor) -> bool:
    return given.shape == expected.shape and given.is_floating_point() == expected.is_floating_point()


def _described(tensor: Tensor) -> str:
    return f"{tuple(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}"
