"""The queue without a server: workers claim rows of the ledger."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

import structlog

from app.jobs import attempts
from app.jobs.database import Connection, Database
from app.jobs.queues import Perform
from app.jobs.records import Job

log = structlog.get_logger(__name__)

_POLL: Final = 0.5
"""Seconds between looks for what is due: another process may have written it."""
_REAP: Final = 2.0
_SEVERAL: Final = 4
"""A claim is made when a fourth of the places are free."""
_AWAY: Final = 2.0


class EmbeddedQueue:
    """Claims jobs for `lease` seconds at a time."""

    def __init__(self, database: Database, *, lease: float) -> None:
        self._database = database
        self._lease = lease
        self._woken = asyncio.Event()
        self._reap_at = 0.0

    async def open(self) -> None:
        return None

    def submit(self, tx: Connection, jobs: Sequence[Job]) -> None:
        del tx, jobs  # the rows of the ledger are the queue

    def cancel(self, tx: Connection, ids: Sequence[str]) -> None:
        del tx, ids  # the same

    def wake(self) -> None:
        self._woken.set()

    async def run(self, perform: Perform, *, concurrency: int, stop: asyncio.Event) -> None:
        running: set[asyncio.Task[float | None]] = set()
        stopping = asyncio.create_task(stop.wait())
        try:
            while not stop.is_set():
                self._woken.clear()
                # Several to a claim: it costs a transaction, whatever it brings.
                free = concurrency - len(running)
                ids = await self._claim(free if free * _SEVERAL >= concurrency else 0)
                for job_id in ids:
                    task = asyncio.create_task(perform(job_id))
                    running.add(task)
                    task.add_done_callback(running.discard)
                free = concurrency - len(running)
                await self._rest(running, stopping, full=free * _SEVERAL < concurrency)
            if running:
                await asyncio.wait(running)
        finally:
            stopping.cancel()
            for task in running:
                task.cancel()

    async def tidy(self) -> None:
        """Nothing: a claim that nobody renews passes by itself, and `run` reaps."""

    async def close(self) -> None:
        return None

    async def _claim(self, free: int) -> list[str]:
        """Take jobs that are due. None while the database is away."""
        if free <= 0:
            return []
        if time.monotonic() >= self._reap_at:
            self._reap_at = time.monotonic() + _REAP
            await self._reap()

        def claim(tx: Connection) -> list[str]:
            now = time.time()
            return attempts.claim(tx, limit=free, until=now + self._lease, now=now)

        try:
            return await self._database.write(claim)
        except Exception:
            log.exception("ledger_unavailable")
            await asyncio.sleep(_AWAY)
            return []

    async def _reap(self) -> None:
        """Queue jobs of dead workers again. Where that fails, others are claimed all the same."""
        try:
            orphans = await self._database.write(lambda tx: attempts.reap(tx, now=time.time()))
        except Exception:
            log.exception("dead_not_counted")
            return
        if orphans:
            log.warning("workers_died", jobs=orphans)

    async def _rest(
        self, running: set[asyncio.Task[float | None]], stopping: asyncio.Task[bool], *, full: bool
    ) -> None:
        """Wait until there may be something to claim and room for it."""
        woken = asyncio.create_task(self._woken.wait())
        try:
            waited: set[asyncio.Task[float | None] | asyncio.Task[bool]] = {stopping, *running}
            if not full:
                waited.add(woken)
            with suppress(TimeoutError):
                async with asyncio.timeout(None if full else _POLL):
                    await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
        finally:
            woken.cancel()
