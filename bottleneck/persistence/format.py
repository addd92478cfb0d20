"""The folder of a saved classifier: which files it has, and how they are checked.

``model.json`` describes everything and holds the SHA-256 of itself and of the other files; ``head.safetensors`` holds
what the head learned, ``backbone.safetensors`` the weights of a tuned or included backbone. Version 1.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

from bottleneck.errors import ModelFileError

FORMAT = "bottleneck-classifier"
VERSION = 1
DESCRIPTION = "model.json"
HEAD = "head.safetensors"
BACKBONE = "backbone.safetensors"
FILES = (DESCRIPTION, HEAD, BACKBONE)


def checksum(content: bytes) -> str:
    """Return the SHA-256 of a file's content in hex."""
    return hashlib.sha256(content).hexdigest()


def description_checksum(described: dict[str, Any]) -> str:
    """Return the checksum of a description, whatever its white space, without the checksum it carries."""
    rest = {name: value for name, value in described.items() if name != "checksum"}
    return checksum(json.dumps(rest, sort_keys=True).encode())


def read_description(folder: Path) -> dict[str, Any]:
    """Return what ``model.json`` says.

    Raises
    ------
    ModelFileError
        There is no such folder, what it holds is no description of a classifier, or a newer version of the library
        wrote it.
    """
    path = folder / DESCRIPTION
    if folder.is_file():
        likely = folder.parent if folder.name in FILES else folder.with_suffix("")
        hint = f", such as {likely}" if (likely / DESCRIPTION).is_file() else ""
        raise ModelFileError(f"{folder} is a file. Name the folder of the classifier{hint}.")
    try:
        described = json.loads(path.read_bytes())
    except FileNotFoundError as exc:
        if not folder.exists():
            raise ModelFileError(f"There is no folder {folder}. Name one that `bottleneck fit --out` wrote.") from exc
        raise ModelFileError(f"{folder} is not a saved classifier: it has no {DESCRIPTION}.") from exc
    except OSError as exc:
        raise ModelFileError(f"{path} cannot be read: {exc.strerror}.") from exc
    except (ValueError, RecursionError) as exc:
        raise ModelFileError(f"{path} is damaged: it is not JSON.") from exc
    if not isinstance(described, dict) or described.get("format") != FORMAT:
        raise ModelFileError(f"{path} does not describe a classifier saved by this library.")
    if described.get("version") != VERSION:
        raise ModelFileError(
            f"{path} has version {described.get('version')!r} of the format, and this library reads version {VERSION}. "
            "Install the version of bottleneck-features that wrote it, or a newer one."
        )
    if described.get("checksum") != description_checksum(described):
        raise ModelFileError(f"{path} was changed after it was written: its checksum is another. Save it again.")
    if not isinstance(described.get("files"), dict):
        raise ModelFileError(f"{path} is damaged: it lists no files. Save the classifier again.")
    return described


def read_checked(folder: Path, name: str, described: dict[str, Any]) -> bytes:
    """Return the content of one file of the folder.

    Raises
    ------
    ModelFileError
        The file is missing, or is not what was written.
    """
    path = folder / name
    try:
        content = path.read_bytes()
    except OSError as exc:
        raise ModelFileError(f"{path} cannot be read: {exc.strerror}. Save the classifier again.") from exc
    if described["files"].get(name) != checksum(content):
        raise ModelFileError(
            f"{path} is damaged: {DESCRIPTION} has another checksum for it. Save the classifier again."
        )
    return content
