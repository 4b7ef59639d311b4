"""A folder as an object store.

Keys become paths beneath the root, opened segment by segment without following links, so that no
key and no link planted in the folder leads out of it. Writes are atomic: a temporary file beside
the target, flushed to disk, then renamed over it.
"""

from __future__ import annotations

import asyncio
import errno
import os
import secrets
import shutil
import stat as file_modes
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, TypeVar

from app.errors import (
    KeyConflict,
    OriginalChanged,
    OriginalMissing,
    SourceFailed,
    StoreMisconfigured,
)
from app.stores.base import CHUNK, Reading, Stat, can_begin_key
from app.stores.folders import TEMPORARY, KeptNames, list_files

T = TypeVar("T")
Placing = Callable[[str, str, int], None]
"""Gives a temporary file its name. Both are in one folder, a descriptor of which comes last."""
_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# Opening a FIFO that somebody put there must not block.
_FILE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_CONFLICTS: Final = (errno.ENOTDIR, errno.EISDIR, errno.ELOOP)
_NO_FOLDER: Final = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG)
_ABSENT: Final = (errno.ENOENT, errno.ENAMETOOLONG, errno.ENXIO, *_CONFLICTS)
_NO_LINKS: Final = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)
"""What file systems say that know no second name of a file, as FAT and some network mounts do."""
_TRIES: Final = 20
"""How often a write begins anew whose folder somebody removed meanwhile, for being empty."""


