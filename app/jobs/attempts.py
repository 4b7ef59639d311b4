"""Attempts at jobs, from the claim of a job to its end, as functions of a connection.

A job is queued until a worker begins it, and then running under a lease that its worker renews. It
ends once: whoever no longer holds the lease has no say in it. An attempt that ends in an error
comes again later, as often as the job allows; one whose worker has died with it comes again too,
but a job that has had `MAX_DEATHS` of those is poison and fails.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from typing import Any, Final

import sqlalchemy as sa

from app.errors import JobPoisoned, problem_of
from app.jobs import batches, deliveries
from app.jobs.database import Connection, upsert
from app.jobs.ledger import ALL_LABELS, FIND_LOCKED, find, find_locked, in_chunks
from app.jobs.records import Job, Kind, State, shown_problem
from app.jobs.schema import DUE, jobs, pauses, quarantine
from app.jobs.schema import attempts as attempt_rows

MAX_DEATHS: Final = 3

# What every job goes through is built once: building a statement costs more than running it.
_FIND_ORPHAN: Final = FIND_LOCKED.where(
    jobs.c.state == State.RUNNING.value, jobs.c.lease_until <= sa.bindparam("now")
)
_STOPPED: Final = sa.exists().where(
    pauses.c.label.in_((ALL_LABELS, sa.func.coalesce(jobs.c.label, ALL_LABELS)))
)
_BEGIN: Final = (
    jobs.update()
    .where(jobs.c.id == sa.bindparam("job_id"))
    .where(sa.text(DUE), ~_STOPPED, ~batches.IS_OF_STOPPED)
    .values(
        state=State.RUNNING.value,
        worker=sa.bindparam("worker"),
        lease_until=sa.bindparam("until"),
        attempt=jobs.c.attempt + 1,
        started_at=sa.func.coalesce(jobs.c.started_at, sa.bindparam("now")),
    )
    .returning(jobs)
)
_BEGIN_SOUND: Final = _BEGIN.where(jobs.c.deaths == 0)
_HOLD: Final = (
    jobs.update()
    .where(jobs.c.id == sa.bindparam("job_id"))
    .where(sa.text(DUE), _STOPPED)
    .values(paused=True, run_after=sa.bindparam("now"))
)
_NOTE_ATTEMPT: Final = attempt_rows.insert()
_END: Final = (
    jobs.update()
    .where(
        jobs.c.id == sa.bindparam("job_id"),
        jobs.c.state == sa.bindparam("held"),
        jobs.c.attempt == sa.bindparam("held_attempt"),
    )
    .values(
        state=sa.bindparam("state"),
        finished_at=sa.bindparam("now"),
        results=sa.bindparam("results"),
        error=sa.bindparam("error"),
        failures=sa.bindparam("failures"),
        deaths=sa.bindparam("deaths"),
        worker=sa.null(),
        lease_until=sa.null(),
    )
    .returning(jobs)
)
_END_ATTEMPT: Final = (
    attempt_rows.update()
    .where(
        attempt_rows.c.job_id == sa.bindparam("of"),
        attempt_rows.c.number == sa.bindparam("which"),
        attempt_rows.c.ended_at.is_(None),
    )
    .values(ended_at=sa.bindparam("now"), outcome=sa.bindparam("how"), error=sa.bindparam("why"))
)
_DUE: Final = (
    sa.select(jobs.c.id)
    .where(sa.text(DUE))
    .where(jobs.c.priority == sa.bindparam("priority"), jobs.c.run_after <= sa.bindparam("now"))
    .order_by(jobs.c.run_after, jobs.c.id)
    .limit(sa.bindparam("most"))
)


def begin(
    tx: Connection,
    job_id: str,
    *,
    worker: str,
    until: float,
    now: float,
    sound_only: bool = False,
) -> Job | None:
    """Begin an attempt at a job, or None where it is not to be run: ended, paused, or another's.

    A job that is running under a lease that has passed has lost its worker: that is counted first.
    `sound_only` leaves jobs alone that have lost one.
    """
    given = {"job_id": job_id, "worker": worker, "until": until, "now": now}
    row = tx.execute(_BEGIN_SOUND, given).mappings().first()
    if row is None and not sound_only:
        orphan = tx.execute(_FIND_ORPHAN, given).mappings().first()
        if orphan is not None and not _bury(tx, Job.from_row(orphan), now=now):
            return None
        row = tx.execute(_BEGIN, given).mappings().first()
    if row is None:
        # A job that is tried again, or was accepted at that moment, may not be marked yet.
        tx.execute(_HOLD, given)
        return None
    job = Job.from_row(row)
    tx.execute(
        _NOTE_ATTEMPT,
        {"job_id": job_id, "number": job.attempt, "worker": worker, "started_at": now},
    )
    return job


def renew(
    tx: Connection, ids: Sequence[str], *, begun: Collection[str], worker: str, until: float
) -> set[str]:
    """Keep jobs that are in a worker's hands. Returns those that are no longer: let go of them.

    One that it has `begun` and that is queued comes again at a time of its own, which stays.
    """
    kept: set[str] = set()
    for chunk in in_chunks(ids):
        mine = jobs.c.id.in_(chunk) & (jobs.c.worker == worker) & (jobs.c.state == State.RUNNING)
        tx.execute(jobs.update().where(mine).values(lease_until=until))
        unbegun = [job_id for job_id in chunk if job_id not in begun]
        waiting = jobs.c.id.in_(unbegun) & (jobs.c.state == State.QUEUED)
        tx.execute(jobs.update().where(waiting).values(run_after=until))
        kept.update(tx.execute(sa.select(jobs.c.id).where(mine | waiting)).scalars())
    return set(ids) - kept


def finish(tx: Connection, job: Job, results: Sequence[dict[str, Any]], *, now: float) -> bool:
    """End a job well. False where the attempt is no longer the job's: nothing is changed."""
    return _end(tx, job, State.SUCCEEDED, now=now, results=json.dumps(results))


