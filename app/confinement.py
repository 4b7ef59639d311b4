"""Confinement of a process that decodes what nobody vouches for: Landlock, seccomp, limits.

None of it needs privileges, and a kernel that lacks a part leaves the others standing. `confine`
is for the process that forks, `seal` for each one forked from it.
"""

from __future__ import annotations

import ctypes
import math
import os
import platform
import resource
import struct
import sys
import sysconfig
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

# include/uapi/linux/prctl.h and landlock.h
_PDEATHSIG, _DUMPABLE, _ASK_SECCOMP, _SECCOMP, _NO_NEW_PRIVS = 1, 4, 21, 22, 38
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_ASK_VERSION: Final = 1
_PATH_BENEATH: Final = 1
_READ_FILE, _READ_DIR = 1 << 2, 1 << 3
_NETWORK_ABI: Final = 4
_SIGKILL: Final = 9

_FONTS: Final = (
    "/etc/fonts",
    "/usr/share/fontconfig",
    "/usr/share/fonts",
    "/usr/local/share/fonts",
    "/var/cache/fontconfig",
)
_LIBRARIES: Final = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib")
_OPEN_FILES: Final = 64
_NICENESS: Final = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Confinement:
    """What could be applied. `landlock` is the version of its interface, 0 where there is none."""

    landlock: int = 0
    network: bool = False
    system_calls: bool = False
    limits: bool = False


def readable() -> tuple[Path, ...]:
    """The folders that the interpreter, its libraries and fontconfig read: nothing of a user's."""
    paths = sysconfig.get_paths()
    names = [paths[key] for key in ("stdlib", "platstdlib", "purelib", "platlib")]
    if "FONTCONFIG_PATH" in os.environ:
        names.append(os.environ["FONTCONFIG_PATH"])
    return tuple({Path(name): None for name in [*names, *_LIBRARIES, *_FONTS]})


def confine(*, memory: int, read: Iterable[Path]) -> Confinement:
    """Confine this process and all that are forked from it, for ever.

    It may read below `read` and nowhere else, write nowhere, connect and listen to no TCP port,
    and take `memory` bytes of address space more than it has. Files already open stay usable.
    """
    _limit_resources(memory)
    version, network = 0, False
    system_calls = False
    if sys.platform == "linux":
        _prctl(_NO_NEW_PRIVS, 1)
        _prctl(_DUMPABLE, 0)
        version = _restrict_files(read)
        network = version >= _NETWORK_ABI
        system_calls = platform.machine() in _MACHINES and _prctl(_ASK_SECCOMP, 0) >= 0
    return Confinement(landlock=version, network=network, system_calls=system_calls, limits=True)


def die_with_parent() -> None:
    """Have the kernel kill this process when the one that started it is gone."""
    if sys.platform == "linux":
        _prctl(_PDEATHSIG, _SIGKILL)


def seal(*, seconds: float) -> None:
    """Confine a forked process further: no new process, program or socket, a limit on CPU time.

    Where processors are short, it has about a third of the share that others have.
    """
    os.nice(_NICENESS)
    limit = math.ceil(seconds) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (limit, limit))
    if sys.platform == "linux":
        die_with_parent()
        _filter_system_calls()


def _limit_resources(memory: int) -> None:
    limits = {
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_FSIZE: 0,
        resource.RLIMIT_NOFILE: _OPEN_FILES,
    }
    taken = _address_space()
    if taken:
        limits[resource.RLIMIT_AS] = taken + memory
    for kind, value in limits.items():
        _, hard = resource.getrlimit(kind)
        limit = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(kind, (limit, limit))


