"""Conditional writes on S3: `If-None-Match: *` on a PUT, and whether a provider keeps to it.

AWS answers 412 where there is an object, and 409 where another request is about to change that
(https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-writes.html). Others refuse the
header, or pass over it and overwrite, which only trying tells.
"""

from __future__ import annotations

import asyncio
import random
import secrets
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final, Protocol

import structlog

from app.errors import OriginalChanged, ServiceError, StoreMisconfigured
from app.flights import Flights
from app.stores.base import Stat
from app.stores.s3faults import Conflicting, Unimplemented

log = structlog.get_logger(__name__)

_RANDOM: Final = random.SystemRandom()
_PROBE: Final = ".pixelmill/probe-"
_PROBE_TYPE: Final = "application/octet-stream"
_TRIES: Final = 4
_FIRST_PAUSE: Final = 0.1
"""Seconds before a write is tried again that met another one. The next pauses are doubled."""


class ConditionalStore(Protocol):
    """A store that can be asked to write on a condition, whether it keeps to it or not."""

    async def put_where_none_is(self, key: str, data: bytes, content_type: str) -> Stat:
        """Write where there is no object. Raises OriginalChanged and Conflicting."""

    async def write(self, key: str, data: bytes, *, content_type: str) -> Stat:
        """Write in any case."""

    async def delete(self, key: str) -> None:
        """Remove an object."""


class Conditions:
    """Whether a provider keeps conditions, which it is asked once."""

    def __init__(self, store: ConditionalStore) -> None:
        self._store = store
        self._kept: bool | None = None
        self._asking: Flights[str, bool] = Flights()

    async def are_kept(self) -> bool:
        """Ask, unless that is known. Raises what a write does, and then asks anew the next time."""
        if self._kept is not None:
            return self._kept
        return await self._asking.join(_PROBE, self._probe)

    async def _probe(self) -> bool:
        # Two who tried the same key would see each other's object, or its removal.
        key = f"{_PROBE}{secrets.token_hex(8)}"
        try:
            kept = await self._try_twice(key)
        finally:
            with suppress(ServiceError):
                await self._store.delete(key)
        if not kept:
            log.warning("conditional_writes_unavailable")
        self._kept = kept
        return kept

    async def _try_twice(self, key: str) -> bool:
        """Whether the second of two equal writes is refused."""
        try:
            await self._store.put_where_none_is(key, b"1", _PROBE_TYPE)
        except OriginalChanged:
            return True  # the client's own second attempt, after an answer that was lost
        except (Unimplemented, StoreMisconfigured):
            # It may refuse everything: then this raises, and nothing is known.
            await self._store.write(key, b"1", content_type=_PROBE_TYPE)
            return False
        try:
            await self._store.put_where_none_is(key, b"2", _PROBE_TYPE)
        except (OriginalChanged, Conflicting):
            return True
        return False


async def put_new(put: Callable[[], Awaitable[Stat]]) -> Stat | None:
    """Write on a condition, again where another write is met. None where there is an object."""
    for attempt in range(_TRIES):
        try:
            return await put()
        except OriginalChanged:
            return None
        except Conflicting:
            if attempt < _TRIES - 1:
                await asyncio.sleep(_FIRST_PAUSE * 2**attempt * _RANDOM.uniform(0.5, 1.5))
    return None  # whoever it is that always comes between is writing it