class FileStore:
    """Objects as files beneath a root folder, which is created when it is missing.

    A root that is `required` is not created: where it is missing, as a mount may be, the store is
    misconfigured, and not empty.
    """

    def __init__(self, root: Path, *, required: bool = False) -> None:
        self._root = root.absolute()
        self._required = required
        self._names = KeptNames()

    async def stat(self, key: str) -> Stat:
        def look() -> Stat:
            descriptor = self._open(key)
            try:
                return _stat(key, os.fstat(descriptor))
            finally:
                os.close(descriptor)

        return await _in_thread(look, key)

    @asynccontextmanager
    async def read(
        self,
        key: str,
        *,
        version: str | None = None,
        start: int = 0,
        stop: int | None = None,
        piece: int = CHUNK,
    ) -> AsyncIterator[Reading]:
        most = piece if stop is None else min(piece, max(0, stop - start))
        descriptor, first = await self._open_later(key, start, most)
        try:
            found = _stat(key, os.fstat(descriptor))
            if version is not None and found.version != version:
                raise OriginalChanged(f"{key} was replaced")
            end = found.size if stop is None else min(stop, found.size)
            yield Reading(
                stat=found, chunks=_chunks(descriptor, key, range(start, end), first, piece)
            )
        finally:
            os.close(descriptor)

    async def write(self, key: str, data: bytes, *, content_type: str) -> Stat:
        del content_type  # a file has none: the bytes tell it
        return await _in_thread(lambda: self._write(key, data, _replace), key, conflict=True)

    async def create(self, key: str, data: bytes, *, content_type: str) -> Stat | None:
        del content_type

        def attempt() -> Stat | None:
            with suppress(OriginalMissing, OSError):
                os.close(self._open(key))
                return None
            try:
                return self._write(key, data, _place_where_none_is)
            except FileExistsError:
                return None

        return await _in_thread(attempt, key, conflict=True)

    async def conditional(self) -> bool:
        return True

    async def delete(self, key: str) -> None:
        def remove() -> None:
            *folders, name = key.split("/")
            folder = self._walk(folders)
            try:
                os.unlink(name, dir_fd=folder)
            finally:
                os.close(folder)
            self._remove_empty(folders)

        with suppress(OriginalMissing):
            await _in_thread(remove, key)

    async def delete_prefix(self, prefix: str) -> int:
        def remove() -> int:
            *folders, name = prefix.split("/")
            folder = self._walk(folders)
            try:
                inner = os.open(name, _FOLDER, dir_fd=folder)
                try:
                    count = sum(len(files) for _, _, files, _ in os.fwalk(dir_fd=inner))
                finally:
                    os.close(inner)
                _remove_tree(name, folder)
            finally:
                os.close(folder)
            self._remove_empty(folders)
            return count

        try:
            return await _in_thread(remove, prefix)
        except OriginalMissing:
            return 0

    async def list_page(
        self, prefix: str = "", *, after: str = "", limit: int = 1000
    ) -> list[Stat]:
        if not can_begin_key(prefix):
            return []
        found = await _in_thread(
            lambda: list_files(
                self._walk, prefix=prefix, after=after, limit=limit, kept=self._names
            ),
            prefix,
        )
        return [_stat(key, look) for key, look in found]

    async def probe(self) -> None:
        def attempt() -> None:
            if not self._required:
                self._make_root()
            self._check_root()
            if not os.access(self._root, os.R_OK | os.W_OK | os.X_OK):
                raise StoreMisconfigured(f"The folder {self._root} cannot be read and written")

        await asyncio.to_thread(attempt)

    async def check(self) -> None:
        """Raise StoreMisconfigured, with the folder's name, where it cannot be read from."""
        await asyncio.to_thread(self._check_root)

    async def close(self) -> None:
        return None

    def _walk(self, folders: list[str], *, create: bool = False) -> int:
        """A descriptor of a folder beneath the root."""
        if create and not self._required:
            self._make_root()
        here = self._open_root()
        for name in folders:
            try:
                if create:
                    with suppress(FileExistsError):
                        os.mkdir(name, 0o755, dir_fd=here)
                inner = os.open(name, _FOLDER, dir_fd=here)
            finally:
                os.close(here)
            here = inner
        return here

    def _open_root(self) -> int:
        try:
            return os.open(self._root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            if self._required and error.errno in _NO_FOLDER:
                # Clients are told this: where the folder should be is not for them.
                raise StoreMisconfigured(
                    f"The folder of the store cannot be used: {error.strerror}"
                ) from None
            raise

    def _check_root(self) -> None:
        try:
            os.close(os.open(self._root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
        except OSError as error:
            raise self._unusable(error) from None
        if not os.access(self._root, os.X_OK):
            raise StoreMisconfigured(f"The folder {self._root} cannot be read")

    def _make_root(self) -> None:
        try:
            self._root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise self._unusable(error) from None

    def _unusable(self, error: OSError) -> StoreMisconfigured:
        return StoreMisconfigured(f"The folder {self._root} cannot be used: {error.strerror}")

    def _remove_empty(self, folders: list[str]) -> None:
        """Remove folders that hold nothing any more: their names are free for originals again."""
        for depth in range(len(folders), 0, -1):
            try:
                above = self._walk(folders[: depth - 1])
            except OSError:
                return
            try:
                os.rmdir(folders[depth - 1], dir_fd=above)
            except OSError:
                return  # something is in it
            finally:
                os.close(above)

    async def _open_later(self, key: str, start: int, most: int) -> tuple[int, bytes]:
        """Open a file and read its first bytes, in one thread.

        Whoever leaves meanwhile leaves no descriptor behind.
        """

        def begin() -> tuple[int, bytes]:
            descriptor = self._open(key)
            try:
                there = max(0, os.fstat(descriptor).st_size - start)
                return descriptor, os.pread(descriptor, min(most, there), start)
            except BaseException:
                os.close(descriptor)
                raise

        opening = asyncio.ensure_future(_in_thread(begin, key))
        try:
            return await asyncio.shield(opening)
        except asyncio.CancelledError:
            opening.add_done_callback(_close_opened)
            raise

    def _open(self, key: str) -> int:
        *folders, name = key.split("/")
        folder = self._walk(folders)
        try:
            descriptor = os.open(name, _FILE, dir_fd=folder)
        finally:
            os.close(folder)
        if not file_modes.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise OriginalMissing(f"There is no original {key!r}")
        return descriptor

    def _write(self, key: str, data: bytes, place: Placing) -> Stat:
        for _ in range(_TRIES):
            with suppress(FileNotFoundError):
                return self._write_once(key, data, place)
        return self._write_once(key, data, place)

    def _write_once(self, key: str, data: bytes, place: Placing) -> Stat:
        *folders, name = key.split("/")
        folder = self._walk(folders, create=True)
        temporary = f"{TEMPORARY}{secrets.token_hex(8)}"
        try:
            descriptor = os.open(
                temporary,
                os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC,
                0o644,
                dir_fd=folder,
            )
            try:
                with os.fdopen(descriptor, "wb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
                    written = os.fstat(file.fileno())
                place(temporary, name, folder)
            except BaseException:
                with suppress(FileNotFoundError):
                    os.unlink(temporary, dir_fd=folder)
                raise
            os.fsync(folder)
        finally:
            os.close(folder)
        return _stat(key, written)


def _replace(temporary: str, name: str, folder: int) -> None:
    os.replace(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)


def _place_where_none_is(temporary: str, name: str, folder: int) -> None:
    """Raises FileExistsError where a file has the name, IsADirectoryError where something else has.

    A link is made or is not, whoever else makes one at the same time.
    """
    try:
        os.link(temporary, name, src_dir_fd=folder, dst_dir_fd=folder, follow_symlinks=False)
    except FileExistsError:
        if not file_modes.S_ISREG(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
            raise IsADirectoryError(errno.EISDIR, "no file", name) from None
        raise
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        # Here a look has come before, and what came meanwhile is replaced, but whole.
        _replace(temporary, name, folder)
    else:
        os.unlink(temporary, dir_fd=folder)


def _stat(key: str, found: os.stat_result) -> Stat:
    # A rename gives a new inode: two writes within one tick of the clock still differ.
    return Stat(
        key=key,
        version=f"{found.st_mtime_ns:x}-{found.st_ino:x}-{found.st_size:x}",
        size=found.st_size,
        modified=datetime.fromtimestamp(found.st_mtime, UTC),
    )


def _remove_tree(name: str, folder: int) -> None:
    """Remove a folder and all in it, though somebody may be writing into it meanwhile."""
    for attempt in range(1, _TRIES + 1):
        try:
            shutil.rmtree(name, dir_fd=folder)
        except OSError as error:
            if error.errno != errno.ENOTEMPTY or attempt == _TRIES:
                raise
        else:
            return


def _close_opened(opening: asyncio.Future[tuple[int, bytes]]) -> None:
    if not opening.cancelled() and opening.exception() is None:
        descriptor, _ = opening.result()
        os.close(descriptor)


async def _chunks(
    descriptor: int, key: str, part: range, first: bytes, piece: int
) -> AsyncIterator[bytes]:
    """The bytes of a part, the first of which have been read."""
    at, end = part.start, part.stop
    chunk = first[: len(part)]
    while at < end:
        if not chunk:
            raise SourceFailed(f"{key} became shorter while it was read")
        at += len(chunk)
        yield chunk
        if at < end:
            try:
                chunk = await asyncio.to_thread(os.pread, descriptor, min(piece, end - at), at)
            except OSError as error:
                raise SourceFailed(f"The file system failed: {error.strerror}") from None


async def _in_thread(work: Callable[[], T], key: str, *, conflict: bool = False) -> T:
    """Run file work off the event loop, with its errors translated.

    A key that runs through a file or a link names nothing; to write it is a conflict.
    """
    try:
        return await asyncio.to_thread(work)
    except PermissionError:
        raise StoreMisconfigured("The folder of the store does not permit this") from None
    except OSError as error:
        if error.errno in _CONFLICTS and conflict:
            raise KeyConflict(
                f"{key!r} cannot be kept: a part of it is a file, a folder or a link"
            ) from None
        if error.errno in _ABSENT:
            raise OriginalMissing(f"There is no original {key!r}") from None
        raise SourceFailed(f"The file system failed: {error.strerror}") from None
