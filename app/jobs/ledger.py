"""The ledger: what is known of every job, as functions of a connection in a transaction.

A job is queued until a worker begins it, and then running under a lease that its worker renews. It
ends once: whoever no longer holds the lease has no say in it. An attempt that ends in an error
comes again later, as often as the job allows; one whose worker has died with it comes again too,
but a job that has had `MAX_DEATHS` of those is poison and fails.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from operator import attrgetter
from typing import Any, Final

import sqlalchemy as sa

from app.errors import JobPoisoned, RecordMissing, problem_of
from app.jobs import batches, deliveries
from app.jobs.database import Connection, upsert
from app.jobs.ids import is_id, new_id
from app.jobs.records import Draft, Job, Kind, State, packed_source, shown_problem
from app.jobs.schema import DUE, attempts, jobs, pauses, quarantine

MAX_DEATHS: Final = 3
ALL_LABELS: Final = "*"

# What every job goes through is built once: building a statement costs more than running it.
_FIND: Final = sa.select(jobs).where(jobs.c.id == sa.bindparam("job_id"))
_FIND_LOCKED: Final = _FIND.with_for_update()
_FIND_ORPHAN: Final = _FIND_LOCKED.where(
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
_NOTE_ATTEMPT: Final = attempts.insert()
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
    attempts.update()
    .where(
        attempts.c.job_id == sa.bindparam("of"),
        attempts.c.number == sa.bindparam("which"),
        attempts.c.ended_at.is_(None),
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

_FIELDS: Final = tuple(Job.__dataclass_fields__)
_VALUES: Final = attrgetter(*_FIELDS)
_CHUNK: Final = 500
"""Ids in one statement: SQLite takes a bounded number of values."""


def insert(tx: Connection, drafts: Sequence[Draft], *, now: float) -> list[Job]:
    """Accept jobs. Those whose label is paused wait until it is resumed."""
    stopped = paused_labels(tx)
    made = [
        Job(
            id=new_id(),
            kind=draft.kind,
            state=State.QUEUED,
            paused=ALL_LABELS in stopped or draft.label in stopped,
            priority=draft.priority,
            run_after=max(now, draft.run_after),
            created_at=now,
            started_at=None,
            finished_at=None,
            expires_at=draft.expires_at,
            worker=None,
            lease_until=None,
            attempt=0,
            failures=0,
            deaths=0,
            retries=draft.retries,
            timeout=draft.timeout,
            batch_id=draft.batch_id,
            line=draft.line,
            origin=draft.origin,
            label=draft.label,
            source=packed_source(draft.source),
            digest=None,
            outputs=draft.outputs,
            metadata=draft.metadata,
            webhook=draft.webhook,
            results=None,
            error=None,
        )
        for draft in drafts
    ]
    if made:
        tx.execute(jobs.insert(), [_row(job) for job in made])
    return made


def find(tx: Connection, job_id: str) -> Job:
    """The job of an id. Raises RecordMissing."""
    if not is_id(job_id):
        raise RecordMissing(f"There is no job {job_id[:64]!r}")
    row = tx.execute(_FIND, {"job_id": job_id}).mappings().first()
    if row is None:
        raise RecordMissing(f"There is no job {job_id[:64]!r}")
    return Job.from_row(row)


def find_several(tx: Connection, ids: Sequence[str]) -> list[Job]:
    """The jobs of these ids that there are, in the order of the ids."""
    found: dict[str, Job] = {}
    for chunk in _chunks(ids):
        rows = tx.execute(sa.select(jobs).where(jobs.c.id.in_(chunk))).mappings()
        found.update((row["id"], Job.from_row(row)) for row in rows)
    return [found[job_id] for job_id in ids if job_id in found]


def find_page(
    tx: Connection,
    *,
    limit: int,
    state: State | None = None,
    label: str | None = None,
    batch_id: str | None = None,
    before: str | None = None,
) -> list[Job]:
    """Jobs from the newest to the oldest, those older than the id `before`."""
    query = sa.select(jobs).order_by(jobs.c.id.desc()).limit(limit)
    if state is not None:
        query = query.where(jobs.c.state == state)
    if label is not None:
        query = query.where(jobs.c.label == label)
    if batch_id is not None:
        query = query.where(jobs.c.batch_id == batch_id)
    if before is not None:
        query = query.where(jobs.c.id < before)
    return [Job.from_row(row) for row in tx.execute(query).mappings()]


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
    for chunk in _chunks(ids):
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
    for chunk in _chunks(ids):
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
    job = _find_locked(tx, job_id)
    if not job.state.final:
        _end(tx, job, State.CANCELLED, now=now, held=False)
    return find(tx, job_id)


def queue_again(tx: Connection, job_id: str, *, now: float) -> Job | None:
    """Queue a job anew that has failed or was cancelled, or None where it has not."""
    job = _find_locked(tx, job_id)
    if job.state not in (State.FAILED, State.CANCELLED):
        return None
    _queue_anew(tx, [job_id], now=now)
    if job.batch_id is not None and job.kind is not Kind.REPORT:
        batches.reopen(tx, job.batch_id, filling=job.kind is Kind.FILL)
    return find(tx, job_id)


def queue_batch_again(
    tx: Connection,
    batch_id: str,
    *,
    states: Sequence[State],
    after: str,
    limit: int,
    now: float,
) -> list[Job]:
    """Queue jobs of a batch anew that have ended in one of these states: the next after an id."""
    query = (
        sa.select(jobs.c.id)
        .where(jobs.c.batch_id == batch_id, jobs.c.id > after, jobs.c.state.in_(states))
        .where(jobs.c.kind != Kind.REPORT)
        .order_by(jobs.c.id)
        .limit(limit)
        .with_for_update()
    )
    ids = tx.execute(query).scalars().all()
    if not ids:
        return []
    _queue_anew(tx, ids, now=now)
    rows = tx.execute(sa.select(jobs).where(jobs.c.id.in_(ids)).order_by(jobs.c.id)).mappings()
    found = [Job.from_row(row) for row in rows]
    batches.reopen(tx, batch_id, filling=any(job.kind is Kind.FILL for job in found))
    return found


def _queue_anew(tx: Connection, ids: Sequence[str], *, now: float) -> None:
    tx.execute(
        jobs.update()
        .where(jobs.c.id.in_(ids))
        .values(
            state=State.QUEUED,
            run_after=now,
            expires_at=None,
            finished_at=None,
            failures=0,
            deaths=0,
            results=None,
            error=None,
        )
    )


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


def counts(tx: Connection) -> dict[str, int]:
    """How many jobs are in each state."""
    query = sa.select(jobs.c.state, sa.func.count()).group_by(jobs.c.state)
    found = {row.state: row[1] for row in tx.execute(query)}
    return {state.value: found.get(state.value, 0) for state in State}


def paused_labels(tx: Connection) -> set[str]:
    """Labels whose jobs do not begin."""
    return set(tx.execute(sa.select(pauses.c.label)).scalars())


def _find_locked(tx: Connection, job_id: str) -> Job:
    """The job, which no other transaction changes until the end of this one."""
    if not is_id(job_id):
        raise RecordMissing(f"There is no job {job_id[:64]!r}")
    row = tx.execute(_FIND_LOCKED, {"job_id": job_id}).mappings().first()
    if row is None:
        raise RecordMissing(f"There is no job {job_id[:64]!r}")
    return Job.from_row(row)


def is_any_quarantined(tx: Connection) -> bool:
    """Whether there are versions of originals that jobs do not render."""
    return tx.execute(sa.select(quarantine.c.digest).limit(1)).first() is not None


def _bury(tx: Connection, job: Job, *, now: float) -> bool:
    """Count the death of a job's worker. Whether the job may be tried again."""
    tx.execute(
        attempts.update()
        .where(attempts.c.job_id == job.id, attempts.c.ended_at.is_(None))
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


def _row(job: Job) -> dict[str, Any]:
    return dict(zip(_FIELDS, _VALUES(job), strict=True))


def _chunks(ids: Sequence[str]) -> list[Sequence[str]]:
    return [ids[start : start + _CHUNK] for start in range(0, len(ids), _CHUNK)]
