"""How much memory this process may still take: of the machine, and of the container that it runs in."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

SHARE_OF_ALL = 0.5
"""Share of all memory that is taken for available where the system does not say (macOS, BSD)."""
SMALLEST_MACHINE = 4 * 2**30
"""Bytes that are taken for available where not even all memory is known (Windows): half of what laptops have."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _ControlFiles:
    """Where a version of Linux control groups keeps limit and use, and what of the use gives way when asked to."""

    mount: str
    limit: str
    usage: str
    reclaimable: frozenset[str]


_V1 = _ControlFiles(
    mount="sys/fs/cgroup/memory",
    limit="memory.limit_in_bytes",
    usage="memory.usage_in_bytes",
    reclaimable=frozenset({"total_inactive_file", "total_active_file"}),
)
_V2 = _ControlFiles(
    mount="sys/fs/cgroup",
    limit="memory.max",
    usage="memory.current",
    reclaimable=frozenset({"inactive_file", "active_file"}),
)


def available_memory(root: Path = Path("/")) -> int:
    """Return the bytes that can be had without swapping, and within every limit on this process's control groups.

    Files that the system merely remembers (the page cache) count as available, because they give way. Where the
    system does not say what is available it is half of all memory, or 4 GiB where that is not known either.

    Parameters
    ----------
    root
        The folder that holds ``proc`` and ``sys``.
    """
    return min([_of_machine(root), *_of_control_groups(root)])


def resident_memory(root: Path = Path("/")) -> int | None:
    """Return the bytes that this process has in memory now, None where the system does not say (only Linux does)."""
    return _status(root, "VmRSS:")


def peak_memory(root: Path = Path("/")) -> int | None:
    """Return the most bytes that this process ever had in memory, None where the system does not say."""
    return _status(root, "VmHWM:")


def _status(root: Path, name: str) -> int | None:
    lines = _read(root / "proc/self/status").splitlines()
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith(name)), None)


def _of_machine(root: Path) -> int:
    for line in _read(root / "proc/meminfo").splitlines():
        if line.startswith("MemAvailable:"):
            return 1024 * int(line.split()[1])
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        return int(SHARE_OF_ALL * os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    return SMALLEST_MACHINE


def _of_control_groups(root: Path) -> Iterator[int]:
    """Yield what is left of each limit: of this process's own control group, and of those that it is part of."""
    for line in _read(root / "proc/self/cgroup").splitlines():
        hierarchy, controllers, group = line.split(":", 2)
        if hierarchy != "0" and "memory" not in controllers.split(","):
            continue
        files = _V2 if hierarchy == "0" else _V1
        # Seen from inside a container the group may be named as outside it; its files are those of the mount then.
        for part in (PurePosixPath(group), *PurePosixPath(group).parents):
            left = _left_of(root / files.mount / part.relative_to("/"), files)
            if left is not None:
                yield left


def _left_of(folder: Path, files: _ControlFiles) -> int | None:
    """Return the bytes left to one control group, None without a limit."""
    limit, usage = _read(folder / files.limit).strip(), _read(folder / files.usage).strip()
    if not limit.isdecimal() or not usage.isdecimal():  # "max", or no such group
        return None
    figures = (line.split() for line in _read(folder / "memory.stat").splitlines())
    reclaimable = sum(int(n_bytes) for name, n_bytes in figures if name in files.reclaimable)
    return max(0, int(limit) - int(usage) + reclaimable)


def _read(path: Path) -> str:
    """Return the text of a file that the system may or may not offer, empty if it does not."""
    try:
        return path.read_text()
    except OSError:
        return ""
