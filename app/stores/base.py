"""What an object store is, and which keys it takes."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Protocol

from app.errors import InvalidRequest

CHUNK: Final = 256 * 1024
"""Bytes read at a time: as many are held for each reader that is slow."""

MAX_KEY: Final = 1024
MAX_SEGMENT: Final = 255
_CONTROLS: Final = re.compile(r"[\x00-\x1f\x7f]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Stat:
    """One object: its version changes whenever its bytes do. Size in bytes."""

    key: str
    version: str
    size: int
    modified: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """An object being read: its stat, and its bytes (or those of the range) in chunks."""

    stat: Stat
    chunks: AsyncIterator[bytes]


class ObjectStore(Protocol):
    """Bytes under keys.

    Every method may raise SourceFailed, SourceTimeout or StoreMisconfigured. Keys have passed
    `check_key`.
    """

    async def stat(self, key: str) -> Stat:
        """Look an object up. Raises OriginalMissing."""

    def read(
        self,
        key: str,
        *,
        version: str | None = None,
        start: int = 0,
        stop: int | None = None,
        piece: int = CHUNK,
    ) -> AbstractAsyncContextManager[Reading]:
        """Open an object, or its bytes from `start` up to but without `stop`.

        They come in chunks of at most `piece` bytes. Raises OriginalMissing, and OriginalChanged
        where it no longer has the given version. A body that ends early raises SourceFailed: what
        came before must not be used.
        """

    async def write(self, key: str, data: bytes, *, content_type: str) -> Stat:
        """Keep an object whole, or not at all. Raises KeyConflict."""

    async def create(self, key: str, data: bytes, *, content_type: str) -> Stat | None:
        """Keep an object whole where there is none yet. Nothing is overwritten.

        None where there is one already, or another is coming to be at this moment. Of several at
        once one has its way, wherever they run, if the store is `conditional`; else one that comes
        between a look and the write is overwritten. Raises KeyConflict.
        """

    async def conditional(self) -> bool:
        """Whether `create` is one step to the store, and not a look with a write after it."""

    async def delete(self, key: str) -> None:
        """Remove an object. It is no error when there is none."""

    async def delete_prefix(self, prefix: str) -> int:
        """Remove every object under `prefix/`. Returns how many there were."""

    async def list_page(
        self, prefix: str = "", *, after: str = "", limit: int = 1000
    ) -> list[Stat]:
        """The objects whose keys begin with `prefix`, the next ones after the key `after`.

        The prefix is any text and may end within a segment. A page with fewer than `limit` objects
        is the last. Where each page is asked for with the last key of the one before, every object
        that is there all the while comes exactly once. The order is that of the keys' UTF-8 bytes,
        which is S3's; an implementation of S3 that keeps another one (SeaweedFS sorts folder by
        folder) is listed in its own.
        """

    async def probe(self) -> None:
        """Raise StoreMisconfigured where the store cannot be used as it is configured."""

    async def close(self) -> None:
        """Let go of connections."""


def check_key(key: str, *, param: str = "id") -> str:
    """Return a key that every store takes, or raise InvalidRequest that names what is wrong.

    The rule is the one on which file systems and S3 implementations agree.
    """
    problem = None
    try:
        size = len(key.encode())
    except UnicodeEncodeError:
        raise InvalidRequest(f"{param} is not valid UTF-8", param=param) from None
    segments = key.split("/")
    if not key:
        problem = "is empty"
    elif size > MAX_KEY:
        problem = f"has more than {MAX_KEY} bytes"
    elif "" in segments:
        problem = "has an empty segment, or begins or ends with /"
    elif "." in segments or ".." in segments:
        problem = "has a segment . or .."
    elif _CONTROLS.search(key):
        problem = "has a control character"
    elif "\\" in key:
        problem = "has a backslash"
    elif size > MAX_SEGMENT and any(len(s.encode()) > MAX_SEGMENT for s in segments):
        problem = f"has a segment of more than {MAX_SEGMENT} bytes"
    if problem:
        raise InvalidRequest(f"{param} {problem}", param=param)
    return key


def is_key(text: str) -> bool:
    """Whether `check_key` takes this."""
    try:
        check_key(text)
    except InvalidRequest:
        return False
    return True


def can_begin_key(prefix: str) -> bool:
    """Whether any key begins with this: it is one, or becomes one by a letter more."""
    return is_key(prefix) or is_key(f"{prefix}x")
