"""Folders of saved classifiers as an attacker or a bad disk would leave them. Seeded: number i is always the same."""

import json
import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np

from bottleneck.persistence.format import BACKBONE, DESCRIPTION, HEAD, checksum, description_checksum

Files = dict[str, bytes]

NASTY: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2**31, 10**30, -(10**30), 0.5, 1e308, float("nan"), float("inf"), "", "nan",
    "x" * 5000, "../../../etc/passwd", "/dev/zero", "/proc/self/mem", "\0", "\ud800", "a/b\\c.pth", "float64",
    "<U999999999", "|V99999", "<M8[s]", "O", "timm:", "timm:no_such_network", "resnet5O", "rbf", "bfloat17",
    [], {}, [[]], [None], [1, 2], ["stage1"], ["penultimate"] * 3, [10**9, 10**9], {"": None}, [0.0] * 3, [1e-300] * 3,
)  # fmt: skip
"""Where one of these takes the place of a value, a checksum that fits is written too."""

HEADER_SHAPES: tuple[list[int], ...] = ([], [0], [2**40, 2**40], [-1], [1], [10**18], [3, 5], [2**63])
HEADER_DTYPES = ("F16", "BF16", "F32", "F64", "I64", "U8", "BOOL", "C64", "X99", "F8_E4M3")


class Bomb:
    """Pickled, it ends the process that loads it."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return exec, ("raise SystemExit('code in the folder was run')",)


def mutate(files: Files, others: Files, number: int) -> Files:
    """Return the files of a saved classifier with one to three things wrong; ``others`` are those of another one."""
    random = np.random.RandomState(number)
    mutated = dict(files)
    kinds = (flip, truncate, swap, replace_whole, change_description, change_description, change_header)
    for _ in range(random.choice([1, 1, 1, 2, 3])):
        mutated = kinds[random.randint(len(kinds))](mutated, others, random)
    return mutated


def write(files: Files, folder: Path) -> None:
    """Write the files in place of those in the folder."""
    for path in folder.iterdir():
        path.unlink()
    for name, content in files.items():
        (folder / name).write_bytes(content)


def flip(files: Files, others: Files, random: np.random.RandomState) -> Files:
    """Change a few bits, and sign the change half of the time."""
    name = any_name(files, random)
    content = bytearray(files[name])
    for _ in range(random.randint(1, 5) if content else 0):
        content[random.randint(len(content))] ^= 1 << random.randint(8)
    changed = {**files, name: bytes(content)}
    return signed(changed) if random.randint(2) else changed


def truncate(files: Files, others: Files, random: np.random.RandomState) -> Files:
    """Cut a file off, or append to it."""
    name = any_name(files, random)
    content = files[name]
    cut = content[: random.randint(len(content) + 1)] if random.randint(3) else content + random.bytes(40)
    return signed({**files, name: cut})


def swap(files: Files, others: Files, random: np.random.RandomState) -> Files:
    """Put another file in the place of one: of the same folder, or of another classifier."""
    name = any_name(files, random)
    source = (files, others)[random.randint(2)]
    return signed({**files, name: source[any_name(source, random)]})


def replace_whole(files: Files, others: Files, random: np.random.RandomState) -> Files:
    """Put a pickle, nothing, or JSON that is no description in the place of a file, or remove it."""
    name = any_name(files, random)
    content = (pickle.dumps(Bomb()), b"", b"null", b"[" * 100_000, b"9" * 5000, b"{}", None)[random.randint(7)]
    rest = {other: files[other] for other in files if other != name}
    return signed(rest if content is None else {**rest, name: content})


def change_description(files: Files, others: Files, random: np.random.RandomState) -> Files:
    """Put something nasty in the place of a value of ``model.json``, or remove it, with a checksum that fits."""
    try:
        described = json.loads(files[DESCRIPTION])
    except (KeyError, ValueError, RecursionError):
        return files
    if not isinstance(described, dict) or not described:
        return files
    # A section first: most places are in the plan.
    section = sorted(described)[random.randint(len(described))]
    places = [(described, section), *walk(described[section])]
    owner, key = places[random.randint(len(places))]
    if random.randint(6) == 0:
        del owner[key]
    else:
        owner[key] = NASTY[random.randint(len(NASTY))]
    return signed({**files, DESCRIPTION: json.dumps(described).encode()})


def change_header(files: Files, others: Files, random: np.random.RandomState) -> Files:
    """Lie about the shape, type, place or name of a tensor, with a checksum that fits."""
    name = (HEAD, BACKBONE)[random.randint(2)]
    try:
        (length,) = struct.unpack("<Q", files[name][:8])
        header = json.loads(files[name][8 : 8 + length])
        tensors = sorted(header)
        tensor = header[tensors[random.randint(len(tensors))]]
        match random.randint(5):
            case 0:
                tensor["shape"] = HEADER_SHAPES[random.randint(len(HEADER_SHAPES))]
            case 1:
                tensor["dtype"] = HEADER_DTYPES[random.randint(len(HEADER_DTYPES))]
            case 2:
                tensor["data_offsets"] = [[0, 10**12], [8, 0], [-8, 8], [0, 0]][random.randint(4)]
            case 3:
                header["../../evil"] = header.pop(tensors[0])
            case 4:
                tensor["shape"] = tensor["shape"][::-1]
    except (KeyError, ValueError, TypeError, IndexError, struct.error, RecursionError):
        return files
    body = json.dumps(header).encode()
    return signed({**files, name: struct.pack("<Q", len(body)) + body + files[name][8 + length :]})


def signed(files: Files) -> Files:
    """Return the files with the checksums that they have now, as whoever changes them on purpose would write."""
    try:
        described = json.loads(files[DESCRIPTION])
        described["files"] = {
            name: checksum(files[name]) if name in files else stated for name, stated in described["files"].items()
        }
        described["checksum"] = description_checksum(described)
        return {**files, DESCRIPTION: json.dumps(described).encode()}
    except (KeyError, ValueError, TypeError, AttributeError, RecursionError):
        return files


def walk(tree: Any) -> Any:
    """Yield every place in a tree of JSON, as its owner and its key there."""
    for key in list(tree) if isinstance(tree, dict) else range(len(tree)) if isinstance(tree, list) else ():
        yield tree, key
        yield from walk(tree[key])


def any_name(files: Files, random: np.random.RandomState) -> str:
    """Return the name of one of the files; an empty folder has an empty description."""
    files.setdefault(DESCRIPTION, b"")
    names = sorted(files)
    return names[random.randint(len(names))]
