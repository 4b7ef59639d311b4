"""The jobs of one process: what routers and the command line call."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Final

from app.errors import RecordConflict
from app.jobs import batches, idempotency, ledger, retention
from app.jobs.arrivals import Arrivals, open_arrivals
from app.jobs.backlog import BacklogMeter
from app.jobs.database import Connection, Database
from app.jobs.dead_letters import DeadLetters
from app.jobs.embedded import EmbeddedQueue
from app.jobs.housekeeping import Chore, keeping_house
from app.jobs.migrations import upgrade
from app.jobs.pauses import Pauses
from app.jobs.queues import JobQueue
from app.jobs.records import Batch, Draft, Job, State
from app.jobs.runner import Runner
from app.jobs.spec import SpecReader
from app.jobs.webhooks import AT_ONCE, Sender, webhook_guard
from app.jobs.worker import Worker
from app.jobs.writers import Writers
from app.outbound import Outbound
from app.presets import Presets
from app.render import Renderer
from app.settings import Settings
from app.sources.guard import Guard, Resolver, resolve
from app.stores.base import ObjectStore
from app.telemetry import Metrics

_IN_FLIGHT: Final = 8
"""Jobs in hand for each render: while one renders, others fetch and write."""
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
        backlog: BacklogMeter,
        arrivals: Arrivals,
    ) -> None:
        self.database = database
        self.queue = queue
        self.reader = reader
        self.arrivals = arrivals
        self.backlog = backlog
        self.pauses = Pauses(database, queue)
        self.dead_letters = DeadLetters(database, queue)
        self._worker = worker

    async def submit(
        self, draft: Draft, *, key: str | None = None, fingerprint: str = ""
    ) -> tuple[Job, bool]:
        """Accept a job: it has been written down when this returns. Whether it is a new one.

        `key` is the client's for this request, and `fingerprint` is of its body. Raises
        IdempotencyInFlight, IdempotencyMismatch, LedgerUnavailable.
        """
        now = time.time()
        if key is not None:
            known = await self.database.write(
                lambda tx: idempotency.reserve(tx, key, fingerprint=fingerprint, now=now)
            )
            if known is not None:
                return await self.find(known["id"]), False

        def accept(tx: Connection) -> Job:
            (job,) = ledger.insert(tx, [draft], now=now)
            self.queue.submit(tx, [job])
            if key is not None:
                idempotency.answer(tx, key, {"id": job.id}, fingerprint=fingerprint, now=now)
            return job

        job = await self.database.write(accept)
        self.queue.wake()
        return job, True

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
            job = ledger.cancel(tx, job_id, now=time.time())
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
        """Cancel a batch and all of its jobs that have not ended. Raises RecordMissing."""

        def stop(tx: Connection) -> Batch:
            batch = batches.cancel(tx, batch_id, now=time.time())
            self.queue.cancel(tx, batches.find_cancelled(tx, batch_id))
            return batch

        return await self.database.write(stop)


@asynccontextmanager
async def open_jobs(
    settings: Settings,
    *,
    presets: Presets,
    originals: ObjectStore,
    renderer: Renderer,
    metrics: Metrics,
    open_bucket: Callable[[str], ObjectStore],
    run: bool,
    stop: asyncio.Event,
    resolver: Resolver = resolve,
) -> AsyncIterator[Jobs]:
    """Open the ledger, and where `run` says so run a worker until the block ends."""
    database = Database(settings.database)
    writers = webhooks = None
    try:
        await asyncio.to_thread(upgrade, database)
        queue = _make_queue(database, lease=settings.job_lease)
        await queue.open()
        writers = Writers(
            originals=originals,
            renderer=renderer,
            database=database,
            open_bucket=open_bucket,
            outbound=Outbound(
                Guard(
                    allowed=("*:*",),  # PIXELMILL_TARGETS says more of hosts than the guard knows
                    private_networks=settings.allow_private_networks,
                    resolver=resolver,
                    param="target",
                ),
                connections=settings.downloads,
            ),
        )
        webhooks = Outbound(webhook_guard(settings, resolver=resolver), connections=AT_ONCE)
        sender = Sender(database, webhooks, keys=settings.webhook_keys, metrics=metrics)
        concurrency = settings.job_concurrency or _IN_FLIGHT * settings.processors
        backlog = BacklogMeter(database, metrics=metrics, concurrency=concurrency)
        worker = None
        if run:
            worker = Worker(
                database=database,
                queue=queue,
                runner=Runner(renderer, writers, settings),
                chores={},
                metrics=metrics,
                concurrency=concurrency,
                lease=settings.job_lease,
            )
        reader = SpecReader(settings, presets)
        working = None
        if worker is not None:
            working = asyncio.create_task(worker.run(stop, drain=settings.drain_timeout))
        try:
            async with open_arrivals(
                settings,
                database=database,
                queue=queue,
                reader=reader,
                renderer=renderer,
                originals=originals,
                resolver=resolver,
                run=run,
                stop=stop,
            ) as arrivals:
                jobs = Jobs(database, queue, reader, worker, backlog=backlog, arrivals=arrivals)
                async with keeping_house(_chores(jobs, settings, sender=sender)):
                    yield jobs
        finally:
            stop.set()
            if working is not None:
                with suppress(asyncio.CancelledError):
                    await working
            await queue.close()
    finally:
        if writers is not None:
            await writers.close()
        if webhooks is not None:
            await webhooks.close()
        await asyncio.to_thread(database.close)


def _make_queue(database: Database, *, lease: float) -> JobQueue:
    """The queue that the database allows."""
    if database.embedded:
        return EmbeddedQueue(database, lease=lease)
    from app.jobs.distributed import DistributedQueue  # noqa: PLC0415 - an extra brings it

    return DistributedQueue(database, lease=lease)


def _chores(jobs: Jobs, settings: Settings, *, sender: Sender) -> list[Chore]:
    database = jobs.database

    async def close_batches() -> None:
        await database.write(lambda tx: batches.close_all_done(tx, now=time.time()))

    async def forget() -> None:
        more = True
        while more:
            more = await database.write(
                lambda tx: retention.sweep(tx, now=time.time(), keep=settings.job_retention)
            )

    return [
        Chore(name="close batches", period=2.0, do=close_batches),
        Chore(name="tidy the queue", period=20.0, do=jobs.queue.tidy),
        Chore(name="send webhooks", period=1.0, do=sender.send_due),
        Chore(name="show backlog", period=5.0, do=jobs.backlog.show),
        Chore(name="release what is not paused", period=30.0, do=jobs.pauses.release),
        Chore(name="forget", period=300.0, do=forget),
        Chore(name="look through stores", period=0.5, do=jobs.arrivals.poller.look),
    ]
