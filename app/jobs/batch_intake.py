"""The intake of a batch whose entries come with a request: some hundreds to a transaction.

Jobs may begin while others still come. A batch that is not taken in to its end is cancelled: by the
request that it came with, or where its process has died, by whoever looks after the ledger.
"""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, Final

import sqlalchemy as sa

from app.errors import InvalidRequest, LedgerUnavailable, Problem, RecordMissing
from app.jobs import batches, idempotency, ledger
from app.jobs.batches import BatchDraft
from app.jobs.database import Connection, Database
from app.jobs.ids import new_id
from app.jobs.queues import JobQueue
from app.jobs.records import Batch, BatchState, Draft, shown_problem
from app.jobs.schema import batches as rows

_PAGE: Final = 500
"""Jobs of one transaction."""
_HELD: Final = 120.0
"""Seconds for which a batch is held by the request that it comes with."""
_PROLONG: Final = 20.0
_AT_LATEST: Final = 1.0
"""Seconds after which jobs are written down though there are few of them."""


@dataclass(slots=True)
class _Page:
    drafts: list[Draft] = field(default_factory=list)
    rejected: int = 0
    rejections: list[dict[str, Any]] = field(default_factory=list)


class BatchIntake:
    """Takes in one batch. `key` is that of the client for its request, which is reserved."""

    def __init__(
        self, database: Database, queue: JobQueue, draft: BatchDraft, *, key: str | None
    ) -> None:
        self.batch_id = new_id()
        self._database = database
        self._queue = queue
        self._draft = draft
        self._key = key
        self._page = _Page()
        self._batch: Batch | None = None
        self._stopped = False
        self._writing: asyncio.Task[None] | None = None
        self._due = time.monotonic() + _AT_LATEST
        self._prolong_at = time.monotonic() + _PROLONG
        self._accepted = False
        self._first: Problem | None = None

    async def accept(self, draft: Draft) -> None:
        """Take in a job. Raises LedgerUnavailable."""
        self._accepted = True
        if self._stopped:
            return
        self._page.drafts.append(draft)
        if len(self._page.drafts) >= _PAGE:
            await self._flush()

    def reject(self, line: int, problem: Problem) -> None:
        """Note why an entry is no job."""
        self._first = self._first or problem
        self._page.rejected += 1
        if len(self._page.rejections) < batches.MOST_REJECTIONS:
            self._page.rejections.append({"line": line, "problem": shown_problem(problem)})

    async def keep_up(self) -> None:
        """Write down what has waited for long: to be called whenever something has come."""
        now = time.monotonic()
        if self._page.drafts and now >= self._due:
            await self._flush()
        if self._key is not None and self._batch is None and now >= self._prolong_at:
            self._prolong_at = now + _PROLONG
            key = self._key
            await self._database.write(lambda tx: idempotency.prolong(tx, key, now=time.time()))
        elif self._batch is not None and now >= self._prolong_at:
            await self._flush()

    async def finish(self, *, fingerprint: str) -> Batch:
        """Write down the rest. The batch is accepted when this returns.

        Raises InvalidRequest where there was no valid entry, and LedgerUnavailable.
        """
        if not self._accepted:
            if self._first is None:
                raise InvalidRequest("The batch has no jobs")
            detail = f"None of the entries is a job; the first: {self._first.detail}"
            raise InvalidRequest(detail, param=self._first.param)
        await self._settle()
        page, self._page = self._page, _Page()

        def write(tx: Connection) -> Batch:
            self._add(tx, page)
            now = time.time()
            if self._key is not None:
                idempotency.answer(
                    tx, self._key, {"id": self.batch_id}, fingerprint=fingerprint, now=now
                )
            return batches.note_filled(tx, self.batch_id, now=now)

        batch = await self._database.write(write)
        self._queue.wake()
        return batch

    async def abandon(self, reason: str) -> None:
        """Cancel what has been taken in. A ledger that is away does it later by itself."""
        if self._writing is not None:
            await asyncio.wait([self._writing])

        def write(tx: Connection) -> None:
            if self._batch is not None:
                batches.cancel(tx, self.batch_id, now=time.time(), reason=reason)
            if self._key is not None:
                idempotency.release(tx, self._key)

        with suppress(LedgerUnavailable, RecordMissing):
            await self._database.write(write)

    async def _flush(self) -> None:
        """Have the jobs that have come written down, while the next ones are read."""
        await self._settle()
        page, self._page = self._page, _Page()
        self._due = time.monotonic() + _AT_LATEST
        self._prolong_at = time.monotonic() + _PROLONG
        self._writing = asyncio.create_task(self._write(page))

    async def _settle(self) -> None:
        writing, self._writing = self._writing, None
        if writing is not None:
            await writing

    async def _write(self, page: _Page) -> None:
        def write(tx: Connection) -> Batch:
            if self._key is not None:
                idempotency.prolong(tx, self._key, now=time.time())
            return self._add(tx, page)

        self._batch = await self._database.write(write)
        self._queue.wake()

    def _add(self, tx: Connection, page: _Page) -> Batch:
        """Write a page down, unless the batch was cancelled meanwhile."""
        now = time.time()
        batch = self._batch
        if batch is None:
            held = replace(self._draft, cursor=_held_until(now))
            batch = batches.create(tx, held, now=now, batch_id=self.batch_id)
        if self._stopped or not batches.note_progress(
            tx,
            batch,
            added=len(page.drafts),
            rejected=page.rejected,
            rejections=page.rejections,
            cursor=_held_until(now),
        ):
            self._stopped = True
        else:
            self._queue.submit(tx, ledger.insert(tx, page.drafts, now=now))
        return batches.find(tx, self.batch_id)


def cancel_abandoned(tx: Connection, *, now: float) -> int:
    """Cancel batches that come no more: their processes have died. Returns how many."""
    query = sa.select(rows.c.id, rows.c.cursor).where(
        rows.c.finished_at.is_(None), rows.c.state == BatchState.FILLING, rows.c.order.is_(None)
    )
    reason = "The request that it came with was not read to its end"
    found = [row.id for row in tx.execute(query) if _has_passed(row.cursor, now)]
    for batch_id in found:
        batches.cancel(tx, batch_id, now=now, reason=reason)
    return len(found)


def _held_until(now: float) -> str:
    return json.dumps({"until": now + _HELD})


def _has_passed(cursor: str | None, now: float) -> bool:
    return cursor is not None and json.loads(cursor)["until"] < now