def fail(
    tx: Connection, job: Job, error: dict[str, Any], *, again_at: float | None, now: float
) -> bool:
    """End an attempt in an error: the job comes again at a time, or it has failed.

    It has where its batch is being cancelled. False where the attempt is no longer the job's:
    nothing is changed.
    """
    text = json.dumps(error)
    if again_at is None or _is_stopped(tx, job):
        return _end(tx, job, State.FAILED, now=now, error=text, failures=job.failures + 1)
    changed = tx.execute(
        jobs.update()
        .where(_held(job))
        .values(
            state=State.QUEUED,
            run_after=again_at,
            worker=None,
            lease_until=None,
            failures=job.failures + 1,
            error=text,
        )
    )
    if changed.rowcount:
        _end_attempt(tx, job, "failed", error=text, now=now)
    return bool(changed.rowcount)


def hand_back(
    tx: Connection,
    ids: Sequence[str],
    *,
    worker: str,
    now: float,
    begun: Collection[str] = (),
    again_at: float | None = None,
) -> list[Job]:
    """Queue jobs again that a worker has begun or taken and leaves undone. No attempt is lost.

    They are due at once, or at a time. One that it has `begun` and that is queued already comes
    again at a time of its own: that stays.
    """
    returned = []
    for chunk in in_chunks(ids):
        rows = tx.execute(sa.select(jobs).where(jobs.c.id.in_(chunk)).with_for_update())
        for job in map(Job.from_row, rows.mappings().all()):
            mine = job.state is State.RUNNING and job.worker == worker
            if not mine and (job.state is not State.QUEUED or job.id in begun):
                continue
            values = {"state": State.QUEUED, "worker": None, "lease_until": None}
            tx.execute(
                jobs.update()
                .where(jobs.c.id == job.id)
                .values(run_after=now if again_at is None else again_at, **values)
            )
            if mine:
                _end_attempt(tx, job, "handed back", error=None, now=now)
            returned.append(find(tx, job.id))
    return returned


def cancel(tx: Connection, job_id: str, *, now: float) -> Job:
    """Cancel a job that has not ended; its worker lets go of it. Raises RecordMissing."""
    job = find_locked(tx, job_id)
    if not job.state.final:
        _end(tx, job, State.CANCELLED, now=now, held=False)
    return find(tx, job_id)


def claim(tx: Connection, *, limit: int, until: float, now: float) -> list[str]:
    """Take jobs that are due: of a higher priority first, then the longest due."""
    taken: list[str] = []
    for priority in (2, 1, 0):
        given = {"priority": priority, "now": now, "most": limit - len(taken)}
        taken += tx.execute(_DUE, given).scalars()
        if len(taken) == limit:
            break
    if taken:
        tx.execute(jobs.update().where(jobs.c.id.in_(taken)).values(run_after=until))
    return taken


