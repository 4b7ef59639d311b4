"""The parts of the jobs of one process, built from the settings and closed together."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final

import structlog
from sqlalchemy.exc import DBAPIError

from app.errors import LedgerUnavailable
from app.jobs import batches, deliveries, retention, rules
from app.jobs.arrivals import open_arrivals
from app.jobs.backlog import BacklogMeter
from app.jobs.batch_intake import cancel_abandoned
from app.jobs.batch_parts import make_batches
from app.jobs.database import Connection, Database
from app.jobs.diagnosis import reason_of
from app.jobs.embedded import EmbeddedQueue
from app.jobs.following import Follower
from app.jobs.housekeeping import Chore, keeping_house
from app.jobs.migrations import upgrade
from app.jobs.queues import JobQueue
from app.jobs.reports import submit_due
from app.jobs.runner import Runner
from app.jobs.scheduler import Scheduler
from app.jobs.service import Jobs
from app.jobs.spec import SpecReader
from app.jobs.webhooks import AT_ONCE, Sender, webhook_guard
from app.jobs.worker import Worker
from app.jobs.writers import Writers
from app.outbound import Outbound
from app.presets import Presets
from app.purging import Purger
from app.render import Renderer
from app.settings import Settings
from app.sources.guard import Guard, Resolver, resolve
from app.stores.base import ObjectStore
from app.telemetry import Metrics

log = structlog.get_logger(__name__)

_IN_FLIGHT: Final = 8
"""Jobs in hand for each render: while one renders, others fetch and write."""
_RESTART: Final = 2.0
"""Seconds before a worker that has failed begins anew."""


def check_database(settings: Settings) -> None:
    """Bring the database of jobs up to date. Raises ValueError that says why it cannot be."""
    if settings.database == "off":
        return
    database = None
    try:
        database = Database(settings.database)
        upgrade(database)
    except (LedgerUnavailable, DBAPIError, OSError) as error:
        raise ValueError(f"PIXELMILL_DATABASE cannot be used: {reason_of(error)}") from None
    finally:
        if database is not None:
            database.close()


@asynccontextmanager
async def open_jobs(
    settings: Settings,
    *,
    presets: Presets,
    originals: ObjectStore,
    renderer: Renderer,
    purger: Purger,
    metrics: Metrics,
    open_bucket: Callable[[str], ObjectStore],
    run: bool,
    stop: asyncio.Event,
    resolver: Resolver = resolve,
) -> AsyncIterator[Jobs]:
    """Open the ledger, and where `run` says so run a worker until the block ends."""
    async with AsyncExitStack() as stack:
        database = Database(settings.database)
        stack.push_async_callback(asyncio.to_thread, database.close)
        await asyncio.to_thread(upgrade, database)
        queue = _make_queue(database, lease=settings.job_lease)
        stack.push_async_callback(queue.close)
        await queue.open()
        put = Outbound(
            Guard(
                allowed=("*:*",),  # PIXELMILL_TARGETS says more of hosts than the guard knows
                private_networks=settings.allow_private_networks,
                resolver=resolver,
                param="target",
            ),
            connections=settings.downloads,
        )
        writers = Writers(
            originals=originals,
            originals_at=settings.originals,
            purger=purger,
            database=database,
            open_bucket=open_bucket,
            outbound=put,
        )
        stack.push_async_callback(writers.close)
        reader = SpecReader(settings, presets)
        parts = make_batches(
            settings,
            database=database,
            queue=queue,
            reader=reader,
            writers=writers,
            originals=originals,
            renderer=renderer,
        )
        webhooks = Outbound(webhook_guard(settings, resolver=resolver), connections=AT_ONCE)
        stack.push_async_callback(webhooks.close)
        sender = Sender(database, webhooks, keys=settings.webhook_keys, metrics=metrics)
        concurrency = settings.job_concurrency or _IN_FLIGHT * settings.processors
        worker = None
        if run:
            worker = Worker(
                database=database,
                queue=queue,
                runner=Runner(renderer, writers, settings),
                chores=parts.chores,
                metrics=metrics,
                concurrency=concurrency,
                lease=settings.job_lease,
            )
            await stack.enter_async_context(_working(worker, stop, drain=settings.drain_timeout))
        arrivals = await stack.enter_async_context(
            open_arrivals(
                settings,
                database=database,
                queue=queue,
                reader=reader,
                purger=purger,
                originals=originals,
                resolver=resolver,
                run=run,
                stop=stop,
            )
        )
        jobs = Jobs(
            database,
            queue,
            reader,
            worker,
            batches=parts.batches,
            follower=Follower(database, stop),
            scheduler=Scheduler(database, queue, parts.starters),
            backlog=BacklogMeter(database, metrics=metrics, concurrency=concurrency),
            arrivals=arrivals,
        )
        await stack.enter_async_context(
            keeping_house(database, _chores(jobs, settings, sender=sender))
        )
        yield jobs


def _make_queue(database: Database, *, lease: float) -> JobQueue:
    """The queue that the database allows."""
    if database.embedded:
        return EmbeddedQueue(database, lease=lease)
    from app.jobs.distributed import DistributedQueue  # noqa: PLC0415 - an extra brings it

    return DistributedQueue(database, lease=lease)


@asynccontextmanager
async def _working(worker: Worker, stop: asyncio.Event, *, drain: float) -> AsyncIterator[None]:
    """Run a worker until the block ends, and see it out. One that fails begins anew."""

    async def work() -> None:
        while not stop.is_set():
            try:
                await worker.run(stop, drain=drain)
            except Exception:
                log.exception("worker_failed")
                await asyncio.sleep(_RESTART)

    working = asyncio.create_task(work())
    try:
        yield
    finally:
        stop.set()
        await asyncio.wait({working})


def _chores(jobs: Jobs, settings: Settings, *, sender: Sender) -> list[Chore]:
    database = jobs.database

    def close(tx: Connection) -> int:
        now = time.time()
        cancel_abandoned(tx, now=now)
        batches.close_all_done(tx, now=now)
        return submit_due(tx, jobs.queue, now=now)

    async def close_batches() -> None:
        if await database.write(close):
            jobs.queue.wake()

    async def forget() -> None:
        more = True
        while more:
            more = await database.write(
                lambda tx: retention.sweep(tx, now=time.time(), keep=settings.job_retention)
            )

    def always(tx: Connection) -> bool:
        del tx
        return True

    return [
        Chore(
            name="schedules", period=1.0, do=jobs.scheduler.tick, is_due=jobs.scheduler.is_any_due
        ),
        Chore(name="close batches", period=2.0, do=close_batches, is_due=batches.is_any_open),
        Chore(
            name="cancel jobs",
            period=2.0,
            do=jobs.batches.finish_cancelling,
            is_due=batches.is_any_stopped,
        ),
        Chore(
            name="send webhooks",
            period=1.0,
            do=sender.send_due,
            is_due=lambda tx: deliveries.is_any_due(tx, now=time.time()),
        ),
        Chore(
            name="look through stores",
            period=1.0,
            do=jobs.arrivals.poller.look,
            is_due=lambda tx: rules.is_any_due(tx, now=time.time()),
        ),
        Chore(name="tidy the queue", period=20.0, do=jobs.queue.tidy, is_due=always),
        Chore(name="show backlog", period=5.0, do=jobs.backlog.show, is_due=always),
        Chore(
            name="release what is not paused",
            period=30.0,
            do=jobs.pauses.release,
            is_due=always,
        ),
        Chore(name="forget", period=300.0, do=forget, is_due=always),
    ]
