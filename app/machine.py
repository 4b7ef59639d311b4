"""What this machine, or this container, lets the process use.

`os.cpu_count()` sees the host. A container's share is in its cgroup, so both are asked and the
least holds.
"""

from __future__ import annotations

import ctypes
import gc
import os
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import Final

# malloc.h
_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3
_M_ARENA_MAX: Final = -8

_KEPT: Final = 64 << 20
"""Free bytes at the end of an arena that stay in the process for the next render's pixels."""
_MAPPED_FROM: Final = 32 << 20
"""Blocks from this many bytes have their own pages, which go with them."""
_NICENESS: Final = 10
"""A third of the share of a thread without it; see sched(7)."""
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


def tune_allocator() -> None:
    """Fit glibc's malloc to pixels, which come and go by the megabyte.

    Two arenas: with one for each thread, freed pixels pile up in them. And pages stay for the next
    render, where they would be given back after each and faulted in anew, which takes 5 to 10 % of
    a render's processor time. Another allocator, or another libc, has no such knobs.
    """
    with suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_ARENA_MAX, 2)
        mallopt(_M_TRIM_THRESHOLD, _KEPT)
        mallopt(_M_MMAP_THRESHOLD, _MAPPED_FROM)


def keep_what_is_there() -> None:
    """Have the garbage collector never look again at what there is now.

    Modules, routes and models are 10^5 objects that never go. Looking at all of them takes some
    80 ms, in which no other thread runs Python: every request of that moment would wait.
    """
    gc.collect()
    gc.freeze()


def yield_to_others() -> None:
    """Let the other threads of this process go before the one that calls, where the system can.

    Renders keep all processors busy. The event loop needs little, but at once: it else waits for
    the end of their time slices, several milliseconds for a refusal that takes less than one. What
    other containers get is decided by their groups, not by this.
    """
    if sys.platform == "linux":  # elsewhere a priority is a process's
        with suppress(OSError):
            thread = threading.get_native_id()
            own = os.getpriority(os.PRIO_PROCESS, thread)
            os.setpriority(os.PRIO_PROCESS, thread, own + _NICENESS)


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
