"""The schedules of one process: what routers call, and the chore that takes ticks."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

import structlog

from app.errors import LedgerUnavailable, problem_of
from app.jobs import schedules
from app.jobs.database import Connection, Database
from app.jobs.ids import new_id
from app.jobs.queues import JobQueue
from app.jobs.records import shown_problem
from app.jobs.schedule_spec import Start, Starters, read_schedule
from app.jobs.schedules import Outcome, Schedule

log = structlog.get_logger(__name__)

_AT_ONCE: Final = 100
"""Schedules that are looked after in one round: the others come in the next."""
_MAY_PASS: Final = 500
"""The status from which on a problem is not of what is asked: a store that is away, say."""
_DEFECT: Final = {"title": "Internal error", "status": 500, "code": "internal"}


class Scheduler:
    """Keeps schedules and takes their ticks."""

    def __init__(
        self,
        database: Database,
        queue: JobQueue,
        starters: Starters,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._database = database
        self._queue = queue
        self._starters = starters
        self._clock = clock

    async def put(self, body: Any, schedule_id: str | None = None) -> tuple[Schedule, bool]:
        """Create a schedule or replace the one of this id. Whether it has been created.

        Raises InvalidRequest, TargetRefused, RecordConflict.
        """
        now = self._clock()
        read = read_schedule(body, self._starters, now=now)
        chosen = schedule_id or new_id()

        def keep(tx: Connection) -> tuple[Schedule, bool]:
            created = schedules.put(tx, chosen, read, now=now)
            return schedules.find(tx, chosen), created

        return await self._database.write(keep)

    async def find(self, schedule_id: str) -> Schedule:
        """The schedule of an id. Raises RecordMissing."""
        return await self._database.read(lambda tx: schedules.find(tx, schedule_id))

    async def find_page(self, *, limit: int, after: str | None = None) -> list[Schedule]:
        """Schedules in the order of their ids, those after the id `after`."""
        return await self._database.read(
            lambda tx: schedules.find_page(tx, limit=limit, after=after)
        )

    async def delete(self, schedule_id: str) -> None:
        """Forget a schedule. What it has started goes on. Raises RecordMissing."""
        await self._database.write(lambda tx: schedules.delete(tx, schedule_id))

    async def pause(self, schedule_id: str) -> Schedule:
        """Have it run no more until it is resumed. Raises RecordMissing."""
        return await self._database.write(lambda tx: schedules.pause(tx, schedule_id))

    async def resume(self, schedule_id: str) -> Schedule:
        """Have it run again from its next tick on. Raises RecordMissing."""
        now = self._clock()
        return await self._database.write(lambda tx: schedules.resume(tx, schedule_id, now=now))

    async def run(self, schedule_id: str) -> Schedule:
        """Run what it runs now.

        Raises RecordMissing, RecordConflict, and what stands in the way of its job or batch.
        """
        now = self._clock()
        found = await self.find(schedule_id)
        start = await self._prepare(found, now=now)
        schedule = await self._database.write(lambda tx: schedules.run(tx, found, start, now=now))
        self._queue.wake()
        return schedule

    def is_any_due(self, tx: Connection) -> bool:
        """Whether a tick has come."""
        return schedules.is_any_due(tx, now=self._clock())

    async def tick(self) -> list[Outcome]:
        """Take every tick that has come and that no other process takes."""
        now = self._clock()
        due = await self._database.read(lambda tx: schedules.due(tx, now=now, limit=_AT_ONCE))
        outcomes = await asyncio.gather(*(self._take(found, now) for found in due))
        if Outcome.RAN in outcomes:
            self._queue.wake()
        return outcomes

    async def _prepare(self, schedule: Schedule, *, now: float) -> Start:
        body = schedule.body
        return await self._starters[body.kind].prepare(body.what, now=now)

    async def _take(self, found: Schedule, now: float) -> Outcome:
        """Take a tick. What cannot be run is passed over, and what cannot yet is left for later."""
        try:
            start = await self._prepare(found, now=now)
            outcome = await self._database.write(
                lambda tx: schedules.take(tx, found, start, now=now)
            )
        except LedgerUnavailable:
            return Outcome.LEFT
        except Exception as error:  # noqa: BLE001 - whatever it is, the others run
            outcome = await self._note(found, error, now)
        if outcome is not Outcome.LEFT:
            log.info("schedule_ticked", schedule=found.id, outcome=outcome.value)
        return outcome

    async def _note(self, found: Schedule, error: Exception, now: float) -> Outcome:
        """Note why a tick does not run."""
        problem = problem_of(error)
        if problem is None:
            log.error("schedule_failed", schedule=found.id, exc_info=error)
        told = _DEFECT if problem is None else shown_problem(problem)
        later = problem is not None and problem.status >= _MAY_PASS
        with suppress(LedgerUnavailable):
            if later:
                await self._database.write(
                    lambda tx: schedules.note_delay(tx, found, told, now=now)
                )
            else:
                await self._database.write(lambda tx: schedules.pass_over(tx, found, told, now=now))
        return Outcome.LEFT if later else Outcome.REFUSED
