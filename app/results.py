"""The stored tier: results that outlive the process and are shared by all replicas.

All results of one original are under one prefix, so that deleting or replacing the original purges
them by listing that prefix; a result of several originals is under the first of them. Results of
requests are written behind the answer, and take no time from it; a job has ended only when its
results are written.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Final

import structlog

from app.cache import Rendered
from app.errors import OriginalMissing, ServiceError
from app.sources.base import Identity, Ref
from app.stores.base import ObjectStore
from app.subjects import Coverage
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
_OF_LATE: Final = 30.0
"""Seconds within which a purge elsewhere may be heard of here."""


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
        self._tasks: dict[asyncio.Future[None], tuple[Ref, ...]] = {}
        self._written: OrderedDict[Ref, float] = OrderedDict()

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
                stored_at = reading.stat.modified
            rendered = Rendered(
                key=key,
                ref=identity.ref,
                data=data,
                format=sniff(data[:SNIFFED_BYTES]),
                modified=identity.modified,
                stored_at=stored_at,
            )
        except OriginalMissing:
            self._on_read("miss")
            return None
        except TransformError:
            log.warning("stored_result_broken", path=path)
        except (ServiceError, TimeoutError) as error:
            log.warning("stored_result_unreadable", path=path, error=str(error) or "too slow")
        else:
            self._on_read("hit")
            return rendered
        self._on_read("failed")
        return None

    async def stored_at(self, key: str, ref: Ref, fm: str) -> datetime | None:
        """When the result of a key was stored, or None. Raises what `ObjectStore.stat` does."""
        if self._store is None:
            return None
        try:
            stat = await self._store.stat(result_key(ref, key, fm))
        except OriginalMissing:
            return None
        return stat.modified or datetime.now(UTC)

    def put_later(
        self,
        rendered: Rendered,
        fm: str,
        *,
        over: bool = False,
        after: Callable[[], None] | None = None,
    ) -> None:
        """Write a result in the background, `over` one that is outdated, and then do this.

        Where another replica has written it meanwhile, it stays as it is.
        """
        size = len(rendered.data)
        if self._store is None or self._pending + size > _PENDING:
            if self._store is not None:
                self._on_write("dropped")
            if after is not None:
                after()
            return
        self._pending += size
        task = asyncio.create_task(self._put_behind(rendered, fm, over, after))
        self._tasks[task] = rendered.refs
        task.add_done_callback(self._tasks.pop)

    async def put(self, rendered: Rendered, fm: str, *, over: bool = False) -> None:
        """Write a result now, where there is none or `over` it. Raises what `write` does."""
        if self._store is None:
            return
        path = result_key(rendered.ref, rendered.key, fm)
        write = self._store.write if over else self._store.create
        # A purge waits for it, whoever asked for it.
        written: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._tasks[written] = rendered.refs
        try:
            async with self._writers:
                stat = await write(path, rendered.data, content_type=rendered.format.media_type)
        except ServiceError as error:
            self._on_write("failed")
            log.warning("result_not_stored", path=path, error=error.detail)
            raise
        finally:
            del self._tasks[written]
            written.set_result(None)
            for ref in rendered.refs:
                self._note_written(ref)
        self._on_write("stored" if stat is not None else "there")

    async def _put_behind(
        self,
        rendered: Rendered,
        fm: str,
        over: bool,  # noqa: FBT001 - handed on
        after: Callable[[], None] | None,
    ) -> None:
        try:
            # What fails has been logged, and can be made again.
            with suppress(ServiceError), measured("keep"):
                await self.put(rendered, fm, over=over)
        finally:
            self._pending -= len(rendered.data)
            if after is not None:
                after()

    async def purge(self, ref: Ref) -> int:
        """Remove every stored result of an original. Returns how many objects there were."""
        if self._store is None:
            return 0
        # What is being written must not come back after the purge.
        writing = [task for task, refs in self._tasks.items() if ref in refs]
        if writing:
            await asyncio.wait(writing, timeout=_CLOSE_TIMEOUT)
        self._written.pop(ref, None)
        return await self._store.delete_prefix(prefix_of(ref))

    def written_among(self, coverage: Coverage) -> list[Ref]:
        """The originals of which this process writes results, or did so of late."""
        writing = {ref for refs in self._tasks.values() for ref in refs}
        return list(coverage.among(writing | self._written.keys()))

    async def settle(self) -> None:
        """Wait until everything that is to be written has been."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def close(self) -> None:
        """Finish writing, within a bound."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=_CLOSE_TIMEOUT)

    def _note_written(self, ref: Ref) -> None:
        now = time.monotonic()
        self._written[ref] = now
        self._written.move_to_end(ref)
        while next(iter(self._written.values())) < now - _OF_LATE:
            self._written.popitem(last=False)


def prefix_of(ref: Ref) -> str:
    """The prefix of all results of an original: its digest, under two levels of folders."""
    return _prefix(_digest(ref))


def _digest(ref: Ref) -> str:
    return hashlib.sha256(f"{ref.kind}\n{ref.name}".encode()).hexdigest()[:40]


def _prefix(digest: str) -> str:
    return f"{digest[:2]}/{digest[2:4]}/{digest}"


def result_key(ref: Ref, key: str, fm: str) -> str:
    """Where a result is stored. What is settled only by its pixels has the extension `img`."""
    extension = FORMATS[fm].extension if fm in FORMATS else "img"
    return f"{prefix_of(ref)}/{key}.{extension}"