def _address_space() -> int:
    """The bytes of address space that this process has, or 0 where that is not told."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
    except (OSError, ValueError):
        return 0
    return pages * resource.getpagesize()


def _prctl(option: int, value: int) -> int:
    return int(_libc().prctl(option, value, 0, 0, 0))


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _restrict_files(read: Iterable[Path]) -> int:
    """Apply Landlock. Returns its version, or 0 where the kernel lacks it."""
    call = _libc().syscall
    call.restype = ctypes.c_long
    version = int(call(_CREATE_RULESET, None, 0, _ASK_VERSION))
    if version < 1:
        return 0
    # Each version of the interface added rights; asking for one that is unknown is an error.
    files = (1 << 13) - 1
    files |= (version >= 2) << 13 | (version >= 3) << 14 | (version >= 5) << 15
    network, scoped = (3 if version >= _NETWORK_ABI else 0), (3 if version >= 6 else 0)
    size = 24 if version >= 6 else 16 if version >= _NETWORK_ABI else 8
    attributes = struct.pack("=QQQ", files, network, scoped)[:size]
    rules = int(call(_CREATE_RULESET, attributes, size, 0))
    if rules < 0:
        return 0
    try:
        for path in read:
            _allow_reading(call, rules, path)
        return version if call(_RESTRICT_SELF, rules, 0) == 0 else 0
    finally:
        os.close(rules)


def _allow_reading(call: Callable[..., int], rules: int, path: Path) -> None:
    try:
        handle = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return  # what is not there needs no rule
    try:
        rights = _READ_FILE | _READ_DIR if path.is_dir() else _READ_FILE
        call(_ADD_RULE, rules, _PATH_BENEATH, struct.pack("=Qi", rights, handle), 0)
    finally:
        os.close(handle)


# seccomp: include/uapi/linux/{filter,seccomp,audit}.h. Numbers by machine: the AUDIT_ARCH value,
# clone, clone3, and the calls that are refused: sockets, programs, signals, other processes'
# memory, namespaces, keys, and the large and rarely needed parts of the kernel.
_MACHINES: Final = {
    "x86_64": (
        0xC000003E,
        56,
        435,
        (
            *(41, 42, 43, 49, 50, 288),  # socket connect accept bind listen accept4
            *(57, 58, 59, 322),  # fork vfork execve execveat
            *(62, 129, 200, 234, 297, 424),  # kill rt_sigqueueinfo tkill tgkill ... pidfd
            *(101, 310, 311, 434, 438),  # ptrace process_vm_* pidfd_open pidfd_getfd
            *(165, 166, 155, 161, 272, 308),  # mount umount2 pivot_root chroot unshare setns
            *(248, 249, 250),  # add_key request_key keyctl
            *(298, 321, 323, 425, 426, 427),  # perf_event_open bpf userfaultfd io_uring_*
        ),
    ),
    "aarch64": (
        0xC00000B7,
        220,
        435,
        (
            *(198, 203, 202, 200, 201, 242),
            *(221, 281),
            *(129, 138, 130, 131, 240, 424),
            *(117, 270, 271, 434, 438),
            *(40, 39, 41, 51, 97, 268),
            *(217, 218, 219),
            *(241, 280, 282, 425, 426, 427),
        ),
    ),
}
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_AT_NUMBER, _AT_MACHINE, _AT_FIRST_ARGUMENT = 0, 4, 16
_ALLOW, _REFUSE = 0x7FFF0000, 0x00050000
_EPERM, _ENOSYS = 1, 38
_X32: Final = 0x40000000
_THREAD: Final = 0x10000
_FILTER: Final = 2


def _filter_system_calls() -> None:
    """Refuse the calls that no decoder needs. Threads stay possible: libvips starts them."""
    if platform.machine() not in _MACHINES:
        return
    machine, clone, clone3, refused = _MACHINES[platform.machine()]
    tests = [(_EQUAL, number) for number in refused]
    if machine == _MACHINES["x86_64"][0]:
        tests.append((_AT_LEAST, _X32))
    # The ends of the program, counted from its last instruction.
    program = [
        (_LOAD, 0, 0, _AT_MACHINE),
        (_EQUAL, 1, 0, machine),
        (_RETURN, 0, 0, _REFUSE | _EPERM),
        (_LOAD, 0, 0, _AT_NUMBER),
        # Without clone3, whose flags no filter can see, the C library falls back to clone.
        (_EQUAL, 0, 1, clone3),
        (_RETURN, 0, 0, _REFUSE | _ENOSYS),
        (_EQUAL, 0, 4, clone),
        (_LOAD, 0, 0, _AT_FIRST_ARGUMENT),
        (_ANY_BIT, 0, 1, _THREAD),
        (_RETURN, 0, 0, _ALLOW),
        (_RETURN, 0, 0, _REFUSE | _EPERM),
    ]
    for left, (test, value) in zip(range(len(tests), 0, -1), tests, strict=True):
        program.append((test, left, 0, value))
    program += [(_RETURN, 0, 0, _ALLOW), (_RETURN, 0, 0, _REFUSE | _EPERM)]
    code = b"".join(struct.pack("=HBBI", *instruction) for instruction in program)
    buffer = ctypes.create_string_buffer(code, len(code))
    header = struct.pack("@HP", len(program), ctypes.addressof(buffer))
    _libc().prctl(_SECCOMP, _FILTER, ctypes.c_char_p(header), 0, 0)
