"""The stored tier: results that outlive the process and are shared by all replicas.

All results of one original are under one prefix, so that deleting or replacing the original purges
them by listing that prefix. Results of requests are written behind the answer, and take no time
from it; a job has ended only when its results are written.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from contextlib import suppress
from typing import Final

import structlog

from app.cache import Rendered
from app.errors import OriginalMissing, ServiceError
from app.sources.base import Identity, Ref
from app.stores.base import ObjectStore
from app.telemetry.trace import measured
from transforms.errors import TransformError
from transforms.formats import FORMATS, SNIFFED_BYTES, sniff

log = structlog.get_logger(__name__)

_PENDING: Final = 64 << 20
"""Bytes that may wait to be written. Beyond it results are not stored: they can be made again."""
_WRITERS: Final = 8
_READ_TIMEOUT: Final = 2.0
"""Seconds after which a render is quicker than waiting for the stored result."""
_CLOSE_TIMEOUT: Final = 10.0


class StoredTier:
    """Results in an object store. A store that fails only makes the service slower."""

    def __init__(
        self,
        store: ObjectStore | None,
        *,
        on_write: Callable[[str], None],
        on_read: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._store = store
        self._on_write = on_write
        self._on_read = on_read
        self._pending = 0
        self._writers = asyncio.Semaphore(_WRITERS)
        self._tasks: dict[asyncio.Task[None], Ref] = {}

    @property
    def pending(self) -> int:
        """Bytes that wait to be written."""
        return self._pending

    async def get(self, key: str, identity: Identity, fm: str) -> Rendered | None:
        """The stored result of a key, or None. Never raises, never waits long."""
        if self._store is None:
            return None
        path = result_key(identity.ref, key, fm)
        try:
            async with asyncio.timeout(_READ_TIMEOUT), self._store.read(path) as reading:
                data = b"".join([chunk async for chunk in reading.chunks])
            rendered = Rendered(
                key=key,
                ref=identity.ref,
                data=data,
                format=sniff(data[:SNIFFED_BYTES]),
                modified=identity.modified,
            )
        except OriginalMissing:
            self._on_read("miss")
            return None
        except TransformError:
            log.warning("stored_result_broken", path=path)
        except (ServiceError, TimeoutError) as error:
            log.warning("stored_result_unreadable", path=path, error=str(error))
        else:
            self._on_read("hit")
            return rendered
        self._on_read("failed")
        return None

    async def has(self, key: str, ref: Ref, fm: str) -> bool:
        """Whether the result of a key is stored. Raises what `ObjectStore.stat` does."""
        if self._store is None:
            return False
        try:
            await self._store.stat(result_key(ref, key, fm))
        except OriginalMissing:
            return False
        return True

    def put_later(self, rendered: Rendered, fm: str) -> None:
        """Write a result in the background."""
        size = len(rendered.data)
        if self._store is None:
            return
        if self._pending + size > _PENDING:
            self._on_write("dropped")
            return
        self._pending += size
        task = asyncio.create_task(self._put_behind(rendered, fm))
        self._tasks[task] = rendered.ref
        task.add_done_callback(self._tasks.pop)

    async def put(self, rendered: Rendered, fm: str) -> None:
        """Write a result now. Raises what `ObjectStore.write` does."""
        if self._store is None:
            return
        path = result_key(rendered.ref, rendered.key, fm)
        try:
            async with self._writers:
                await self._store.write(
                    path, rendered.data, content_type=rendered.format.media_type
                )
        except ServiceError as error:
            self._on_write("failed")
            log.warning("result_not_stored", path=path, error=error.detail)
            raise
        self._on_write("stored")

    async def _put_behind(self, rendered: Rendered, fm: str) -> None:
        try:
            with (
                suppress(ServiceError),
                measured("keep"),
            ):  # it has been logged, and can be made again
                await self.put(rendered, fm)
        finally:
            self._pending -= len(rendered.data)

    async def purge(self, ref: Ref) -> int:
        """Remove every stored result of an original. Returns how many there were."""
        if self._store is None:
            return 0
        # What is being written must not come back after the purge.
        writing = [task for task, of in self._tasks.items() if of == ref]
        if writing:
            await asyncio.wait(writing, timeout=_CLOSE_TIMEOUT)
        return await self._store.delete_prefix(prefix_of(ref))

    async def settle(self) -> None:
        """Wait until everything that is to be written has been."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def close(self) -> None:
        """Finish writing, within a bound."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=_CLOSE_TIMEOUT)


def prefix_of(ref: Ref) -> str:
    """The prefix of all results of an original: its digest, under two levels of folders."""
    digest = hashlib.sha256(f"{ref.kind}\n{ref.name}".encode()).hexdigest()[:40]
    return f"{digest[:2]}/{digest[2:4]}/{digest}"


def result_key(ref: Ref, key: str, fm: str) -> str:
    """Where a result is stored. What is settled only by its pixels has the extension `img`."""
    extension = FORMATS[fm].extension if fm in FORMATS else "img"
    return f"{prefix_of(ref)}/{key}.{extension}"
