"""Schedules: what runs at times, as functions of a connection in a transaction.

A tick is taken in the transaction that accepts what it runs and that moves the schedule on to its
next tick, with its row locked: however many processes look, one of them does both, or none. The
schedule moves on to a tick after the present, and never back: a clock that jumps forward brings one
run for all ticks that it has jumped over, and one that jumps back none until it has caught up.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from itertools import islice
from typing import Any, Final

import sqlalchemy as sa

from app.errors import InvalidRequest, RecordConflict, RecordMissing
from app.jobs.database import Connection, insert_once
from app.jobs.records import State, shown_time
from app.jobs.recurrence import Recurrence
from app.jobs.schedule_spec import ScheduleBody, Start, is_name
from app.jobs.schema import batches, jobs, schedules

_ANY_DUE: Final = (
    sa.select(schedules.c.id).where(schedules.c.next_at <= sa.bindparam("now")).limit(1)
)
_UPCOMING: Final = 5


class Outcome(StrEnum):
    """What has become of a tick."""

    RAN = "ran"
    MISSED = "missed"
    """More than `grace` seconds late, and not made up for."""
    OVERLAPPED = "overlapped"
    """The run before had not ended."""
    REFUSED = "refused"
    """What it runs could not be started."""
    LEFT = "left"
    """To another process, or for later, or there is no longer anything to take."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """A schedule as it is in the ledger. Times are seconds since the epoch."""

    id: str
    created_at: float
    spec: str
    paused: bool
    next_at: float | None
    last_at: float | None
    last_id: str | None
    runs: int
    skipped: int
    error: str | None

    @property
    def body(self) -> ScheduleBody:
        """What the client has sent."""
        return ScheduleBody.model_validate_json(self.spec)

    @property
    def recurrence(self) -> Recurrence:
        """When it runs. Raises InvalidRequest where that cannot be read any more."""
        return Recurrence.read(self.body, since=self.created_at)

    def upcoming(self) -> list[float]:
        """The next ticks, as far as they are allowed to run."""
        if self.next_at is None:
            return []
        recurrence = self.recurrence
        most = _UPCOMING
        if recurrence.run_times is not None:
            most = min(most, recurrence.run_times - self.runs)
        return [self.next_at, *islice(recurrence.ticks_after(self.next_at), most - 1)]

    def as_json(self) -> dict[str, Any]:
        """What a client is told. Links are added by whoever knows the URLs."""
        state = "paused" if self.paused else "ended" if self.next_at is None else "active"
        shown = {
            "id": self.id,
            "state": state,
            **json.loads(self.spec),
            "created_at": shown_time(self.created_at),
            "next_at": shown_time(self.next_at),
            "last_at": shown_time(self.last_at),
            "last_id": self.last_id,
            "runs": self.runs,
            "skipped": self.skipped,
            "error": None if self.error is None else json.loads(self.error),
        }
        return {name: value for name, value in shown.items() if value is not None}


def put(tx: Connection, schedule_id: str, body: ScheduleBody, *, now: float) -> bool:
    """Create a schedule, or replace the one of its id. Whether it has been created.

    One that is replaced begins anew and stays paused where it is; one whose body is the same stays
    as it is. Raises InvalidRequest where it would never run.
    """
    spec = json.dumps(body.model_dump(exclude_unset=True), sort_keys=True)
    fresh: dict[str, Any] = {"spec": spec, "runs": 0, "skipped": 0, "error": None}
    known = _lock(tx, schedule_id)
    if known is None:
        next_at = _first(body, since=now, now=now)
        row = {"id": schedule_id, "created_at": now, "next_at": next_at, **fresh}
        if insert_once(tx, schedules, **row):
            return True
        known = _lock(tx, schedule_id)  # another request was faster
    if known is None:
        raise RecordConflict(f"The schedule {schedule_id} is deleted by another request")
    if known.spec == spec:
        return False
    first = _first(body, since=known.created_at, now=now)
    if body.kind != known.body.kind:
        fresh |= {"last_at": None, "last_id": None}  # whoever looks for the last run finds its kind
    _change(tx, schedule_id, next_at=None if known.paused else first, **fresh)
    return False


def find(tx: Connection, schedule_id: str) -> Schedule:
    """The schedule of an id. Raises RecordMissing."""
    return _found(_find(tx, schedule_id), schedule_id)


def find_page(tx: Connection, *, limit: int, after: str | None = None) -> list[Schedule]:
    """Schedules in the order of their ids, those after the id `after`."""
    query = sa.select(schedules).order_by(schedules.c.id).limit(limit)
    if after is not None:
        query = query.where(schedules.c.id > after)
    return [Schedule(**row) for row in tx.execute(query).mappings()]


def delete(tx: Connection, schedule_id: str) -> None:
    """Forget a schedule. What it has started goes on. Raises RecordMissing."""
    _found(_lock(tx, schedule_id), schedule_id)
    tx.execute(schedules.delete().where(schedules.c.id == schedule_id))


def pause(tx: Connection, schedule_id: str) -> Schedule:
    """Have it run no more until it is resumed. Raises RecordMissing."""
    _found(_lock(tx, schedule_id), schedule_id)
    _change(tx, schedule_id, paused=True, next_at=None)
    return find(tx, schedule_id)


def resume(tx: Connection, schedule_id: str, *, now: float) -> Schedule:
    """Have it run again from its next tick on: what has passed in between is not made up for.

    Raises RecordMissing.
    """
    schedule = _found(_lock(tx, schedule_id), schedule_id)
    if schedule.paused:
        next_at = _next(schedule.recurrence, runs=schedule.runs, now=now)
        _change(tx, schedule_id, paused=False, next_at=next_at)
    return find(tx, schedule_id)


def is_any_due(tx: Connection, *, now: float) -> bool:
    """Whether a tick of a schedule has come."""
    return tx.execute(_ANY_DUE, {"now": now}).first() is not None


def due(tx: Connection, *, now: float, limit: int) -> list[Schedule]:
    """Schedules of which a tick has come, the longest due first."""
    query = sa.select(schedules).where(schedules.c.next_at <= now)
    query = query.order_by(schedules.c.next_at).limit(limit)
    return [Schedule(**row) for row in tx.execute(query).mappings()]


def take(tx: Connection, found: Schedule, start: Start, *, now: float) -> Outcome:
    """Take the tick of a schedule that was found due, run it, and move on to the next.

    `start` runs what the schedule ran when it was found: one that was replaced since is left.
    """
    schedule = _lock_due(tx, found, now=now)
    if schedule is None:
        return Outcome.LEFT
    body, recurrence = schedule.body, schedule.recurrence
    outcome = Outcome.RAN
    if body.catch_up == "none" and not _in_time(schedule, recurrence, now - body.grace, now=now):
        outcome = Outcome.MISSED
    elif body.overlap == "skip" and _is_open(tx, schedule.last_id):
        outcome = Outcome.OVERLAPPED
    if outcome is not Outcome.RAN:
        next_at = _next(recurrence, runs=schedule.runs, now=now)
        _change(tx, schedule.id, next_at=next_at, skipped=schedule.skipped + 1)
        return outcome
    runs = schedule.runs + 1
    _change(tx, schedule.id, next_at=_next(recurrence, runs=runs, now=now), runs=runs)
    _start(tx, schedule, start, now=now)
    return outcome


def pass_over(tx: Connection, found: Schedule, error: Mapping[str, Any], *, now: float) -> None:
    """Move on from a tick that has come and cannot be run, and note why."""
    schedule = _lock_due(tx, found, now=now)
    if schedule is None:
        return
    try:
        next_at = _next(schedule.recurrence, runs=schedule.runs, now=now)
    except (InvalidRequest, ValueError):
        next_at = None  # its zone, say, is no longer known: it ends
    skipped = schedule.skipped + 1
    _change(tx, schedule.id, next_at=next_at, skipped=skipped, error=json.dumps(error))


def note_delay(tx: Connection, found: Schedule, error: Mapping[str, Any], *, now: float) -> None:
    """Note why a tick that has come is not run yet."""
    if (schedule := _lock_due(tx, found, now=now)) is not None:
        _change(tx, schedule.id, error=json.dumps(error))


def run(tx: Connection, found: Schedule, start: Start, *, now: float) -> Schedule:
    """Run what a schedule runs, whatever the time. It is not one of its `run_times`.

    Raises RecordMissing, and RecordConflict where the last run has not ended, or it was replaced.
    """
    schedule = _found(_lock(tx, found.id), found.id)
    if schedule.spec != found.spec:
        raise RecordConflict("It was replaced by another request at this moment")
    if schedule.body.overlap == "skip" and _is_open(tx, schedule.last_id):
        raise RecordConflict(f"Its last run, {schedule.last_id}, has not ended")
    _start(tx, schedule, start, now=now)
    return find(tx, schedule.id)


def _start(tx: Connection, schedule: Schedule, start: Start, *, now: float) -> None:
    run_id = start(tx, f"schedule:{schedule.id}")
    _change(tx, schedule.id, last_at=now, last_id=run_id, error=None)


def _first(body: ScheduleBody, *, since: float, now: float) -> float:
    """The first tick from now on. Raises InvalidRequest where there is none."""
    at = Recurrence.read(body, since=since).next_after(now)
    if at is None:
        param = "end_at" if body.end_at else "cron" if body.cron else "start_at"
        raise InvalidRequest(f"{param}: no time is left at which this would run", param=param)
    return at


def _next(recurrence: Recurrence, *, runs: int, now: float) -> float | None:
    """The next tick of a schedule that has had so many runs."""
    if recurrence.run_times is not None and runs >= recurrence.run_times:
        return None
    return recurrence.next_after(now)


def _in_time(schedule: Schedule, recurrence: Recurrence, since: float, *, now: float) -> bool:
    """Whether some tick that has not been taken lies between two moments."""
    if schedule.next_at is not None and schedule.next_at >= since:
        return True
    tick = recurrence.next_after(since)
    return tick is not None and tick <= now


def _is_open(tx: Connection, run_id: str | None) -> bool:
    """Whether the job or batch of an id has not ended."""
    if run_id is None:
        return False
    job = sa.exists().where(jobs.c.id == run_id, jobs.c.state.in_((State.QUEUED, State.RUNNING)))
    batch = sa.exists().where(batches.c.id == run_id, batches.c.finished_at.is_(None))
    return bool(tx.execute(sa.select(job | batch)).scalar())


def _find(tx: Connection, schedule_id: str, *, lock: bool = False) -> Schedule | None:
    if not is_name(schedule_id):
        return None
    query = sa.select(schedules).where(schedules.c.id == schedule_id)
    row = tx.execute(query.with_for_update() if lock else query).mappings().first()
    return None if row is None else Schedule(**row)


def _lock(tx: Connection, schedule_id: str) -> Schedule | None:
    """The schedule of an id, which nobody else changes until this transaction has ended."""
    return _find(tx, schedule_id, lock=True)


def _lock_due(tx: Connection, found: Schedule, *, now: float) -> Schedule | None:
    """The schedule, where it is as it was found and its tick has not been taken."""
    schedule = _lock(tx, found.id)
    if schedule is None or schedule.spec != found.spec:
        return None
    return None if schedule.next_at is None or schedule.next_at > now else schedule


def _found(found: Schedule | None, schedule_id: str) -> Schedule:
    if found is None:
        raise RecordMissing(f"There is no schedule {schedule_id[:64]!r}")
    return found


def _change(tx: Connection, schedule_id: str, **values: Any) -> None:
    tx.execute(schedules.update().where(schedules.c.id == schedule_id).values(**values))
