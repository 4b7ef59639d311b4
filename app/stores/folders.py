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
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import Final

from app.stores.base import can_begin_key, is_key

TEMPORARY: Final = ".pixelmill-"
"""How the names of files begin that are being written. Sixteen hexadecimal digits follow."""
_TEMPORARY_NAME: Final = re.compile(re.escape(TEMPORARY.encode()) + rb"[0-9a-f]{16}")

_ABSENT: Final = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)

OpenFolder = Callable[[list[str]], int]
"""Opens a folder beneath the root, by its segments. Raises OSError where there is none."""
Found = tuple[str, os.stat_result]


def list_files(open_folder: OpenFolder, *, prefix: str, after: str, limit: int) -> list[Found]:
    """The first files whose keys begin with the prefix and stand after `after`, with what they are.

    Only folders are read in which such a file may lie. Links are not followed; what is no file, or
    has a name that is no key, is passed over, as is what goes away meanwhile.
    """
    found: list[Found] = []
    levels = [_Level(open_folder, _folder_of(prefix), prefix=prefix.encode(), after=after.encode())]
    while levels and len(found) < limit:
        level = levels[-1]
        if not level.names:
            levels.pop()
        elif level.names[-1].endswith(b"/"):
            inner = level.base + level.names.pop()
            if can_begin_key(os.fsdecode(inner)):
                levels.append(_Level(open_folder, inner, prefix=level.prefix, after=level.after))
        else:
            found += _look_at(open_folder, level.base, level.take_files(limit - len(found)))
    return found


class _Level:
    """A folder on the way, and the names in it that are still to come, the next one last."""

    __slots__ = ("after", "base", "names", "prefix")

    def __init__(
        self, open_folder: OpenFolder, base: bytes, *, prefix: bytes, after: bytes
    ) -> None:
        self.base = base
        self.prefix = prefix
        self.after = after
        self.names = sorted(self._wanted(_read_names(open_folder, base)), reverse=True)

    def take_files(self, most: int) -> list[bytes]:
        """The next names, up to a folder."""
        taken: list[bytes] = []
        while len(taken) < most and self.names and not self.names[-1].endswith(b"/"):
            taken.append(self.names.pop())
        return taken

    def _wanted(self, names: Iterable[bytes]) -> Iterator[bytes]:
        for name in names:
            key = self.base + name
            if key.startswith(self.prefix):
                within = True
            else:
                within = name.endswith(b"/") and self.prefix.startswith(key)
            # Every key in a folder begins with the folder's: it lies before `after` as a whole, or
            # behind it, or `after` is in it.
            if within and (
                key > self.after or (name.endswith(b"/") and self.after.startswith(key))
            ):
                yield name


def _folder_of(prefix: str) -> bytes:
    """The folder in which everything lies that begins with this."""
    folder, slash, _ = prefix.rpartition("/")
    return (folder + slash).encode()


def _read_names(open_folder: OpenFolder, base: bytes) -> Iterator[bytes]:
    """The names of the files in a folder, and those of its folders with a slash."""
    folder = _open(open_folder, base)
    if folder is None:
        return
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                name = os.fsencode(entry.name)
                if entry.is_dir(follow_symlinks=False):
                    yield name + b"/"
                elif not _TEMPORARY_NAME.fullmatch(name):
                    yield name
    finally:
        os.close(folder)


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