def reap(tx: Connection, *, now: float, among: Sequence[str] | None = None) -> int:
    """Queue jobs again whose workers have died: all, or those of some ids. Returns how many had."""
    query = sa.select(jobs).where(sa.text("state = 'running'"), jobs.c.lease_until <= now)
    if among is not None:
        query = query.where(jobs.c.id.in_(among))
    rows = tx.execute(query.with_for_update(skip_locked=True)).mappings().all()
    orphans = [Job.from_row(row) for row in rows]
    for job in orphans:
        _bury(tx, job, now=now)
    return len(orphans)


def forgive(tx: Connection, job_id: str) -> None:
    """Forget the failures of a job that comes along: it has all its attempts again."""
    tx.execute(jobs.update().where(jobs.c.id == job_id).values(failures=0, deaths=0))


def note_digest(tx: Connection, job: Job, digest: str) -> bool:
    """Note of which version of its original a suspect job is. True where that is in quarantine."""
    tx.execute(jobs.update().where(jobs.c.id == job.id).values(digest=digest))
    found = sa.select(quarantine.c.digest).where(quarantine.c.digest == digest)
    return tx.execute(found).first() is not None


def is_any_quarantined(tx: Connection) -> bool:
    """Whether there are versions of originals that jobs do not render."""
    return tx.execute(sa.select(quarantine.c.digest).limit(1)).first() is not None


def _bury(tx: Connection, job: Job, *, now: float) -> bool:
    """Count the death of a job's worker. Whether the job may be tried again."""
    tx.execute(
        attempt_rows.update()
        .where(attempt_rows.c.job_id == job.id, attempt_rows.c.ended_at.is_(None))
        .values(ended_at=now, outcome="died")
    )
    deaths = job.deaths + 1
    if deaths < MAX_DEATHS:
        values = {"state": State.QUEUED, "run_after": now, "worker": None, "lease_until": None}
        tx.execute(jobs.update().where(jobs.c.id == job.id).values(deaths=deaths, **values))
        return True
    problem = problem_of(JobPoisoned(f"{deaths} workers have ended while they had this job"))
    assert problem is not None  # noqa: S101 - it is one of ours
    _end(
        tx,
        job,
        State.FAILED,
        now=now,
        held=False,
        deaths=deaths,
        error=json.dumps(shown_problem(problem)),
    )
    if job.digest is not None:
        upsert(tx, quarantine, digest=job.digest, source=job.source, job_id=job.id, since=now)
    return False


def _end(
    tx: Connection, job: Job, state: State, *, now: float, held: bool = True, **values: Any
) -> bool:
    given = {
        "job_id": job.id,
        "held": State.RUNNING if held else job.state,
        "held_attempt": job.attempt,
        "state": state,
        "now": now,
        "results": None,
        "error": None,
        "failures": job.failures,
        "deaths": job.deaths,
        **values,
    }
    row = tx.execute(_END, given).mappings().first()
    if row is None:
        return False
    ended = Job.from_row(row)
    _end_attempt(tx, job, state.value, error=ended.error, now=now)
    if ended.webhook is not None and ended.kind is Kind.RENDER:
        deliveries.announce_job(tx, ended, now=now)
    if ended.batch_id is not None:
        batches.note_end(tx, ended, now=now)
    return True


def _is_stopped(tx: Connection, job: Job) -> bool:
    """Whether the batch of a job is being cancelled."""
    if job.batch_id is None:
        return False
    found = sa.select(jobs.c.id).where(jobs.c.id == job.id, batches.IS_OF_STOPPED)
    return tx.execute(found).first() is not None


def _end_attempt(tx: Connection, job: Job, outcome: str, *, error: str | None, now: float) -> None:
    given = {"of": job.id, "which": job.attempt, "now": now, "how": outcome, "why": error}
    tx.execute(_END_ATTEMPT, given)


def _held(job: Job) -> sa.ColumnElement[bool]:
    """Whether the attempt that this value is of is still the job's."""
    return sa.and_(
        jobs.c.id == job.id, jobs.c.state == State.RUNNING, jobs.c.attempt == job.attempt
    )
