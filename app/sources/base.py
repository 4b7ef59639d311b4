"""What a source is, and how a body is received under its bounds."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, Protocol

from app.errors import OriginalTooLarge, ServiceError
from transforms.errors import TransformError
from transforms.formats import SNIFFED_BYTES
from transforms.inspect import peek
from transforms.limits import Limits

_PEEKED: Final = 64 * 1024
"""After so many bytes a header that has not told its size is left to libvips."""


@dataclass(frozen=True, slots=True)
class Ref:
    """Which original is meant: the kind of its source, and its id or URL there."""

    kind: str
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """An original at one moment: its version changes whenever its bytes do. Size in bytes.

    `validators` are the headers with which `validators_of`, a URL, is asked for changes. `body` is
    set where finding the version meant downloading the original. `doubt` is why this is only what
    was known last: its source has not told what there is now.
    """

    ref: Ref
    version: str
    size: int
    modified: datetime | None = None
    validators: tuple[tuple[str, str], ...] = ()
    validators_of: str = ""
    body: bytes | None = field(default=None, compare=False, repr=False)
    doubt: ServiceError | None = field(default=None, compare=False, repr=False)


class Source(Protocol):
    """Finds originals and fetches them.

    Both methods may raise OriginalMissing, SourceRefused, SourceFailed, SourceTimeout, and
    StoreMisconfigured.
    """

    async def identify(self, name: str, known: Identity | None) -> Identity:
        """Ask for the version that there is now. `known` is what it was when last asked."""

    async def fetch(self, identity: Identity) -> bytes:
        """Download that version whole, or raise OriginalChanged.

        Raises OriginalTooLarge, and what `receive` raises.
        """

    async def fetch_start(self, identity: Identity, size: int) -> bytes:
        """Download at least its first `size` bytes, or all of it."""


async def receive(chunks: AsyncIterator[bytes], *, cap: int, limits: Limits) -> bytes:
    """Collect a body of at most `cap` bytes, and stop at the first sign that it is of no use.

    The first bytes tell the format and mostly the size in pixels, so that what would be refused is
    not downloaded to its end. Raises OriginalTooLarge, BrokenImage, UnsupportedFormat and
    SourceTooLarge.
    """
    parts: list[bytes] = []
    received = 0
    head = b""
    undecided = True
    async for chunk in chunks:
        received += len(chunk)
        if received > cap:
            raise OriginalTooLarge(f"The original has more than {cap} bytes")
        parts.append(chunk)
        if undecided:
            head += chunk
            undecided = _undecided(head, limits)
    if not head or undecided:
        peek(head)  # a body too short to be looked at above
    return b"".join(parts)


def _undecided(head: bytes, limits: Limits) -> bool:
    """Whether more bytes could still tell something."""
    try:
        _, size = peek(head[:_PEEKED])
    except TransformError:
        if len(head) < SNIFFED_BYTES:
            return True  # the rest of what tells the format is yet to come
        raise
    if size is not None:
        limits.check_size(size)
    return size is None and len(head) < _PEEKED
