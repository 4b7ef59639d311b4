"""Files beneath a folder in the order of their keys, from any key on.

The order of keys is not that of folders: `a-b` stands before `a/b`, though the folder `a` stands
before the file `a-b`. So a folder takes its place by its name with the slash that follows it in
keys. One folder is open at a time, however deep the files lie; the names of the folders on the way
are held.
"""

from __future__ import annotations

import errno
import os
import re
import stat as file_modes
import time
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, Self

from app.stores.base import can_begin_key, is_key

TEMPORARY: Final = ".pixelmill-"
"""How the names of files begin that are being written. Sixteen hexadecimal digits follow."""
_TEMPORARY_NAME: Final = re.compile(re.escape(TEMPORARY.encode()) + rb"[0-9a-f]{16}")

_KEPT: Final = range(1000, 1_000_001)
"""How many names are worth keeping, and not too many to."""
_SETTLED: Final = 2_000_000_000
"""Nanoseconds after which a change shows in a folder's time, on any file system (FAT's are 2 s)."""

_ABSENT: Final = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)

OpenFolder = Callable[[list[str]], int]
"""Opens a folder beneath the root, by its segments. Raises OSError where there is none."""
Found = tuple[str, os.stat_result]


class KeptNames:
    """The names in the large folder that was read last, for the next page of its listing.

    They hold as long as the folder's time of change does. One that changed just before it was read
    is not kept: its time might be the same after the next change.
    """

    def __init__(self) -> None:
        self._kept: tuple[_State, list[bytes]] | None = None

    def read(self, open_folder: OpenFolder, base: bytes) -> list[bytes]:
        """The names of the files in a folder, and those of its folders with a slash, in order."""
        folder = _open(open_folder, base)
        if folder is None:
            return []
        try:
            now = time.time_ns()
            state = _State.of(os.fstat(folder))
            kept = self._kept
            if kept is not None and kept[0] == state:
                return kept[1]
            names = sorted(_read_names(folder))
            if len(names) in _KEPT and state.changed_at < now - _SETTLED:
                self._kept = (state, names)
            return names
        finally:
            os.close(folder)

    def forget(self) -> None:
        """Let go of them: a listing has come to its end."""
        self._kept = None


def list_files(
    open_folder: OpenFolder, *, prefix: str, after: str, limit: int, kept: KeptNames
) -> list[Found]:
    """The first files whose keys begin with the prefix and stand after `after`, with what they are.

    Only folders are read in which such a file may lie. Links are not followed; what is no file, or
    has a name that is no key, is passed over, as is what goes away meanwhile.
    """

    def open_level(base: bytes) -> _Level:
        names = kept.read(open_folder, base)
        return _Level(base, names, prefix=prefix.encode(), after=after.encode())

    found: list[Found] = []
    levels = [open_level(_folder_of(prefix))]
    while levels and len(found) < limit:
        level = levels[-1]
        name = level.upcoming
        if name is None:
            levels.pop()
        elif name.endswith(b"/"):
            level.pass_over()
            inner = level.base + name
            if can_begin_key(os.fsdecode(inner)):
                levels.append(open_level(inner))
        else:
            found += _look_at(open_folder, level.base, level.take_files(limit - len(found)))
    if len(found) < limit:
        kept.forget()
    return found


@dataclass(frozen=True, slots=True)
class _State:
    """Which folder, and when it last changed, in ns of the Unix epoch."""

    device: int
    inode: int
    changed_at: int

    @classmethod
    def of(cls, look: os.stat_result) -> Self:
        return cls(look.st_dev, look.st_ino, look.st_mtime_ns)


class _Level:
    """A folder on the way, and which of its names are still to come.

    Names that are wanted stand side by side, so that they are not looked at one by one.
    """

    __slots__ = ("_at", "_end", "_names", "base")

    def __init__(self, base: bytes, names: list[bytes], *, prefix: bytes, after: bytes) -> None:
        self.base = base
        self._names = names
        begins = prefix[len(base) :]  # empty in folders within the prefix
        self._at = max(bisect_left(names, begins), self._first_after(after))
        self._end = bisect_left(
            names, 1, lo=self._at, key=lambda name: int(not name.startswith(begins))
        )

    @property
    def upcoming(self) -> bytes | None:
        """The next name, if there is one."""
        return self._names[self._at] if self._at < self._end else None

    def pass_over(self) -> None:
        """Go on to the name after the next."""
        self._at += 1

    def take_files(self, most: int) -> list[bytes]:
        """The next names, up to a folder."""
        taken: list[bytes] = []
        while len(taken) < most and (name := self.upcoming) and not name.endswith(b"/"):
            taken.append(name)
            self.pass_over()
        return taken

    def _first_after(self, after: bytes) -> int:
        """Where names begin that stand behind `after`, or are of the folder that it is in."""
        if not after.startswith(self.base):
            return 0 if self.base > after else len(self._names)
        first, slash, _ = after[len(self.base) :].partition(b"/")
        return (
            bisect_left(self._names, first + slash) if slash else bisect_right(self._names, first)
        )


def _folder_of(prefix: str) -> bytes:
    """The folder in which everything lies that begins with this."""
    folder, slash, _ = prefix.rpartition("/")
    return (folder + slash).encode()


def _read_names(folder: int) -> Iterator[bytes]:
    with os.scandir(folder) as entries:
        for entry in entries:
            name = os.fsencode(entry.name)
            if entry.is_dir(follow_symlinks=False):
                yield name + b"/"
            elif not _TEMPORARY_NAME.fullmatch(name):
                yield name


def _look_at(open_folder: OpenFolder, base: bytes, names: list[bytes]) -> Iterator[Found]:
    folder = _open(open_folder, base)
    if folder is None:
        return
    try:
        for name in names:
            key = os.fsdecode(base + name)
            if not is_key(key):
                continue
            with suppress(FileNotFoundError):
                look = os.stat(name, dir_fd=folder, follow_symlinks=False)
                if file_modes.S_ISREG(look.st_mode):
                    yield key, look
    finally:
        os.close(folder)


def _open(open_folder: OpenFolder, base: bytes) -> int | None:
    """A descriptor of the folder, or None where there is none, or a file or a link by now."""
    try:
        return open_folder(os.fsdecode(base).split("/")[:-1])
    except OSError as error:
        if error.errno in _ABSENT:
            return None
        raise
