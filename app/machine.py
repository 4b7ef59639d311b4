"""What this machine, or this container, lets the process use.

`os.cpu_count()` sees the host. A container's share is in its cgroup, so both are asked and the
least holds.
"""

from __future__ import annotations

import ctypes
import os
from contextlib import suppress
from pathlib import Path
from typing import Final

_M_ARENA_MAX: Final = -8  # malloc.h
_ROOT: Final = Path("/sys/fs/cgroup")
_OWN: Final = Path("/proc/self/cgroup")
_MEMINFO: Final = Path("/proc/meminfo")


def processors(root: Path = _ROOT, own: Path = _OWN) -> int:
    """How many processors may be used: the affinity and every cgroup quota, at least 1."""
    try:
        count = float(len(os.sched_getaffinity(0)))
    except AttributeError:  # not on every system
        count = float(os.cpu_count() or 1)
    for folder in _cgroups(root, own):
        quota = _quota(folder)
        if quota is not None:
            count = min(count, quota)
    return max(1, round(count))


def memory(root: Path = _ROOT, own: Path = _OWN, meminfo: Path = _MEMINFO) -> int:
    """How many bytes of memory may be used: the least of the cgroup limits and what there is."""
    limits = [limit for folder in _cgroups(root, own) if (limit := _memory_limit(folder))]
    try:
        total = int(meminfo.read_text().split("MemTotal:", 1)[1].split()[0]) * 1024
    except (OSError, IndexError, ValueError):
        total = 4 << 30
    return min([total, *limits])


def bound_arenas() -> None:
    """Have glibc's malloc use two arenas: with one for each thread, freed pixels pile up in them.

    Another allocator, or another libc, has no such knob and needs none.
    """
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 2)


def _cgroups(root: Path, own: Path) -> list[Path]:
    """The folders whose limits hold: that of the process's cgroup and those above it."""
    folders = [root, root / "cpu", root / "memory"]
    try:
        lines = own.read_text().splitlines()
    except OSError:
        return folders
    for line in lines:
        _, controllers, path = line.split(":", 2)
        base = root / controllers if controllers else root
        here = base / path.lstrip("/")
        while here != base and base in here.parents:
            folders.append(here)
            here = here.parent
    return folders


def _quota(folder: Path) -> float | None:
    """Processors by quota: cgroup v2's `cpu.max`, or v1's pair of files."""
    try:
        quota, period = (folder / "cpu.max").read_text().split()
    except (OSError, ValueError):
        try:
            quota = (folder / "cpu.cfs_quota_us").read_text().strip()
            period = (folder / "cpu.cfs_period_us").read_text().strip()
        except OSError:
            return None
    if quota == "max" or int(quota) <= 0 or int(period) <= 0:
        return None
    return int(quota) / int(period)


def _memory_limit(folder: Path) -> int | None:
    for name in ("memory.max", "memory.limit_in_bytes"):
        try:
            text = (folder / name).read_text().strip()
        except OSError:
            continue
        if text.isdigit() and int(text) < 1 << 60:  # v1 writes a huge number for "no limit"
            return int(text)
    return None
