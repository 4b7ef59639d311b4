"""Originals as they arrive: rules, and all the ways by which stores tell of what is new."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Final

from app.jobs import subscriptions
from app.jobs.database import Database
from app.jobs.intake import Intake, Taken
from app.jobs.polling import Poller
from app.jobs.queues import JobQueue
from app.jobs.rules import Rules
from app.jobs.s3events import Message
from app.jobs.spec import SpecReader
from app.jobs.sqs import QueueReader
from app.jobs.subscriptions import Sender
from app.outbound import Outbound
from app.purging import Purger
from app.settings import Settings, parse_place
from app.sources.guard import Guard, Resolver
from app.stores.base import ObjectStore

_CONFIRMATIONS: Final = 2
"""Subscriptions that are confirmed at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrivals:
    """What routers and chores call."""

    rules: Rules
    intake: Intake
    poller: Poller
    sender: Sender

    async def take_message(self, message: Message) -> Taken:
        """Act on what a store tells. Raises what `Intake.take` and `subscriptions.confirm` do."""
        if message.confirm is not None:
            await subscriptions.confirm(self.sender, message.confirm)
        taken = await self.intake.take(message.events)
        return replace(taken, ignored=taken.ignored + message.ignored)


@asynccontextmanager
async def open_arrivals(
    settings: Settings,
    *,
    database: Database,
    queue: JobQueue,
    reader: SpecReader,
    purger: Purger,
    originals: ObjectStore,
    resolver: Resolver,
    run: bool,
    stop: asyncio.Event,
) -> AsyncIterator[Arrivals]:
    """Build the parts, and where `run` says so read the queue of events until told to stop."""
    place = parse_place(settings.originals)
    intake = Intake(
        database=database,
        queue=queue,
        reader=reader,
        purger=purger,
        originals=originals,
        place=place,
    )
    guard = Guard(allowed=subscriptions.HOSTS, resolver=resolver, param=subscriptions.PARAM)
    sender = Outbound(guard, connections=_CONFIRMATIONS)
    reading = None
    if run and settings.event_queue:
        reading = asyncio.create_task(QueueReader(settings.event_queue, intake).run(stop))
    try:
        yield Arrivals(
            rules=Rules(database, reader, place),
            intake=intake,
            poller=Poller(database=database, intake=intake, originals=originals),
            sender=sender,
        )
    finally:
        if reading is not None:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
        await sender.close()
