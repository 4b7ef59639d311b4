"""Following jobs and batches while they come along, without losing or repeating an end.

The ends of a batch's jobs are told in the order of their times, and then of their ids. Transactions
of several workers do not become visible in that order: an end is told when no earlier one can still
appear.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncGenerator
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

import sqlalchemy as sa

from app.errors import Overloaded
from app.jobs import batches, ledger
from app.jobs.database import Connection, Database
from app.jobs.progress import Progress, find_progress
from app.jobs.records import Batch, Job, Kind
from app.jobs.schema import jobs

HEARTBEAT: Final = 15.0
"""Seconds after which something is said though there is nothing to tell."""
_PAUSES: Final = (0.3, 1.0)
"""Seconds between looks: where something has come, and where nothing has for a while."""
_BETWEEN: Final = 1.0
"""Seconds between two tellings of the counts."""
_PAGE: Final = 200
_MOST: Final = 200
"""Clients that follow at once: each looks into the ledger once a second."""
_LAG: Final = 0.5
"""Seconds after which an end has its place for sure: clocks of several machines differ a little."""
_LONGEST_LAG: Final = 60.0
_PLACE: Final = re.compile(r"(\d{1,12}(?:\.\d{1,20})?)-([0-9a-z]{26}|end)")
_END: Final = "end"


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """Where a follower is: behind the end of this time and job, or behind all of that time."""

    finished_at: float = 0.0
    job_id: str = ""

    def __str__(self) -> str:
        return f"{self.finished_at!r}-{self.job_id}"

    @classmethod
    def read(cls, text: str) -> Place | None:
        """The opposite of `str`, or None."""
        match = _PLACE.fullmatch(text)
        return None if match is None else cls(float(match[1]), match[2])


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """Something to tell: `job` is an end, `progress` a change, `end` the last thing.

    Nothing at all is a sign of life.
    """

    name: str | None = None
    place: Place | None = None
    job: Job | None = None
    batch: Batch | None = None
    progress: Progress | None = None


@dataclass(frozen=True, slots=True)
class _Look:
    batch: Batch
    ended: list[Job]
    settled: float


class Follower:
    """Follows what is in the ledger until it has ended, or `stop` is set."""

    def __init__(self, database: Database, stop: asyncio.Event) -> None:
        self._database = database
        self._stop = stop
        self._following = 0

    def enter(self) -> None:
        """Take one of the places for those who follow. Raises Overloaded where there is none."""
        if self._following >= _MOST:
            raise Overloaded(f"{_MOST} clients follow jobs already", retry_after=10)
        self._following += 1

    def leave(self) -> None:
        """Give the place back."""
        self._following -= 1

    async def follow_batch(
        self, batch_id: str, *, after: Place, ends: bool
    ) -> AsyncGenerator[Told, None]:
        """Tell what happens to a batch: the ends of its jobs if wanted, and its counts."""
        said = time.monotonic()
        counted, counts = 0.0, None
        pause = _PAUSES[0]
        while not self._stop.is_set():
            look = await self._look(batch_id, after if ends else None)
            for job in look.ended:
                after = _place_of(job)
                yield Told(name="job", place=after, job=job)
            finished_at = look.batch.finished_at
            over = finished_at is not None and not look.ended and look.settled > finished_at
            now = time.monotonic()
            if over or now - counted >= _BETWEEN:
                counted = now
                progress = await self._progress(look.batch)
                if over:
                    place = Place(finished_at or 0.0, _END)
                    yield Told(name="end", place=place, batch=look.batch, progress=progress)
                    return
                shown = (look.batch.state, look.batch.total, progress.counts)
                if shown != counts:
                    counts, said = shown, now
                    yield Told(name="progress", batch=look.batch, progress=progress)
            if look.ended:
                said, pause = now, _PAUSES[0]
            elif now - said >= HEARTBEAT:
                said = now
                yield Told()
            if len(look.ended) < _PAGE:
                await self._rest(pause)
                pause = min(pause * 1.3, _PAUSES[1])

    async def follow_job(self, job_id: str, *, after: Place) -> AsyncGenerator[Told, None]:
        """Tell what happens to one job."""
        said = time.monotonic()
        pause, known = _PAUSES[0], None
        while not self._stop.is_set():
            job = await self._database.read(lambda tx: ledger.find(tx, job_id))
            now = time.monotonic()
            if job.finished_at is not None:
                place = _place_of(job)
                if place > after:
                    yield Told(name="job", place=place, job=job)
                yield Told(name="end", place=Place(job.finished_at, _END), job=job)
                return
            shown = (job.state, job.attempt, job.paused)
            if shown != known:
                known, said, pause = shown, now, _PAUSES[0]
                yield Told(name="progress", job=job)
            elif now - said >= HEARTBEAT:
                said = now
                yield Told()
            await self._rest(pause)
            pause = min(pause * 1.3, _PAUSES[1])

    async def _look(self, batch_id: str, after: Place | None) -> _Look:
        def look(tx: Connection) -> _Look:
            settled = _settled_before(tx, now=time.time())
            batch = batches.find(tx, batch_id)
            if after is None:
                return _Look(batch, [], settled)
            return _Look(batch, _find_ended(tx, batch_id, after=after, before=settled), settled)

        return await self._database.read(look)

    async def _progress(self, batch: Batch) -> Progress:
        return await self._database.read(lambda tx: find_progress(tx, batch, now=time.time()))

    async def _rest(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stop.wait()


def has_all(place: Place, finished_at: float | None) -> bool:
    """Whether a follower who was there has been told everything up to an end."""
    return finished_at is not None and place == Place(finished_at, _END)


def _place_of(job: Job) -> Place:
    assert job.finished_at is not None  # noqa: S101 - the caller has looked
    return Place(job.finished_at, job.id)


def _find_ended(tx: Connection, batch_id: str, *, after: Place, before: float) -> list[Job]:
    later = (jobs.c.finished_at > after.finished_at) | (jobs.c.id > after.job_id)
    query = (
        sa.select(jobs)
        .where(jobs.c.batch_id == batch_id, jobs.c.kind == Kind.RENDER)
        .where(jobs.c.finished_at >= after.finished_at, jobs.c.finished_at < before, later)
        .order_by(jobs.c.finished_at, jobs.c.id)
        .limit(_PAGE)
    )
    return [Job.from_row(row) for row in tx.execute(query).mappings()]


def _settled_before(tx: Connection, *, now: float) -> float:
    """The time before which every end is visible.

    SQLite has one writer at a time, which takes the time when it has its turn. PostgreSQL tells
    since when its oldest open transaction is: what that will write down may be as old.
    """
    settled = now - _LAG
    if tx.dialect.name == "sqlite":
        return settled
    oldest = sa.text(
        "SELECT extract(epoch FROM clock_timestamp() - min(xact_start)) FROM pg_stat_activity "
        "WHERE datname = current_database() AND pid <> pg_backend_pid() AND state <> 'idle'"
    )
    age = tx.execute(oldest).scalar()
    return settled if age is None else max(settled - float(age), now - _LONGEST_LAG)
