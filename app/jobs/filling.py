"""Filling a batch from its order: what a job of the kind `fill` does.

Each page of jobs enters the ledger together with the place where the next one begins. Whoever goes
on after a crash begins there; where two fill one batch, as a lease may have passed, the second one
finds the place moved and adds nothing.
"""

from __future__ import annotations

import json
import time

from app.jobs import attempts, batches, ledger
from app.jobs.batch_spec import BatchReader, Plan
from app.jobs.database import Connection, Database
from app.jobs.origins import Origins, Page
from app.jobs.queues import JobQueue
from app.jobs.records import Batch, BatchState, Job


class Filler:
    """Fills batches."""

    def __init__(
        self, *, database: Database, queue: JobQueue, reader: BatchReader, origins: Origins
    ) -> None:
        self._database = database
        self._queue = queue
        self._reader = reader
        self._origins = origins

    async def fill(self, job: Job) -> None:
        """Fill the batch of a job to its end, or until it is cancelled.

        Raises what the store does, InvalidRequest where its order cannot be read any more, and
        LedgerUnavailable.
        """
        batch_id = job.batch_id
        assert batch_id is not None  # noqa: S101 - it was made for one
        batch = await self._database.read(lambda tx: batches.find(tx, batch_id))
        plan = Plan.from_json(json.loads(batch.order or "{}"))
        read = self._reader.drafts_of(plan, batch_id=batch_id, now=batch.created_at)
        while batch.state is BatchState.FILLING:
            page = await self._origins.read_page(
                plan, read, cursor=batch.cursor, since=batch.created_at
            )
            batch = await self._write(batch, page, job)

    async def _write(self, batch: Batch, page: Page, job: Job) -> Batch:
        def write(tx: Connection) -> Batch:
            now = time.time()
            if batches.note_progress(
                tx,
                batch,
                added=len(page.drafts),
                rejected=len(page.rejections),
                rejections=page.rejections,
                skipped=page.skipped,
                cursor=page.cursor,
            ):
                self._queue.submit(tx, ledger.insert(tx, page.drafts, now=now))
                attempts.forgive(tx, job.id)
                if page.cursor is None:
                    return batches.note_filled(tx, batch.id, now=now)
            return batches.find(tx, batch.id)

        found = await self._database.write(write)
        self._queue.wake()
        return found
