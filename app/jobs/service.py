"""The jobs of one process: what routers and the command line call."""

from __future__ import annotations

import asyncio
import time
from typing import Final

from app.errors import RecordConflict
from app.jobs import attempts, idempotency, ledger
from app.jobs.arrivals import Arrivals
from app.jobs.backlog import BacklogMeter
from app.jobs.batching import Batches
from app.jobs.database import Connection, Database
from app.jobs.dead_letters import DeadLetters
from app.jobs.following import Follower
from app.jobs.pauses import Pauses
from app.jobs.queues import JobQueue
from app.jobs.records import Batch, Draft, Job, State
from app.jobs.scheduler import Scheduler
from app.jobs.schema import jobs as job_rows
from app.jobs.spec import SpecReader
from app.jobs.worker import Worker

_PATIENCE: Final = (0.02, 0.5)
"""Seconds between looks at a job that is waited for: at first, and at last."""


class Jobs:
    """Accepts jobs and tells of them."""

    def __init__(
        self,
        database: Database,
        queue: JobQueue,
        reader: SpecReader,
        worker: Worker | None,
        *,
        batches: Batches,
        follower: Follower,
        backlog: BacklogMeter,
        arrivals: Arrivals,
        scheduler: Scheduler,
    ) -> None:
        self.database = database
        self.queue = queue
        self.reader = reader
        self.batches = batches
        self.follower = follower
        self.arrivals = arrivals
        self.backlog = backlog
        self.pauses = Pauses(database, queue)
        self.dead_letters = DeadLetters(database, queue)
        self.scheduler = scheduler
        self._worker = worker

    async def submit(
        self, draft: Draft, *, key: str | None = None, fingerprint: str = ""
    ) -> tuple[Job, bool]:
        """Accept a job: it has been written down when this returns. Whether it is a new one.

        `key` is the client's for this request, and `fingerprint` is of its body. Raises
        IdempotencyInFlight, IdempotencyMismatch, LedgerUnavailable.
        """

        def accept(tx: Connection) -> tuple[Job, bool]:
            # The key is taken and answered in one transaction: no crash leaves it in flight.
            now = time.time()
            if key is not None:
                known = idempotency.reserve(
                    tx, key, fingerprint=fingerprint, now=now, record=job_rows
                )
                if known is not None:
                    return ledger.find(tx, known["id"]), False
            (job,) = ledger.insert(tx, [draft], now=now)
            self.queue.submit(tx, [job])
            if key is not None:
                idempotency.answer(tx, key, {"id": job.id}, fingerprint=fingerprint, now=now)
            return job, True

        job, new = await self.database.write(accept)
        if new:
            self.queue.wake()
        return job, new

    async def find(self, job_id: str) -> Job:
        """The job of an id. Raises RecordMissing."""
        return await self.database.read(lambda tx: ledger.find(tx, job_id))

    async def find_page(
        self,
        *,
        limit: int,
        state: State | None = None,
        label: str | None = None,
        batch_id: str | None = None,
        before: str | None = None,
    ) -> list[Job]:
        """Jobs from the newest to the oldest, those older than the id `before`."""
        return await self.database.read(
            lambda tx: ledger.find_page(
                tx, limit=limit, state=state, label=label, batch_id=batch_id, before=before
            )
        )

    async def wait(self, job_id: str, seconds: float) -> Job:
        """The job when it has ended, or as it is after so many seconds."""
        until = time.monotonic() + seconds
        pause, longest = _PATIENCE
        while True:
            job = await self.find(job_id)
            left = until - time.monotonic()
            if job.state.final or left <= 0:
                return job
            await asyncio.sleep(min(pause, left))
            pause = min(pause * 1.5, longest)

    async def cancel(self, job_id: str) -> Job:
        """Cancel a job. Raises RecordMissing, and RecordConflict where it has ended otherwise."""

        def stop(tx: Connection) -> Job:
            job = attempts.cancel(tx, job_id, now=time.time())
            self.queue.cancel(tx, [job_id])
            return job

        job = await self.database.write(stop)
        if job.state is not State.CANCELLED:
            raise RecordConflict(f"The job has {job.state} already")
        if self._worker is not None:
            self._worker.let_go(job_id)
        return job

    async def retry(self, job_id: str) -> Job:
        """Queue a job anew that has failed or was cancelled.

        Raises RecordMissing, RecordConflict.
        """

        def again(tx: Connection) -> Job:
            job = ledger.queue_again(tx, job_id, now=time.time())
            if job is None:
                found = ledger.find(tx, job_id)
                raise RecordConflict(f"The job is {found.state}: only failed ones are tried again")
            self.queue.submit(tx, [job])
            return job

        job = await self.database.write(again)
        self.queue.wake()
        return job

    async def cancel_batch(self, batch_id: str) -> Batch:
        """Cancel a batch, and all of its jobs that have not ended.

        Raises RecordMissing, and RecordConflict where it has ended otherwise.
        """
        batch, running = await self.batches.cancel(batch_id)
        if self._worker is not None:
            for job_id in running:
                self._worker.let_go(job_id)
        return batch
