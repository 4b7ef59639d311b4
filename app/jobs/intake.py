"""Takes in what stores tell of their objects: results of before go, and rules make jobs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

import structlog

from app.errors import OriginalMissing, Overloaded
from app.jobs import rules as rulebook
from app.jobs import triggers
from app.jobs.database import Connection, Database
from app.jobs.queues import JobQueue
from app.jobs.rules import Rule
from app.jobs.s3events import Kind, StoreEvent
from app.jobs.spec import SpecReader
from app.jobs.triggers import Change, Outcome
from app.purging import Purger
from app.settings import Place
from app.sources import stored
from app.sources.base import Ref
from app.stores.base import ObjectStore, is_key
from app.subjects import purge_of

log = structlog.get_logger(__name__)

_AT_ONCE: Final = 8
_PATIENCE: Final = 5.0
"""Seconds to wait for the versions of results that are being written."""
_PAUSE: Final = 0.1
_AGAIN: Final = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """How many events were about originals, how many were not, and the jobs that were made."""

    accepted: int
    ignored: int
    jobs: int


class Intake:
    """The door of one service. `place` is where its originals are."""

    def __init__(
        self,
        *,
        database: Database,
        queue: JobQueue,
        reader: SpecReader,
        purger: Purger,
        originals: ObjectStore,
        place: Place,
    ) -> None:
        self._database = database
        self._queue = queue
        self._reader = reader
        self._purger = purger
        self._originals = originals
        self._place = place

    async def take(self, events: Sequence[StoreEvent]) -> Taken:
        """Act on events: what they ask for has been written down when this returns.

        To take them again is harmless, and needed where this fails. Raises LedgerUnavailable, what
        the stores raise, and Overloaded where a result is still being written.
        """
        found = [pair for event in events if (pair := self._change(event)) is not None]
        gate = asyncio.Semaphore(_AT_ONCE)
        completed = await asyncio.gather(
            *(self._complete(change, kind, gate) for change, kind in found)
        )
        changes = [change for change in completed if change is not None]
        jobs = await self.act(changes, rules=None, outdated=True)
        return Taken(accepted=len(changes), ignored=len(events) - len(changes), jobs=jobs)

    async def act(
        self, changes: Sequence[Change], *, rules: Sequence[Rule] | None, outdated: bool
    ) -> int:
        """Act on changes by these rules, or by all. Returns how many jobs were made.

        `outdated` is whether there may be results of before. Raises what `take` does.
        """
        waiting = list(changes)
        until = time.monotonic() + _PATIENCE
        jobs = 0
        while waiting:
            if outdated:
                await self._purge(waiting, rules)
            outcome = await self._database.write(partial(self._apply, waiting, rules))
            if outcome.jobs:
                self._queue.wake()
                log.info("rules_applied", changes=len(waiting), jobs=outcome.jobs)
            jobs += outcome.jobs
            waiting = outcome.undecided
            if waiting and time.monotonic() >= until:
                raise Overloaded(
                    f"A result is being written to {waiting[0].key[:100]}: tell of it again",
                    retry_after=_AGAIN,
                )
            if waiting:
                await asyncio.sleep(_PAUSE)
        return jobs

    def _apply(
        self, changes: Sequence[Change], rules: Sequence[Rule] | None, tx: Connection
    ) -> Outcome:
        return triggers.apply(
            tx,
            changes,
            rulebook.find_all(tx) if rules is None else rules,
            reader=self._reader,
            queue=self._queue,
            now=time.time(),
        )

    async def _purge(self, changes: Sequence[Change], rules: Sequence[Rule] | None) -> None:
        """Remove results of what is no more. It comes first: a job's own results are to stay."""

        def find(tx: Connection) -> list[str]:
            known = rulebook.find_all(tx) if rules is None else rules
            return triggers.outdated(tx, changes, known, now=time.time())

        outdated = await self._database.read(find)
        if outdated:
            await self._purger.purge([purge_of(Ref(stored.KIND, key)) for key in outdated])

    def _change(self, event: StoreEvent) -> tuple[Change, Kind] | None:
        """What an event says of an original. None where it is about no original of this service."""
        place = self._place
        if place.kind != "s3" or event.bucket != place.location:
            return None
        prefix = f"{place.prefix}/" if place.prefix else ""
        key = event.key.removeprefix(prefix)
        if not event.key.startswith(prefix) or not is_key(key):
            return None
        version = event.version if event.kind is Kind.CREATED else None
        return Change(key=key, version=version, sequencer=event.sequencer), event.kind

    async def _complete(self, change: Change, kind: Kind, gate: asyncio.Semaphore) -> Change | None:
        """The change with its version, which not every store tells. None where it is gone."""
        if kind is Kind.REMOVED or change.version is not None:
            return change
        try:
            async with gate:
                stat = await self._originals.stat(change.key)
        except OriginalMissing:
            return None
        return replace(change, version=stat.version)
