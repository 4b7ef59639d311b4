"""Claims: what is dear to render is rendered by one replica, though several are asked for it.

Whoever writes a claim beside the results renders; the others wait for the result, and hold no
processor meanwhile. A claim is advice: where its owner is gone, or the store fails, everybody
renders for himself, which costs time and nothing else.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from typing import Final

import structlog

from app.cache import Rendered
from app.errors import OriginalMissing, ServiceError
from app.keys import Keyed
from app.results import StoredTier, prefix_of
from app.stores.base import ObjectStore
from app.telemetry import Timings

log = structlog.get_logger(__name__)

_LOOK_EVERY: Final = 0.1
_CLOSE_TIMEOUT: Final = 5.0
_SLOW: Final = 2.0
"""Seconds after which a store is slower than to render."""
_PATIENCE: Final = (2.0, 10.0)
"""Seconds to wait for another replica: three times the estimate, within these bounds."""


class RenderedElsewhere(Exception):
    """Another replica has made the result while this one was about to."""

    def __init__(self, rendered: Rendered) -> None:
        super().__init__(rendered.key)
        self.rendered = rendered


class Claims:
    """Claims on renders that take at least `from_seconds`, by estimate."""

    def __init__(
        self, store: ObjectStore | None, stored_tier: StoredTier, *, from_seconds: float
    ) -> None:
        self._store = store
        self._stored_tier = stored_tier
        self._from_seconds = from_seconds
        self._held: set[str] = set()
        self._deleting: set[asyncio.Task[None]] = set()

    async def make(self, keyed: Keyed, timings: Timings, seconds: float) -> None:
        """Return when the render of this request is to be done here. `seconds` are estimated.

        Raises RenderedElsewhere where another replica has done it.
        """
        if self._store is None or seconds < self._from_seconds:
            return
        path = _path(keyed)
        with timings.measure("claim"):
            try:
                if not await self._take(self._store, path):
                    await self._wait(self._store, path, keyed, seconds)
            except (ServiceError, TimeoutError) as error:
                log.warning("claim_failed", error=str(error) or "the store is slow")

    def release(self, keyed: Keyed) -> None:
        """Give a claim up, if it is held: the result is stored, or will not be."""
        path = _path(keyed)
        if self._store is not None and path in self._held:
            self._held.discard(path)
            task = asyncio.create_task(self._delete(self._store, path))
            self._deleting.add(task)
            task.add_done_callback(self._deleting.discard)

    async def close(self) -> None:
        """Finish giving up, within a bound."""
        if self._deleting:
            await asyncio.wait(self._deleting, timeout=_CLOSE_TIMEOUT)

    async def _delete(self, store: ObjectStore, path: str) -> None:
        with suppress(ServiceError):  # whoever meets it waits a while, and renders then
            await store.delete(path)

    async def _take(self, store: ObjectStore, path: str) -> bool:
        self._held.add(path)  # before it is known: whoever leaves meanwhile gives it up
        async with asyncio.timeout(_SLOW):
            taken = await store.create(path, b"-", content_type="text/plain")
        if taken is None:
            self._held.discard(path)
        return taken is not None

    async def _wait(self, store: ObjectStore, path: str, keyed: Keyed, seconds: float) -> None:
        least, most = _PATIENCE
        until = time.monotonic() + min(most, max(least, 3 * seconds))
        while time.monotonic() < until:
            await asyncio.sleep(_LOOK_EVERY)
            try:
                async with asyncio.timeout(_SLOW):
                    await store.stat(path)
                continue
            except OriginalMissing:
                pass  # the result is written before the claim on it is given up
            found = await self._stored_tier.get(keyed.key, keyed.identity, keyed.fm)
            if found is not None:
                raise RenderedElsewhere(found)
            if await self._take(store, path):
                return
        self._held.add(path)  # its owner is gone: what it left is removed with what is made here


def _path(keyed: Keyed) -> str:
    return f"{prefix_of(keyed.identity.ref)}/claims/{keyed.key}"
